"""What the ablations are asked: pairs of readings and prompts in a mood, in the layouts of suites.

    python recipes/ablations/pairs.py --out work/ablations/pairs --pairs 200

writes `storycloze`, `salmon` and `stsp`. All sentences are of those that `recipes/tiny` keeps from
training, said by flite in settings of pitch, spread and rate that training never meets. Everything
comes in twins that swap what is right, so that a model which looks at the second half alone is
right in half of the choices, whatever it prefers.
"""

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float

sys.path.insert(0, str(Path(__file__).parents[1] / "tiny"))

import language
import voices

from spirit import commit
from spirit.units import Word

MOODS = {"excited": "happy", "sad": "sad", "neutral": "default"}
"""Style of the corpus to emotion of STSP."""
SENTIMENTS = {"happy": "positive", "sad": "negative", "default": "neutral"}
LEAST = 6
"""Words of a sentence that is cut in half."""


@dataclass(frozen=True)
class Said:
    """A sentence and its recording, cut halfway between the two words in the middle."""

    words: tuple[str, ...]
    wave: Float[np.ndarray, " samples"]
    cut: int

    @property
    def texts(self) -> tuple[str, str]:
        """The two halves in words."""
        half = len(self.words) // 2
        return " ".join(self.words[:half]), " ".join(self.words[half:])

    @property
    def waves(self) -> tuple[Float[np.ndarray, " _"], Float[np.ndarray, " _"]]:
        """The two halves in sound."""
        return self.wave[: self.cut], self.wave[self.cut :]


class Speaker:
    """Says sentences, each with the places of its words."""

    def __init__(self, scratch: Path) -> None:
        voices.require()
        voices.prepare(scratch)
        self._scratch = scratch
        self._alone = voices.pronunciations(sorted(language.expected()))

    def say(self, text: str, voice: str, settings: voices.Settings) -> Said | None:
        """None where the words are in doubt."""
        wave, phones = voices.speak(text, voice, settings, self._scratch)
        spans = voices.locate(text, phones, self._alone)
        if spans is None:
            return None
        words = [Word(*span) for span in spans]
        half = len(words) // 2
        return Said(
            tuple(word.text for word in words),
            wave,
            (words[half - 1].stop + words[half].start) // 2,
        )


def sentence(rng: random.Random) -> str:
    """A sentence that no training has seen, long enough to be cut."""
    while True:
        text = language.draw(rng)
        if language.heldout(text) and len(text.split()) >= LEAST:
            return text


Say = Callable[[str, str, voices.Settings], Said | None]


def stories(say: Say, pairs: int, seed: int) -> Iterator[tuple[str, Said, Said]]:
    """Name, a sentence, and another whose second half is no end of it: the language accepts neither
    beginning with the other's end. Each pair comes twice, the other way round."""
    judge = language.automaton()
    names = list(voices.VOICES)
    for number in range(pairs):
        rng = random.Random(f"{seed} story {number}")
        voice = names[number % len(names)]
        while True:
            settings = voices.draw_settings(voice, "neutral", True, rng)
            both = [say(sentence(rng), voice, settings) for _ in range(2)]
            one, other = both
            if one is None or other is None:
                continue
            crossed = (f"{a.texts[0]} {b.texts[1]}" for a, b in ((one, other), (other, one)))
            if not any(map(judge.accepts, crossed)):
                break
        yield f"{number:03d}a", one, other
        yield f"{number:03d}b", other, one


def changes(
    say: Say, part: str, count: int, seed: int
) -> Iterator[tuple[Float[np.ndarray, " _"], Float[np.ndarray, " _"]]]:
    """A sentence whose halves sound alike, and one that changes halfway; then both again with the
    halves' parts swapped. Every recording is joined of two takes."""
    names = list(voices.VOICES)
    for number in range(count):
        rng = random.Random(f"{seed} {part} {number}")
        while True:
            text = sentence(rng)
            if part == "sentiment_consistency":
                voice = names[number % len(names)]
                sides = [(voice, "excited"), (voice, "sad")]
            else:
                sides = [(voice, "neutral") for voice in rng.sample(names, 2)]
            takes = [
                [say(text, v, voices.draw_settings(v, style, True, rng)) for _ in range(2)]
                for v, style in sides
            ]
            if all(take is not None for side in takes for take in side):
                break
        for here, there in ((0, 1), (1, 0)):
            before = takes[here][0].waves[0]
            same, other = (takes[side][1].waves[1] for side in (here, there))
            yield np.concatenate([before, same]), np.concatenate([before, other])


def moods(say: Say, voice: str, count: int, seed: int) -> Iterator[tuple[str, Said]]:
    """Sentences of one voice in the moods in turn."""
    for number in range(count):
        rng = random.Random(f"{seed} mood {number}")
        style = list(MOODS)[number % len(MOODS)]
        while True:
            said = say(sentence(rng), voice, voices.draw_settings(voice, style, True, rng))
            if said is not None:
                break
        yield style, said


def write(out: Path, pairs: int, seed: int, voice: str) -> None:
    """All three folders below `out`, which appears whole."""
    with tempfile.TemporaryDirectory() as scratch, commit.folder(out) as partial:
        say = Speaker(Path(scratch)).say
        for name, one, other in stories(say, pairs, seed):
            folder = partial / "storycloze"
            for part, said, half in (
                ("mutual", one, 0),
                ("correct", one, 1),
                ("incorrect", other, 1),
            ):
                _wave(folder / f"{name}_{part}.wav", said.waves[half])
                commit.text(folder / f"{name}_{part}.txt", said.texts[half] + "\n")
        for part in ("sentiment_consistency", "speaker_consistency"):
            for number, sides in enumerate(changes(say, part, pairs // 2, seed)):
                for turn, wave in enumerate(sides):  # the first in order of names is right
                    kind = ("consistent", "changed")[turn]
                    _wave(partial / f"salmon/{part}/sample_{number}_{turn}_{kind}.wav", wave)
        rows = []
        for number, (style, said) in enumerate(moods(say, voice, 3 * pairs // 2, seed)):
            emotion = MOODS[style]
            for half, kind in enumerate(("prompt", "rest")):
                _wave(partial / f"stsp/data/flite/{number:03d}_{kind}.wav", said.waves[half])
            rows.append(
                {"id": number, "wav_path": f"flite/{number:03d}_prompt.wav", "asr": said.texts[0]}
                | {"emotion": emotion, "sentiment": SENTIMENTS[emotion]}
                | {"split": "test", "speaker": voice}
            )
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        commit.text(partial / "stsp/manifest/flite/flite.test.jsonl", lines)


def _wave(path: Path, wave: Float[np.ndarray, " samples"]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, voices.RATE, subtype="PCM_16")


def main() -> int:
    parser = argparse.ArgumentParser(description="Pairs and prompts for the ablations.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=200, help="twins of each kind")
    parser.add_argument("--voice", default="slt", help="who says the prompts in a mood")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    try:
        if args.pairs < 2 or args.voice not in voices.VOICES:
            raise ValueError(f"--pairs is at least 2, --voice one of {', '.join(voices.VOICES)}")
        if not args.out.exists():
            write(args.out, args.pairs, args.seed, args.voice)
    except (ValueError, OSError) as error:
        print(f"pairs.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
