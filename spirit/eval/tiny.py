"""`spirit eval tiny`: what the bundled model must show, on sentences and settings never trained on.

pocketsphinx is the independent ear. A word error rate is total errors over total words; intervals
are 95 %, by bootstrap over utterances.
"""

import datetime
import hashlib
import platform
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spirit import commit
from spirit.data.corpus import Utterance, read_corpus
from spirit.engine import ranks
from spirit.eval import answers
from spirit.eval.answers import Prompt, Subject, Tongue
from spirit.eval.compare import save_values
from spirit.eval.language import draw_sentences
from spirit.eval.language import load as load_language
from spirit.eval.ledger import collect
from spirit.eval.listen import normalize
from spirit.eval.measures import figures_of, values_of
from spirit.eval.ngram import arpa
from spirit.eval.report import HUMAN, Part, Report
from spirit.formats import spiritlm_model
from spirit.pipeline import find, read_card

PROMPTS = 100
SHOWN = 10
SENTENCES = 20_000
"""Of the language, from which the ear learns what it may hear."""
ROUNDS = 5
"""Raised when the same model would be asked in another way: older results are then not taken."""
VERSIONS = (
    *("torch", "transformers", "pocketsphinx", "jiwer", "torchfcpe", "numpy", "scikit-learn"),
)


def evaluate_tiny(
    model: str | Path,
    data: Path,
    out: Path,
    *,
    limit: int = 200,
    prompts: int = PROMPTS,
    language: Path | None = None,
    device: str = "auto",
    jobs: int = 2,
) -> Report:
    """Measure a model on held-out utterances; writes `figures.json` into `out`.

    `data` is a corpus whose utterances were not trained on; `limit` of its synthetic ones are
    taken, spread evenly over the voices, and all of the human voice. With `language`, a Python
    module (`spirit.eval.language`), as many spoken beginnings as `prompts` are continued and judged
    by it, as they are and by way of text. The answers are kept in `out` one by one, so that an
    interrupted evaluation goes on; the recordings stay there to listen to.

    Raises ValueError if the corpus is missing or too small to give a figure.
    """
    versions = {"python": platform.python_version(), **{name: version(name) for name in VERSIONS}}
    folder = find(model)
    clips, human = choose(list(read_corpus(data)), limit)
    weights, tokenizer = digest(folder), digest(read_card(folder)[1])
    told = commit.sha256(data)[:12]
    where = ranks.device(device).type
    origin = f"{weights[:12]}-{tokenizer[:12]}-{told}-{where}-{ROUNDS}"
    subject = Subject(folder.resolve(), device, out / "recordings")
    subject.recordings.mkdir(parents=True, exist_ok=True)

    def part(name: str, items: dict[str, Any], work: Any, *, origin: str = origin) -> Part:
        return collect(out / f"{name}.jsonl", items, work, origin=origin, jobs=jobs, title=name)

    spoken = {clip.id: clip for clip in clips}
    everyone = {**spoken, **{clip.id: clip for clip in human}}
    beginnings = {f"{p.number} {p.utterance.id} {p.words}": p for p in draw_prompts(clips, prompts)}
    found = {
        "original": part("original", everyone, answers.original, origin=f"ear-{told}-{ROUNDS}"),
        "heard": part("heard", everyone, partial(answers.transcribed, subject=subject)),
        "noisy": part("noisy", spoken, partial(answers.transcribed, subject=subject, noisy=True)),
        "spoken": part("spoken", spoken, partial(answers.spoken, subject=subject)),
        "resynthesis": part("resynthesis", spoken, partial(answers.resynthesized, subject=subject)),
        "any": part("any", beginnings, partial(answers.continued, subject=subject)),
    }
    if language is not None:
        tongue, told_by = _tongue(language, out / "language.arpa")
        aloud = {name: replace(prompt, spoken=True) for name, prompt in beginnings.items()}
        for name, ask in (("completed", answers.completed), ("chained", answers.chained)):
            work = partial(ask, subject=subject, tongue=tongue)
            found[name] = part(name, aloud, work, origin=f"{origin}-{told_by}")
    report = Report(
        command=shlex.join(["spirit", *sys.argv[1:]]),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        device=_device(device),
        versions=versions,
        model=str(model),
        model_sha256=weights,
        tokenizer_sha256=tokenizer,
        data=str(data),
        data_sha256=commit.sha256(data),
        sentences=len(clips),
        figures=figures_of(found),
        answers=list(found["any"].values())[:SHOWN],
        words=_words(everyone.values()),
    )
    report.save(out / "figures.json")
    save_values(out, "tiny", values_of(found))
    return report


def _tongue(module: Path, trigram: Path) -> tuple[Tongue, str]:
    """A language with its trigram, which is written anew, and a name for both."""
    words = load_language(module).words
    drawn = map(normalize, draw_sentences(module, SENTENCES))
    commit.text(trigram, arpa(drawn, words))
    # What the language accepts is told by the module and those beside it.
    read = (trigram, *sorted(module.resolve().parent.glob("*.py")))
    told_by = hashlib.sha256("".join(map(commit.sha256, read)).encode()).hexdigest()[:12]
    return Tongue(module.resolve(), trigram.resolve()), told_by


def _words(clips: Iterable[Utterance]) -> dict[str, int]:
    """Speaker to how many words were said."""
    words = Counter[str]()
    for clip in clips:
        words[clip.speaker] += len(clip.text.split())
    return dict(sorted(words.items()))


def choose(corpus: Sequence[Utterance], limit: int) -> tuple[list[Utterance], list[Utterance]]:
    """The synthetic utterances to measure, `limit` in all and evenly over voices, and the human's.

    The order is by a hash of the id: it does not depend on how the corpus was made.
    """
    ordered = sorted(
        (clip for clip in corpus if clip.text),
        key=lambda clip: hashlib.sha256(clip.id.encode()).digest(),
    )
    human = [clip for clip in ordered if clip.speaker == HUMAN]
    voices: dict[str, list[Utterance]] = {}
    for clip in ordered:
        if clip.speaker != HUMAN:
            voices.setdefault(clip.speaker, []).append(clip)
    turns = sorted((turn, name) for name, clips in voices.items() for turn in range(len(clips)))
    return [voices[name][turn] for turn, name in turns[:limit]], human


def draw_prompts(clips: Sequence[Utterance], count: int) -> list[Prompt]:
    """Seeded beginnings of 2 words up to half of a sentence; even numbers written, odd spoken."""
    long = [clip for clip in clips if len(clip.words) >= 4]
    if not long:
        raise ValueError("no utterance with four timed words to begin a prompt with")
    prompts = []
    for number in range(count):
        rng = np.random.default_rng(number)
        clip = long[int(rng.integers(len(long)))]
        words = int(rng.integers(2, len(clip.words) // 2 + 1))
        prompts.append(Prompt(number, clip, words, spoken=number % 2 == 1))
    return prompts


def identify(model: str | Path) -> tuple[Path, str]:
    """The folder of a model, also of a released Spirit LM, and a name for its weights and those of
    its tokenizer."""
    released = spiritlm_model.locate(model)
    if released is not None:
        parts = (released, spiritlm_model.speech_folder(released))
        return released, "-".join(digest(part, ALL)[:12] for part in parts)
    folder = find(model)
    return folder, "-".join(digest(part)[:12] for part in (folder, read_card(folder)[1]))


ALL = (".safetensors", ".json", ".toml", ".bin", ".pt", ".model", ".yaml", ".txt")
"""What models of others consist of."""


def digest(folder: Path, suffixes: Sequence[str] = ALL[:3]) -> str:
    """One hash over everything in a folder that a result can hang on."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in suffixes:
            digest.update(f"{path.relative_to(folder)} {commit.sha256(path)}\n".encode())
    return digest.hexdigest()


def _device(name: str) -> str:
    """The device in words, as a card names it."""
    if ranks.device(name).type == "cuda":
        return torch.cuda.get_device_name()
    return f"CPU ({platform.machine()})"
