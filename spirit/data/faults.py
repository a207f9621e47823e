"""Whether unit shards are whole: every part, every row, and nothing of the corpus lost."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from spirit import commit
from spirit.data.corpus import Utterance
from spirit.data.parts import read_note
from spirit.data.shards import read_manifest
from spirit.units import Kind
from spirit.vocab import Vocab

SHOWN = 20
"""Ids that are named of each fault that many rows share."""


def find_faults(folder: Path, corpus: Iterable[Utterance] | None = None) -> Iterator[str]:
    """Every fault of a folder of unit shards as one line; none if all is well.

    Checked are the manifest, its SHA-256 of every part, the counts, the units against the
    vocabulary, that every id is there once, and, where a corpus is given, that each of its
    utterances is a row or was rejected, and nothing else is there. Memory: the ids, and one part.
    """
    try:
        manifest = read_manifest(folder)
        vocab = Vocab.from_manifest(manifest["vocabulary"])
        listed = {part["file"]: part for part in manifest["parts"]}
        totals = {key: manifest[key] for key in ("rows", "rejected", "hours", "units")}
    except (ValueError, KeyError, TypeError) as error:
        yield f"{folder / 'manifest.json'}: {_line(error)}"
        return
    if manifest.get("fingerprint") != vocab.fingerprint:
        yield f"{folder / 'manifest.json'}: its fingerprint is not that of its vocabulary"
    for path in sorted(folder.glob("part-*.parquet")):
        if path.name not in listed:
            yield f"{path}: is not in the manifest"
    seen: set[bytes] = set()
    notes: list[dict[str, Any]] = []
    whole = True
    for name, part in listed.items():
        faults = list(_part_faults(folder / name, part, manifest, vocab, seen, notes))
        whole = whole and not faults
        yield from faults
    if whole:  # the sums of parts that are damaged say nothing more
        yield from _sum_faults(folder, totals, notes)
    if corpus is not None:
        yield from _lost(folder, corpus, seen)


def _part_faults(
    path: Path,
    part: Mapping[str, Any],
    manifest: Mapping[str, Any],
    vocab: Vocab,
    seen: set[bytes],
    notes: list[dict[str, Any]],
) -> Iterator[str]:
    """The faults of one part; its ids go to `seen`, its note to `notes`."""
    if not path.is_file():
        yield f"{path}: is missing"
        return
    if commit.sha256(path) != part.get("sha256"):
        yield f"{path}: is not the file that was written (SHA-256 differs)"
    try:
        note = read_note(path)
        ids, counts = _columns(path)
    except ValueError as error:
        yield _line(error)
        return
    notes.append(note)
    if not part.get("rows") == note["rows"] == len(ids):
        yield f"{path}: has {len(ids)} rows, but the manifest says {part.get('rows')}"
    made = (note.get("vocabulary"), note.get("tokenizer"))
    if made != (manifest["fingerprint"], manifest["tokenizer"]["fingerprint"]):
        yield f"{path}: was made with another tokenizer than the manifest says"
    for kind, (frames, least, most) in counts.items():
        count = vocab.count.get(kind, 0)
        if frames and not 0 <= least <= most < count:
            yield f"{path}: {kind.key} units are {least} to {most}, but the vocabulary has {count}"
        if frames != (said := note["units"][kind.key]):
            yield f"{path}: has {frames} {kind.key} units, but its note says {said}"
    again = []
    for name in [*ids, *(entry["id"] for entry in note["rejected"])]:
        if (key := _key(name)) in seen:
            again.append(name)
        seen.add(key)
    yield from _named(again, f"{path}: the id", "is there twice")


def _columns(path: Path) -> tuple[list[str], dict[Kind, tuple[int, int, int]]]:
    """The ids of a part, and of each kind how many units it has, the least and the greatest."""
    from pyarrow import ArrowException, compute, parquet

    counts = {}
    try:
        table = parquet.read_table(path, columns=["id", *(kind.key for kind in Kind)])
        for kind in Kind:
            units = compute.list_flatten(table.column(kind.key))
            ends = compute.min_max(units).as_py()
            counts[kind] = (len(units), ends["min"] or 0, ends["max"] or 0)
        return table.column("id").to_pylist(), counts
    except (ArrowException, KeyError, OSError) as error:
        raise ValueError(f"{path}: cannot be read ({_line(error)})") from None


def _sum_faults(
    folder: Path, totals: Mapping[str, Any], notes: list[dict[str, Any]]
) -> Iterator[str]:
    rejected = [entry for note in notes for entry in note["rejected"]]
    found = {
        "rows": sum(note["rows"] for note in notes),
        "rejected": len(rejected),
        "hours": round(sum(note["seconds"] for note in notes) / 3600, 6),
        "units": {kind.key: sum(note["units"][kind.key] for note in notes) for kind in Kind},
    }
    for key, value in found.items():
        if totals[key] != value:
            yield f"{folder / 'manifest.json'}: says {key} {totals[key]}, the parts have {value}"
    path = folder / "rejected.jsonl"
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    except (OSError, ValueError) as error:
        yield f"{path}: cannot be read ({_line(error)})"
        return
    if lines != rejected:
        yield f"{path}: is not the list of what the parts rejected"


def _lost(folder: Path, corpus: Iterable[Utterance], seen: set[bytes]) -> Iterator[str]:
    lost, met = [], 0
    for utterance in corpus:
        if _key(utterance.id) in seen:
            met += 1
        else:
            lost.append(utterance.id)
    yield from _named(lost, f"{folder}: the utterance", "of the corpus is lost")
    if met < len(seen):
        yield f"{folder}: {len(seen) - met} rows or rejections are not of this corpus"


def _named(ids: list[str], before: str, after: str) -> Iterator[str]:
    for name in ids[:SHOWN]:
        yield f"{before} {name!r} {after}"
    if len(ids) > SHOWN:
        yield f"{before} of {len(ids) - SHOWN} more {after}"


def _key(name: str) -> bytes:
    """16 bytes in the place of an id of any length."""
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
