"""Unit shards: rows come back as they went in, and nothing damaged or foreign is read."""

import dataclasses
import json
from fractions import Fraction

import numpy as np
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from spirit import commit
from spirit.data.parts import Note, Row, part_bytes, read_note
from spirit.data.shards import read_manifest, read_shards, verify, write_shards
from spirit.units import Kind, Track, Tracks, Word
from spirit.vocab import Vocab

VOCAB = Vocab.build(259, 256, 257, {Kind.HUBERT: 20, Kind.PITCH: 8, Kind.STYLE: 4})
HOPS = {Kind.HUBERT: Fraction(1_600_000, 2_499), Kind.PITCH: Fraction(1280)}
NOTE = Note(vocabulary=VOCAB.fingerprint, tokenizer="feed")


def tracks(*units: list[int]) -> Tracks:
    kinds = zip(HOPS, units, strict=True)
    return Tracks({kind: Track(kind, np.array(unit, np.int32), HOPS[kind]) for kind, unit in kinds})


def make_row(name: str, hubert: list[int], pitch: list[int], words: tuple[Word, ...] = ()) -> Row:
    text = " ".join(word.text for word in words)
    where = f"audio/{name}.flac"
    return Row(name, where, 1.25, text, words, "slt", "en", "sad", tracks(hubert, pitch))


def flat(row: Row) -> tuple[object, ...]:
    by_kind = row.tracks.by_kind
    units = [(kind, by_kind[kind].hop, by_kind[kind].unit.tolist()) for kind in sorted(by_kind)]
    return (*(getattr(row, name) for name in Row.__dataclass_fields__ if name != "tracks"), units)


words = st.builds(
    Word,
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=5),
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.sampled_from([0.0, 0.5, 1.0]),
)
rows = st.lists(
    st.builds(
        make_row,
        st.text(st.characters(codec="utf-8"), max_size=8),
        st.lists(st.integers(0, 19), max_size=30),
        st.lists(st.integers(0, 7), max_size=9),
        st.lists(words, max_size=3).map(tuple),
    ),
    max_size=7,
)


@given(rows, st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_rows_survive_the_shards(tmp_path_factory, rows, rows_per_part):
    folder = tmp_path_factory.mktemp("shards") / "units"
    write_shards(folder, rows, VOCAB, tokenizer="feed", rows_per_part=rows_per_part)
    read = read_shards(folder, fingerprint=VOCAB.fingerprint)
    assert [flat(row) for row in read] == [flat(row) for row in rows]
    assert read.word_counts.tolist() == [len(row.words) for row in rows]
    assert read.text_lengths.tolist() == [len(row.text.encode()) for row in rows]


def test_the_same_rows_give_the_same_bytes():
    some = [make_row("a", [1, 2], [3], (Word("hm", 0, 640),)), make_row("b", [], [])]
    assert part_bytes(some, NOTE) == part_bytes(some, NOTE)


def test_rows_with_other_hops_do_not_share_a_part():
    row = make_row("a", [1], [2])
    other = Tracks({Kind.HUBERT: Track(Kind.HUBERT, np.array([1]), Fraction(640))})
    foreign = Row("b", "b.wav", 1.0, "", (), "", "", "", other)
    with pytest.raises(ValueError, match="different hops"):
        part_bytes([row, foreign], NOTE)


def test_a_unit_beyond_16_bits_is_refused_and_not_wrapped():
    with pytest.raises(ValueError, match="40000"):
        part_bytes([make_row("a", [40_000], [0])], NOTE)


def test_a_part_tells_what_it_is_made_of(tmp_path):
    rejected = ({"id": "bad", "audio": "bad.wav", "reason": "empty"},)
    note = Note(vocabulary="cafe", tokenizer="feed", source="beef", rejected=rejected)
    path = tmp_path / "part-00000.parquet"
    path.write_bytes(part_bytes([make_row("a", [1, 2, 2], [3])], note))
    about = read_note(path)
    assert about["rows"] == 1
    assert about["seconds"] == 1.25
    assert about["source"] == "beef"
    assert about["rejected"] == list(rejected)
    assert about["units"] == {"style": 0, "pitch": 1, "hubert": 3}
    assert about["hops"] == {"pitch": "1280", "hubert": "1600000/2499"}


@pytest.fixture
def folder(tmp_path):
    some = [make_row(name, [1, 2, 3] * 50, [4, 5], (Word("hm", 0, 640),)) for name in "abcde"]
    write_shards(tmp_path / "units", some, VOCAB, tokenizer="feed", rows_per_part=2)
    return tmp_path / "units"


def test_the_manifest_counts_and_vouches(folder):
    manifest = verify(folder)
    assert (manifest["rows"], manifest["rejected"]) == (5, 0)
    assert manifest["hours"] == pytest.approx(5 * 1.25 / 3600, abs=1e-6)
    assert [part["rows"] for part in manifest["parts"]] == [2, 2, 1]
    assert Vocab.from_manifest(manifest["vocabulary"]) == VOCAB
    assert (folder / "rejected.jsonl").read_text() == ""


def test_a_flipped_bit_is_noticed_and_named(folder):
    part = folder / "part-00001.parquet"
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 4
    part.write_bytes(content)
    with pytest.raises(ValueError, match=r"part-00001\.parquet is not the file .* run again"):
        read_shards(folder)


def test_a_missing_part_is_noticed_and_named(folder):
    (folder / "part-00002.parquet").unlink()
    with pytest.raises(ValueError, match=r"part-00002\.parquet .* missing; run again"):
        verify(folder)


def test_another_vocabulary_is_refused_with_both_fingerprints(folder):
    other = Vocab.build(259, 256, 257, {Kind.HUBERT: 21})
    with pytest.raises(ValueError, match="run again: spirit tokenize") as caught:
        read_shards(folder, fingerprint=other.fingerprint)
    assert VOCAB.fingerprint in str(caught.value)
    assert other.fingerprint in str(caught.value)


def test_an_unfinished_or_damaged_folder_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="no such folder"):
        read_manifest(tmp_path / "nowhere")
    manifest = folder / "manifest.json"
    whole = manifest.read_text()
    manifest.write_text(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"manifest\.json is damaged"):
        read_manifest(folder)
    manifest.write_text(json.dumps({"format": "other"}))
    with pytest.raises(ValueError, match="is not a manifest of spirit-units-1 or spirit-units-2"):
        read_manifest(folder)
    manifest.unlink()
    with pytest.raises(ValueError, match="it is not finished; run again"):
        read_shards(folder)


def test_shards_of_the_first_format_are_still_read(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    wanted = [flat(row) for row in read_shards(folder)]
    for part in manifest["parts"]:
        path = folder / part["file"]
        table = parquet.read_table(path)
        names = [audio["uri"] for audio in table.column("audio").to_pylist()]
        at = table.schema.get_field_index("audio")
        parquet.write_table(table.set_column(at, "audio", pyarrow.array(names)), path)
        part["sha256"] = commit.sha256(path)
    commit.json_file(folder / "manifest.json", {**manifest, "format": "spirit-units-1"})
    assert [flat(row) for row in read_shards(folder)] == wanted


def test_where_sound_lies_survives_the_shards(tmp_path):
    place = {"start": 3, "stop": 2**40, "parquet_row": 7, "parquet_column": "a", "sha256": "feed"}
    row = dataclasses.replace(make_row("a", [1], [2]), audio="s3://b/x y#1.parquet", **place)
    write_shards(tmp_path / "units", [row], VOCAB, tokenizer="feed")
    assert [flat(again) for again in read_shards(tmp_path / "units")] == [flat(row)]


def test_a_file_that_is_no_part_is_one_line(tmp_path):
    (tmp_path / "part-00000.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(ValueError, match=r"part-00000\.parquet: not a part of unit shards"):
        read_note(tmp_path / "part-00000.parquet")


def test_slices_and_negative_indices_are_those_of_a_list(folder):
    read = read_shards(folder)
    assert [row.id for row in read[1:4]] == ["b", "c", "d"]
    assert read[-1].id == "e"
    with pytest.raises(IndexError):
        read[5]
