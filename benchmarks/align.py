"""How near the times of an aligner come to those of a voice that knows its own, and how fast.

    python benchmarks/align.py --sentences 20

flite says sentences of the tiny recipe's grammar in four voices and prints where each phone ends;
pocketsphinx is given the recordings and the words. Prints JSON: boundary errors in milliseconds
(each word's start and stop), mean score, and seconds of audio in a second by the clock and by the
CPU's own (on a busy machine they differ). Of the scores it also says what the gate makes of right
transcripts and of transcripts with one word replaced.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spirit.align.aligner import Unaligned, Wave
from spirit.align.sphinx import Pocketsphinx
from spirit.units import SAMPLE_RATE, Word

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes/tiny"))

import language
import voices

Truth = list[tuple[str, int, int]]


def say(count: int, seed: int, folder: Path) -> list[tuple[Wave, Truth]]:
    """Recordings of sentences, by the voices in turn, and where each word is in them."""
    rng = random.Random(seed)
    voices.prepare(folder)
    spoken: list[tuple[Wave, Truth]] = []
    while len(spoken) < count:
        text, voice = language.draw(rng), list(voices.VOICES)[len(spoken) % 4]
        drawn = voices.draw_settings(voice, "neutral", True, rng)
        wave, phones = voices.speak(text, voice, drawn, folder)
        truth = voices.locate(text, phones, voices.pronunciations(sorted(set(text.split()))))
        if truth is not None:
            spoken.append((wave, truth))
    return spoken


def hear(aligner: Pocketsphinx, wave: Wave, words: Sequence[str]) -> list[Word] | None:
    try:
        return aligner("", words, lambda: wave)
    except Unaligned:
        return None


def replaced(spoken: Sequence[tuple[Wave, Truth]], rng: random.Random) -> list[list[str]]:
    """Each transcript with one word in the place of another one."""
    every = sorted({word for _, truth in spoken for word, *_ in truth})
    wrong = []
    for _, truth in spoken:
        words = [word for word, *_ in truth]
        at = rng.randrange(len(words))
        words[at] = rng.choice([word for word in every if word != words[at]])
        wrong.append(words)
    return wrong


def measure(count: int, seed: int, folder: Path) -> dict[str, Any]:
    spoken = say(count, seed, folder)
    aligner = Pocketsphinx()
    began, worked = time.monotonic(), time.process_time()
    found = [hear(aligner, wave, [word for word, *_ in truth]) for wave, truth in spoken]
    wall, cpu = time.monotonic() - began, time.process_time() - worked
    pairs = [
        (word, start, stop)
        for words, (_, truth) in zip(found, spoken, strict=True)
        for word, (_, start, stop) in zip(words or (), truth, strict=False)
    ]
    errors = np.array([[word.start - start, word.stop - stop] for word, start, stop in pairs])
    milliseconds = 1000 * errors / SAMPLE_RATE
    seconds = sum(len(wave) for wave, _ in spoken) / SAMPLE_RATE
    wrong = replaced(spoken, random.Random(seed))
    others = [hear(aligner, wave, words) for (wave, _), words in zip(spoken, wrong, strict=True)]
    return {
        "sentences": count,
        "seconds_of_audio": round(seconds, 1),
        "words": len(pairs),
        "not_aligned": sum(words is None for words in found),
        "median_error_ms": round(float(np.median(np.abs(milliseconds))), 1),
        "p90_error_ms": round(float(np.percentile(np.abs(milliseconds), 90)), 1),
        "median_bias_ms": round(float(np.median(milliseconds)), 1),
        "mean_score": round(float(np.mean([word.score for word, *_ in pairs])), 3),
        "kept_by_the_gate": kept(found, aligner.gate),
        "kept_with_a_wrong_word": kept(others, aligner.gate),
        "x_real_time": round(seconds / wall, 1),
        "x_real_time_of_cpu": round(seconds / cpu, 1),
    }


def kept(found: Sequence[Sequence[Word] | None], gate: float) -> float:
    """The share of utterances whose words are all at the gate or above."""
    good = [words is not None and min(word.score for word in words) >= gate for words in found]
    return round(float(np.mean(good)), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sentences", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    try:
        voices.require()
    except ValueError as error:
        sys.exit(f"benchmarks/align.py: {error}")
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(asked.sentences, asked.seed, Path(folder)), indent=1))


if __name__ == "__main__":
    main()
