"""What an evaluation found: figures from kept results, as JSON and as Markdown."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from spirit import commit
from spirit.eval.figures import Figure

HUMAN = "allison"
"""The speaker of the recorded human prompts, reported apart from the synthetic voices."""

Result = dict[str, Any]
Part = Mapping[str, Result]


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything measured, with what is needed to measure it again."""

    command: str
    date: str
    device: str
    versions: dict[str, str]
    model: str
    model_sha256: str
    tokenizer_sha256: str
    data: str
    data_sha256: str
    sentences: int
    figures: dict[str, Figure]
    answers: list[Result]
    """The first answers to the seeded prompts, not chosen."""
    words: dict[str, int] = field(default_factory=dict)
    """Speaker to the words of the recordings that were measured."""

    def save(self, path: Path) -> None:
        """Write the report as JSON."""
        commit.json_file(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> "Report":
        """Read a report. Raises ValueError if it is missing or not one."""
        try:
            table = json.loads(path.read_text(encoding="utf-8"))
            found = {n: Figure(**entry) for n, entry in table.pop("figures").items()}
            return cls(**table, figures=found)
        except FileNotFoundError:
            raise ValueError(f"{path}: no figures here; run `spirit eval tiny` first") from None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"{path} is not a report of `spirit eval tiny` ({error}); run it again"
            ) from None


def markdown(report: Report) -> str:
    """The figures, how to get them again, and the first answers."""
    return "\n".join(
        [
            table(report),
            "",
            f"`{report.command}`, {report.date}, {report.device}, {report.sentences} sentences",
            "",
            f"The first {len(report.answers)} answers, not chosen (♪ is speech, as heard):",
            "",
            samples(report),
        ]
    )


def table(report: Report) -> str:
    """All figures as a Markdown table, one a row."""
    rows = ["| measured | figure (95 % interval) | clips |", "|---|---|---|"]
    for name, figure in report.figures.items():
        rows.append(f"| {_title(name)} | {shown(name, figure)} | {figure.count} |")
    lacking = [f"{name} ({why})" for name, why in NEEDS.items() if name not in report.figures]
    if lacking:
        rows += ["", f"Not measured: {', '.join(lacking)}."]
    return "\n".join(rows)


NEEDS = {
    "voices": "needs five recordings of each voice",
    "style": "needs five recordings of each style",
    "completed.text": "needs --language",
    "completed.speech": "needs --language",
    "chained.text": "needs --language",
    "chained.speech": "needs --language",
}
"""What figures need that are not always there."""


TITLES = {
    "heard": "**heard: speech to text by the model, word errors**",
    "heard.noise": "**heard, with white or pink noise at 15 dB**",
    "original": "**pocketsphinx on the original recordings, word errors**",
    "spoken": "**spoken: text to speech by the model, word errors of pocketsphinx**",
    "spoken.above_original": "**spoken: above the originals**",
    "duration": "spoken: seconds for each second of the recording, whatever its style",
    "duration.within": "spoken: within 15 % of the recording, whatever its style",
    "duration.neutral": "spoken: seconds for each second of recordings in the style neutral",
    "duration.neutral_within": "**spoken: within 15 % of recordings in the style neutral**",
    "duration.styled": "spoken in voice and style of the recording: seconds for each of its own",
    "duration.styled_within": "spoken in voice and style of the recording: within 15 % of it",
    "voices": "**spoken in a named voice: told to be that voice**",
    "voices.original": "voices of the recordings themselves",
    "voices.chance": "voices, by guessing the most frequent",
    "resynthesis": "**resynthesis, word errors of pocketsphinx**",
    "resynthesis.above_original": "**resynthesis: above the originals**",
    "f0_correlation": "**resynthesis, correlation of log F0 with the original**",
    "voicing_error": "**resynthesis, voicing error**",
    "style": "**resynthesis: told to be in the style of the original**",
    "style.original": "styles of the recordings themselves",
    "style.chance": "styles, by guessing the most frequent",
    "completed.text": "**a spoken beginning continued in text: sentences of the language**",
    "completed.speech": "**continued in speech: heard within 20 % of the words of a sentence**",
    "chained.text": "**continued by way of text (`--chain`), in text: sentences of the language**",
    "chained.speech": "**by way of text, in speech: heard within 20 % of the words of a sentence**",
    "any.both": "**`--want any`: answers with both text and speech**",
}


def _title(name: str) -> str:
    side, _, rest = name.partition(".")
    if name in TITLES:
        return TITLES[name]
    return f"{side}, {'the human voice' if rest == HUMAN else 'voice'} {rest}"


UNITS = {
    "duration": "",
    "duration.neutral": "",
    "duration.styled": "",
    "f0_rmse": " semitones",
    "f0_squared_error": " semitones²",
    "log_perplexity": " nats",
    "mcd": " dB",
    "mos": "",
    "mos.original": "",
    "perplexity": "",
    "pesq": "",
    "rate": " words/s",
    "rate.original": " words/s",
    "rate_ratio": "",
    "seconds": " s",
    "words": "",
}
"""Figures that are on no scale from 0 to 1."""
PLAIN = {"f0_correlation", "energy_correlation", "stoi", "self_bleu"}
"""Those on such a scale that are no shares."""


def shown(name: str, figure: Figure) -> str:
    """A figure in its own unit: a correlation, points of difference, or per cent."""
    if name.endswith(".above_original"):
        return figure.points()
    if name in UNITS:
        return figure.plain() + UNITS[name]
    return figure.plain() if name in PLAIN else figure.percent()


def change(name: str, difference: Figure) -> str:
    """A difference of two such figures."""
    if name in UNITS or name in PLAIN:
        low, high = (f"{end:+.2f}" for end in (difference.low, difference.high))
        return f"{difference.value:+.2f} ({low} to {high}){UNITS.get(name, '')}"
    return difference.points()


def samples(report: Report) -> str:
    """The first answers to the seeded prompts as Markdown: text as written, speech as heard."""
    lines = []
    for entry in report.answers:
        prompt = f"♪ {entry['prompt']} ♪" if entry["spoken"] else entry["prompt"]
        lines.append(f"1. **{prompt}** … " + " ".join(_segment(s) for s in entry["segments"]))
    return "\n".join(lines)


def _segment(segment: Result) -> str:
    if "text" in segment:
        return str(segment["text"])
    return f"♪ {segment['heard'] or '…'} ({segment['speech']:.1f} s) ♪"
