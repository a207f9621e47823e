"""Unit shards: a folder of Parquet parts and a manifest that vouches for them.

A part is written once and whole, and tells by its note whether it can be kept. `manifest.json`
comes last: a folder without it is not finished.
"""

import json
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, overload

import numpy as np
from jaxtyping import Bool, Int

from spirit import commit
from spirit.data.contents import read_contents
from spirit.data.parts import (
    Note,
    Part,
    Row,
    part_bytes,
    part_name,
    read_ids,
    read_index,
    read_note,
)
from spirit.units import Kind
from spirit.vocab import Vocab

__all__ = [
    "Note",
    "Row",
    "Shards",
    "read_manifest",
    "read_shards",
    "verify",
    "write_manifest",
    "write_shards",
]

FORMAT = "spirit-units-2"
FORMATS = ("spirit-units-1", FORMAT)
"""What can be read. In the first, rows had the path of the recording alone."""
STAGE = ".align"
"""The folder inside where `spirit align` keeps parts until all are there; with a manifest in it,
they are on their way to their places."""
HELD = 96
"""Parts of a folder that stay in memory, a few megabytes each."""


def write_manifest(folder: Path, vocab: Vocab, about: Mapping[str, Any]) -> dict[str, Any]:
    """Vouch for all parts in `folder`: list them with their hashes and write `manifest.json`."""
    notes = {path: read_note(path) for path in sorted(folder.glob("part-*.parquet"))}
    for path, note in notes.items():
        _same(f"{path} has units for", note["vocabulary"], vocab.fingerprint, about)
    made = {(n["tokenizer"], n["variant"], n.get("dtype", "fp32")) for n in notes.values()}
    if len(made) > 1:
        raise ValueError(
            f"{folder} holds parts of several tokenizers, variants or dtypes; delete the foreign "
            "ones"
        )
    rejected = [entry for note in notes.values() for entry in note["rejected"]]
    lines = [json.dumps(entry, ensure_ascii=False) + "\n" for entry in rejected]
    commit.text(folder / "rejected.jsonl", "".join(lines))
    manifest: dict[str, Any] = {
        "format": FORMAT,
        **about,
        "fingerprint": vocab.fingerprint,
        "tokenizer": {
            "name": about.get("tokenizer", ""),
            "fingerprint": next((note["tokenizer"] for note in notes.values()), ""),
        },
        "rows": sum(note["rows"] for note in notes.values()),
        "rejected": len(rejected),
        "hours": round(sum(note["seconds"] for note in notes.values()) / 3600, 6),
        "units": {kind.key: sum(n["units"][kind.key] for n in notes.values()) for kind in Kind},
        "contents": read_contents(notes),
        "hops": next((note["hops"] for note in notes.values() if note["hops"]), {}),
        "parts": [
            {"file": path.name, "rows": note["rows"], "sha256": commit.sha256(path)}
            for path, note in notes.items()
        ],
        "vocabulary": vocab.manifest(),
    }
    commit.json_file(folder / "manifest.json", manifest)
    return manifest


def write_shards(
    folder: Path,
    rows: Sequence[Row],
    vocab: Vocab,
    *,
    tokenizer: str,
    rows_per_part: int = 1_000,
) -> dict[str, Any]:
    """Write rows that are at hand as a finished folder; returns its manifest.

    `tokenizer` is the fingerprint of what made the units.
    """
    note = Note(vocabulary=vocab.fingerprint, tokenizer=tokenizer)
    with commit.folder(folder) as partial:
        for index, first in enumerate(range(0, len(rows), rows_per_part)):
            content = part_bytes(rows[first : first + rows_per_part], note)
            (partial / part_name(index)).write_bytes(content)
        return write_manifest(partial, vocab, {})


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished folder."""
    path = folder / "manifest.json"
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder of unit shards; {_again(folder, {})}")
    if (folder / STAGE / path.name).is_file():
        raise ValueError(
            f"{folder}: `spirit align` was stopped while it put new parts in place; "
            f"run again: spirit align {folder}"
        )
    if not path.is_file():
        raise ValueError(f"{folder} has no manifest.json, it is not finished; {_again(folder, {})}")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); {_again(folder, {})}") from error
    if not isinstance(manifest, dict) or manifest.get("format") not in FORMATS:
        raise ValueError(
            f"{path} is not a manifest of {' or '.join(FORMATS)}; {_again(folder, {})}"
        )
    return manifest


def verify(folder: Path) -> dict[str, Any]:
    """Check every part against its SHA-256 in the manifest, which is returned.

    Raises `ValueError` that names the first part that is missing or is not what was written.
    """
    manifest = read_manifest(folder)
    for part in manifest["parts"]:
        path = folder / part["file"]
        if not path.is_file():
            raise ValueError(
                f"{path} is in the manifest but is missing; {_again(folder, manifest)}"
            )
        if commit.sha256(path) != part["sha256"]:
            raise ValueError(
                f"{path} is not the file that was written (SHA-256 differs); "
                f"delete it and {_again(folder, manifest)}"
            )
    return manifest


def read_shards(folder: Path, *, fingerprint: str | None = None, check: bool = True) -> "Shards":
    """The rows of a finished folder, in order.

    `fingerprint` is that of the vocabulary which will read the units; `check=False` leaves the
    hashes of the parts alone. Raises `ValueError` with what to run again.
    """
    manifest = verify(folder) if check else read_manifest(folder)
    if fingerprint is not None:
        _same(f"{folder} was tokenized for", manifest["fingerprint"], fingerprint, manifest)
    hops = {Kind[name.upper()]: Fraction(hop) for name, hop in manifest["hops"].items()}
    return Shards([folder / part["file"] for part in manifest["parts"]], hops, manifest)


def _again(folder: Path | str, manifest: Mapping[str, Any]) -> str:
    return f"run again: spirit tokenize {manifest.get('corpus', 'CORPUS')} --out {folder}"


def _same(where: str, found: str, wanted: str, manifest: Mapping[str, Any]) -> None:
    if found != wanted:
        again = _again("NEW_FOLDER --tokenizer THE_MODELS_TOKENIZER", manifest)
        raise ValueError(f"{where} vocabulary {found}, but the model has {wanted}; {again}")


class Shards(Sequence[Row]):
    """Rows of a finished folder. A part is read when it is first asked for; the last `HELD` of them
    stay in memory, as flat arrays of 2 bytes a frame."""

    def __init__(
        self, paths: Sequence[Path], hops: Mapping[Kind, Fraction], manifest: Mapping[str, Any]
    ) -> None:
        self.manifest = manifest
        self.sizes: list[int] = [part["rows"] for part in manifest["parts"]]
        """Rows of each part."""
        self._paths, self._hops = paths, hops
        self.starts = list(accumulate(self.sizes, initial=0))
        self._held: OrderedDict[int, Part] = OrderedDict()

    def __len__(self) -> int:
        return self.starts[-1]

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "_held": OrderedDict()}  # a worker reads what it needs
        state.pop("facts", None)
        return state

    def part(self, number: int) -> Part:
        """A part, from memory or disk."""
        part = self._held.pop(number, None)
        if part is None:
            part = Part(self._paths[number], self._hops)
            if len(part) != self.sizes[number]:
                raise ValueError(
                    f"{self._paths[number]} has {len(part)} rows, the manifest says "
                    f"{self.sizes[number]}; delete it and "
                    f"{_again(self._paths[number].parent, self.manifest)}"
                )
            if len(self._held) >= HELD:
                self._held.popitem(last=False)
        self._held[number] = part
        return part

    def place(self, index: int) -> tuple[int, int]:
        """In which part a row is, and where in it."""
        part = bisect_right(self.starts, index) - 1
        return part, index - self.starts[part]

    @cached_property
    def facts(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """What `read_index` says of each part."""
        return [read_index(path) for path in self._paths]

    def ids(self, part: int) -> list[str]:
        """The ids of the rows of a part."""
        return read_ids(self._paths[part])

    @property
    def word_counts(self) -> Int[np.ndarray, " rows"]:
        """How many words with times each row has."""
        return np.concatenate([np.zeros(0, np.int64), *(part[0] for part in self.facts)])

    @property
    def text_lengths(self) -> Int[np.ndarray, " rows"]:
        """The length of each row's transcript in bytes; 0 where it has none."""
        return np.concatenate([np.zeros(0, np.int64), *(part[1] for part in self.facts)])

    @property
    def wordless(self) -> Bool[np.ndarray, " rows"]:
        """Which rows are known to have no words in them, see `read_index`."""
        return np.concatenate([np.zeros(0, bool), *(part[2] for part in self.facts)])

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        part, row = self.place(range(len(self))[index])
        return self.part(part).row(row)
