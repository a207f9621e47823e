"""What shards know of their utterances besides units: texts, words, voices, languages."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Contents:
    """What is known of the utterances of parts."""

    text: int = 0
    """Utterances with a transcript, and so on."""
    words: int = 0
    style: int = 0
    speaker: int = 0
    speakers: set[str] = field(default_factory=set)
    seconds: dict[str, float] = field(default_factory=dict)
    """By language."""

    def add(self, path: Path) -> None:
        """Count a part, without reading its units."""
        from pyarrow import ArrowException, compute, parquet

        texts = ("text", "style_name", "speaker", "language")
        try:
            table = parquet.read_table(path, columns=[*texts, "words", "seconds"])
            there = {
                name: compute.sum(compute.greater(length(table.column(name)), 0)).as_py() or 0
                for name, length in [
                    *((name, compute.binary_length) for name in texts),
                    ("words", compute.list_value_length),
                ]
            }
            names = compute.unique(table.column("speaker")).to_pylist()
        except (ArrowException, KeyError) as error:
            raise ValueError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from error
        self.text += there["text"]
        self.words += there["words"]
        self.style += there["style_name"]
        self.speaker += there["speaker"]
        self.speakers.update(name for name in names if name)
        columns = (table.column(name).to_pylist() for name in ("language", "seconds"))
        for language, seconds in zip(*columns, strict=True):
            self.seconds[language or ""] = self.seconds.get(language or "", 0.0) + seconds

    def facts(self) -> dict[str, Any]:
        """As JSON: how many utterances have a `text`, `words`, a `style`, a `speaker`; how many
        `speakers` there are; `hours` by language, "" where it is not known."""
        return {
            "text": self.text,
            "words": self.words,
            "style": self.style,
            "speaker": self.speaker,
            "speakers": len(self.speakers),
            "hours": {name: round(s / 3600, 6) for name, s in sorted(self.seconds.items())},
        }


def read_contents(paths: Iterable[Path]) -> dict[str, Any]:
    """What is known of the utterances in parts, see `Contents.facts`, read one by one."""
    contents = Contents()
    for path in paths:
        contents.add(path)
    return contents.facts()
