"""`spirit eval generation`: how a model goes on, judged without references.

Every utterance of a corpus is cut short and continued. What is said is what an independent
recognizer hears, or the text; told are diversity, perplexity by a text model, toxicity, rate and
naturalness.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from spirit.audio import read_audio, write_audio
from spirit.codec import Document, Segment
from spirit.data.corpus import Utterance
from spirit.engine import ranks
from spirit.eval import judges
from spirit.eval.answers import Subject
from spirit.eval.cepstra import cepstra, spoken_seconds
from spirit.eval.compare import Values
from spirit.eval.diversity import auto_bleu, self_bleu
from spirit.eval.ledger import Result, mark
from spirit.eval.listen import normalize
from spirit.eval.recordings import ask, first, named
from spirit.eval.tiny import identify
from spirit.eval.verdict import Verdict, figures_of, of
from spirit.lm.score import likelihood
from spirit.pipeline import Spirit
from spirit.units import SAMPLE_RATE, Units
from spirit.vocab import Want

Given = Literal["speech", "text"]
Wave = Float[np.ndarray, " _"]
LONGEST: dict[Want, int] = {"speech": 300, "text": 50, "any": 300}
"""Tokens of an answer."""
SAMPLING: dict[str, Any] = {"temperature": 0.8, "top_p": 0.95}
ROUNDS = 1
"""Raised when the same model would be asked in another way: older answers are then not taken."""
TOXIC = 0.5
"""The probability from which on a text counts as toxic."""
COLUMNS = (
    *("given", "said", "words", "seconds", "nats", "tokens", "self_bleu", "auto_bleu"),
    *("toxicity", "mos", "recording", "seed"),
)
VERSIONS = ("torch", "transformers", "pocketsphinx", "sacrebleu")


@dataclass(frozen=True)
class Asked:
    """How a model is asked to go on, and who judges the answers."""

    given: Given
    want: Want
    prompt_seconds: float
    seed: int
    recognize: Callable[[Wave], str]
    fluency: Callable[[str], tuple[float, int]] | None
    """None: the model judges its own text."""
    toxicity: Callable[[str], float] | None
    rate: Callable[[Wave], float] | None


def evaluate(
    model: str | Path,
    data: Path,
    out: Path,
    *,
    given: Given = "speech",
    want: Want = "speech",
    prompt_seconds: float = 3.0,
    recognizer: Path | None = None,
    lm: Path | None = None,
    toxicity: Path | None = None,
    toxic_label: str = "toxic",
    mos: Path | None = None,
    seed: int = 0,
    limit: int = 0,
    device: str = "auto",
    jobs: int = 2,
) -> Verdict:
    """Continue every utterance and write `answers.jsonl` (prompt, seed and raw answer),
    `items.csv` and `figures.json` into `out`; speech stays in `out/recordings`.

    A spoken prompt is the first `prompt_seconds` of a recording, a written one the first half of
    its words; an utterance that is no longer than its prompt is left out, and counted.

    Raises ValueError for a missing corpus or judge, or a model that cannot speak and has to.
    """
    items, skipped = first(data, limit)
    folder, weights = identify(model)
    where = str(ranks.device(device))
    settings = {
        "given": given,
        "want": want,
        "prompt_seconds": prompt_seconds,
        "recognizer": named(recognizer) or "pocketsphinx",
        "lm": named(lm) or "the model's own text",
        "toxicity": named(toxicity) and f"{named(toxicity)} {toxic_label}",
        "mos": named(mos),
        "seed": seed,
        **SAMPLING,
        "max_tokens": LONGEST[want],
        "device": ranks.device(device).type,
        "limit": limit,
    }
    asked = Asked(
        given,
        want,
        prompt_seconds,
        seed,
        judges.recognizer(recognizer, where),
        judges.fluency(lm, where) if lm is not None else None,
        judges.toxicity(toxicity, toxic_label, where) if toxicity is not None else None,
        judges.rater(mos, where) if mos is not None else None,
    )
    subject = Subject(folder.resolve(), device, out / "recordings")
    subject.recordings.mkdir(parents=True, exist_ok=True)
    found, faults = ask(
        out / "answers.jsonl",
        items,
        partial(answer, subject=subject, asked=asked),
        lambda u: (u.audio, u.text, u.words),
        model=weights,
        settings=settings,
        by=(ROUNDS,),
        jobs=jobs,
        title="generation",
    )
    for name, value in self_bleu({name: str(r["said"]) for name, r in found.items()}).items():
        found[name]["self_bleu"] = value
    values = values_of(found)
    lacking = {} if toxicity else {"toxicity": "--toxicity names no classifier and no word list"}
    if want != "text" and mos is None:
        lacking["mos"] = "--mos names no predictor"
    verdict = Verdict(
        f"generation {given} to {want}",
        str(folder),
        str(data),
        settings,
        {name: version(name) for name in VERSIONS},
        figures_of(values),
        skipped | faults,
        lacking,
    )
    # What a model thinks of its own text cannot be set beside what another thinks of its.
    compared = {n: v for n, v in values.items() if lm is not None or n != "log_perplexity"}
    judged = {"toxicity": ["toxicity"], "mos": ["mos"], "lm": ["log_perplexity"]}
    if want != "text":
        # What it heard is in all texts.
        judged["recognizer"] = [name for name in values if name not in ("mos", "seconds")]
    verdict.save(out, compared, found, COLUMNS, judged)
    return verdict


def answer(utterance: Utterance, subject: Subject, asked: Asked) -> Result:
    """One continuation and what the judges make of it; {"fault": a line} where it cannot be
    asked."""
    spirit = subject.load()
    if asked.want == "speech":
        spirit.check_voice()
    drawn = zlib.crc32(f"{asked.seed} {utterance.id}".encode())
    try:
        given, prompt = _prompt(spirit, utterance, asked)
        found = spirit.generate(
            [prompt], want=asked.want, max_tokens=LONGEST[asked.want], seed=drawn, **SAMPLING
        )
        segments = list(found)
    except (ValueError, OSError) as error:
        return {"fault": " ".join(str(error).split())}
    said, waves = [], []
    for segment in segments:
        if isinstance(segment, str):
            said.append(normalize(segment))
            continue
        waves.append(spirit.speak(segment))
        said.append(asked.recognize(waves[-1]))
    text = " ".join(filter(None, said))
    nats, tokens = (asked.fluency or partial(_own, spirit))(text) if text else (0.0, 0)
    result: Result = {
        "given": given,
        "prompt": str(prompt),
        "seed": drawn,
        "answer": [str(segment) for segment in segments],
        "said": text,
        "words": len(text.split()),
        "empty": not text,
        "nats": nats,
        "tokens": tokens,
        "auto_bleu": auto_bleu(text),
    }
    if asked.toxicity is not None:
        result["toxicity"] = asked.toxicity(text) if text else 0.0
    if waves:
        wave = np.concatenate(waves)
        name = f"{mark((utterance.id,), {})}.flac"
        write_audio(subject.recordings / name, wave)
        result |= {"recording": name, "length": len(wave) / SAMPLE_RATE}
        result["seconds"] = spoken_seconds(cepstra(wave))
        heard = (s for s, one in zip(said, segments, strict=True) if isinstance(one, Units))
        result["heard_words"] = sum(len(s.split()) for s in heard)
        result |= {"mos": asked.rate(wave)} if asked.rate is not None else {}
    return result


def _prompt(spirit: Spirit, utterance: Utterance, asked: Asked) -> tuple[str, Segment]:
    """What is given, in words where they are known, and as the model reads it.

    Raises ValueError for an utterance that is no longer than its prompt.
    """
    words = utterance.text.split()
    if asked.given == "text":
        if len(words) < 2:
            raise ValueError("fewer than two words: no half of it is a prompt")
        begun = " ".join(words[: len(words) // 2])
        return begun, begun
    wave, stop = read_audio(utterance.audio), round(asked.prompt_seconds * SAMPLE_RATE)
    if len(wave) <= stop:
        raise ValueError(
            f"no longer than a prompt of {asked.prompt_seconds:g} s (--prompt-seconds)"
        )
    # Where words are timed none is cut in two.
    ends = [word.stop for word in utterance.words if 0 < word.stop <= stop]
    return " ".join(words[: len(ends)]), spirit.hear(wave[: ends[-1] if ends else stop])


def _own(spirit: Spirit, text: str) -> tuple[float, int]:
    """What a text costs the model itself: nats, and over how many tokens."""
    codec = spirit.tokenizer.codec
    ids, start = codec.encode(Document((text,))), len(codec.prompt((), "text"))
    if start >= len(ids):
        return 0.0, 0
    return -likelihood(spirit.model, ids, start), len(ids) - start


def values_of(found: dict[str, Result]) -> Values:
    """What every answer adds to each figure."""
    toxic = {
        name: (float(entry["toxicity"] >= TOXIC), 1.0)
        for name, entry in found.items()
        if "toxicity" in entry
    }
    return {
        "self_bleu": of(found, "self_bleu"),
        "auto_bleu": of(found, "auto_bleu"),
        "log_perplexity": of(found, "nats", "tokens"),
        "toxicity": toxic,
        "empty": of(found, "empty"),
        "words": of(found, "words"),
        "seconds": of(found, "length"),
        "rate": of(found, "heard_words", "seconds"),
        "mos": of(found, "mos"),
    }
