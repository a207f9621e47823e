"""The model card: what is in a model folder and what was measured, read from files alone."""

import json
import tomllib
from collections import Counter
from math import prod
from pathlib import Path
from typing import Any

from spirit import commit
from spirit.eval.report import HUMAN, Report, samples, table

MEGABYTE = 1_000_000


def write_card(model: Path, tokenizer: Path, corpus: Path, report: Path, build: Path) -> None:
    """Write `README.md` into a model folder.

    `corpus` is the folder of the recipe's corpus, `report` the figures of `spirit eval tiny` for
    this model, `build` a JSON with the preset, the device and the seconds of each stage.

    Raises ValueError if a file is missing, or if the figures are those of other weights.
    """
    from spirit.eval.tiny import digest

    measured = Report.load(report)
    if measured.model_sha256 != digest(model) or measured.tokenizer_sha256 != digest(tokenizer):
        raise ValueError(f"{report} was measured on other weights than {model}; run it again")
    sections = [
        _head(model),
        _parts(model, tokenizer),
        _data(corpus),
        _training(_read(build)),
        _measured(measured),
        LIMITS,
    ]
    commit.text(model / "README.md", "\n\n".join(sections) + "\n")


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} is missing; run the recipe again") from None
    return found


def _head(model: Path) -> str:
    card = tomllib.loads((model / "spirit.toml").read_text(encoding="utf-8"))
    return f"""---
license: {str(card["license"]).lower()}
language: en
tags: [speech, text, speech-language-model]
---

# {model.name}: the bundled model

A small language model over one stream of text and speech tokens, with the speech tokenizer it
hears with and the vocoder it speaks with. `make tiny` makes it from nothing. Its language is a
grammar of everyday English sentences, not English.

    spirit generate --prompt-text "the weather in paris is" --want speech --out reply.wav"""


def _parts(model: Path, tokenizer: Path) -> str:
    rows = ["## What is in it", "", "| part | parameters | MB |", "|---|---|---|"]
    total = 0.0
    for folder in (model, tokenizer):
        for path in sorted(folder.rglob("*.safetensors")):
            size = path.stat().st_size / MEGABYTE
            total += size
            name = f"{folder.parent.name}/{folder.name}/{path.relative_to(folder).as_posix()}"
            rows.append(f"| `{name}` | {_parameters(path):,} | {size:.1f} |")
    rows.append(f"| together | | {total:.1f} |")
    llama = _read(model / "config.json")
    rows += [
        "",
        f"The language model is a Llama of {llama['num_hidden_layers']} layers, "
        f"{llama['hidden_size']} channels and {llama['vocab_size']} tokens.",
    ]
    return "\n".join(rows)


def _parameters(path: Path) -> int:
    """Counted from the header, without reading the weights."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as weights:
        return sum(prod(weights.get_slice(name).get_shape()) for name in list(weights.keys()))


def _data(corpus: Path) -> str:
    rows = ["## Data", "", "| split | voice | recordings | minutes | words |"]
    rows.append("|---|---|---|---|---|")
    heard = ("heard",) if (corpus / "heard.jsonl").is_file() else ()
    for split in ("train", *heard, "heldout"):
        clips, seconds, words = Counter[str](), Counter[str](), Counter[str]()
        try:
            lines = (corpus / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            raise ValueError(f"{corpus} has no {split}.jsonl; run the recipe again") from None
        for entry in map(json.loads, lines):
            clips[entry["speaker"]] += 1
            seconds[entry["speaker"]] += entry["seconds"]
            words[entry["speaker"]] += len(entry["text"].split())
        rows += [
            f"| {split} | {name} | {clips[name]:,} | {seconds[name] / 60:.1f} | {words[name]:,} |"
            for name in sorted(clips)
        ]
    return "\n".join([*rows, "", SOURCES])


SOURCES = """The sentences of the held-out split are never in training, nor are the settings of
pitch, spread and rate that they are spoken with (copies played faster or slower may come near). A
split heard holds further noisy copies of the training recordings, of which only the language model
learns, and only to transcribe.

- slt, rms, awb, kal16: synthetic voices of flite (Carnegie Mellon University, a BSD-like licence),
  spoken while the recipe runs.
- allison: prompts of the Debian package `asterisk-core-sounds-en-g722`, recorded by Allison Smith
  with the support of Digium, licence CC-BY-SA-3.0; the transcripts are the recipe's own.

The recordings themselves are no part of the weights, which are under Apache-2.0 like the code, and
keep their own licences."""


def _training(build: dict[str, Any]) -> str:
    stages = ", ".join(f"{name} {seconds / 60:.1f}" for name, seconds in build["seconds"].items())
    return f"""## Training

Preset `{build["preset"]}` on {build["device"]}, {build["date"]}: `{build["command"]}`,
with the code of commit {build.get("code", "unknown")}.
Minutes by stage (some run side by side): {stages}.
From start to end {build["total"] / 60:.0f} minutes."""


def _measured(report: Report) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in report.versions.items())
    return f"""## What it does

{table(report)}

On {report.sentences} held-out sentences of the synthetic voices, spoken in settings of pitch,
spread and rate that training never has{_human(report)}. `{report.command}`,
{report.date}, {report.device}; {versions}.
Measured on these weights: model {report.model_sha256}, tokenizer {report.tokenizer_sha256}.

The independent ear is pocketsphinx with its own en-us acoustic and language model, no grammar and
default options, the same for all sides. Word errors are total errors over total words; intervals
are a bootstrap over utterances; F0 is heard by FCPE, at original durations.
{_judged(report)}
The first {len(report.answers)} answers to seeded beginnings, not chosen. ♪ is speech: of a prompt
what was said, of an answer what pocketsphinx hears in it.

{samples(report)}"""


def _human(report: Report) -> str:
    if not report.words.get(HUMAN):
        return ""
    return (
        f";\nand on {report.figures[f'heard.{HUMAN}'].count} recordings of the human voice with "
        f"{report.words[HUMAN]:,} words, held out by a\nhash of their names"
    )


def _judged(report: Report) -> str:
    """How the figures came about that are not all of a report."""
    told = {
        "heard.noise": NOISE,
        "duration.styled": DURATION,
        "voices": VOICES,
        "completed.text": COMPLETED,
    }
    return "".join(f"\n{text}\n" for name, text in told.items() if name in report.figures)


NOISE = """Noise is white or pink, by a draw with the utterance's own seed, 15 dB below the power of
the recording."""
DURATION = """Durations are those of the whole answer over those of flite's recording. Recordings in
the style neutral have the voice's own pitch and rate; others were made fast or slow on purpose: "in
voice and style" asks for theirs (`--speaker`, `--style`)."""
VOICES = """Voices are told by a logistic regression on mean and spread of log F0, voiced share,
letters a second and the means of 13 mel cepstra; styles by the same without the cepstra, less the
mean of the voice. It is trained on recordings alone, four fifths of them, and judges the last fifth
and what the model made of it, in turn; chance is to guess the most frequent. A voice is asked for
by `--task speak --speaker`; styles are those that flite's settings were drawn for."""
COMPLETED = """Sentences of the language are what `recipes/tiny/language.py --accepts` accepts, the
beginning included; speech is heard by pocketsphinx with a trigram of 20,000 sentences of the
language, and counts where a change of a fifth of its words makes a sentence of it. By way of text
(`--chain`), the model writes down the beginning as it hears it, goes on in text, and says that."""

LIMITS = """## What it cannot do

- It knows the words and sentences of its grammar (`recipes/tiny/language.py`) and little else:
  other words are heard and said as ones it knows, and nothing beyond a sentence has a meaning.
- It hears four synthetic voices and one human voice. Other speakers, rooms, microphones, accents
  and languages are outside its training; expect it to mishear them.
- It speaks in the voices that it was trained on, and in no other.
- Its answers are neither facts nor advice. The human voice belongs to a person: do not make anyone
  believe that she said what the model says."""
