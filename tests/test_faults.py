"""`spirit tokenize --verify`: shards that are whole pass, and every fault is one line."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from spirit import commit
from spirit.cli import main
from spirit.data.faults import find_faults
from spirit.data.parts import Note, Row, part_bytes
from spirit.data.shards import write_manifest
from spirit.units import Kind, Track, Tracks
from spirit.vocab import Vocab

VOCAB = Vocab.build(259, 256, 257, {Kind.HUBERT: 20, Kind.PITCH: 8})


def row(name: str, hubert: int = 3) -> Row:
    tracks = {
        Kind.HUBERT: Track(Kind.HUBERT, np.array([1, hubert, 0], np.int32), 640),
        Kind.PITCH: Track(Kind.PITCH, np.array([7, 2], np.int32), 1280),
    }
    return Row(name, f"{name}.wav", 0.12, "", (), "", "", "", Tracks(tracks))


def write(folder, *parts):
    """Shards of these parts; each is a list of rows, and rejects the utterance of its number."""
    folder.mkdir()
    for i, rows in enumerate(parts):
        refused = {"id": f"bad-{i}", "audio": "x.wav", "code": "missing", "reason": "no such file"}
        note = Note(vocabulary=VOCAB.fingerprint, tokenizer="feed", rejected=(refused,))
        (folder / f"part-{i:05d}.parquet").write_bytes(part_bytes(rows, note))
    write_manifest(folder, VOCAB, {})
    return folder


@pytest.fixture
def shards(tmp_path):
    return write(tmp_path / "units", [row("a"), row("b")], [row("c")])


@pytest.fixture
def corpus(tmp_path):
    """The corpus that they are made from."""
    path = tmp_path / "corpus.jsonl"
    names = ("a", "b", "bad-0", "c", "bad-1")
    path.write_text("".join(json.dumps({"audio": f"{n}.wav", "id": n}) + "\n" for n in names))
    return path


def run(*arguments):
    done = CliRunner().invoke(main, ["tokenize", *map(str, arguments)])
    return done.exit_code, done.stdout.splitlines()


def test_whole_shards_pass_with_and_without_their_corpus(shards, corpus):
    assert run("--verify", shards) == (0, [f"{shards}: whole"])
    assert run(corpus, "--verify", shards) == (0, [f"{shards}: whole"])
    code, lines = run(corpus, "--verify", shards, "--json")
    assert (code, json.loads("\n".join(lines))["faults"]) == (0, [])


def test_names_with_line_separators_are_no_damage(tmp_path):
    folder = tmp_path / "units"
    folder.mkdir()
    name = "bad\u2028na\x85me.wav"
    refused = {"id": name, "audio": name, "code": "missing", "reason": "no such file"}
    note = Note(vocabulary=VOCAB.fingerprint, tokenizer="feed", rejected=(refused,))
    (folder / "part-00000.parquet").write_bytes(part_bytes([row("a")], note))
    write_manifest(folder, VOCAB, {})
    assert list(find_faults(folder)) == []


def test_damage_to_a_part_is_named(shards):
    (shards / "part-00001.parquet").unlink()
    first = shards / "part-00000.parquet"
    content = bytearray(first.read_bytes())
    content[100] ^= 1
    first.write_bytes(content)
    code, lines = run("--verify", shards)
    assert code == 1
    assert f"{first}: is not the file that was written (SHA-256 differs)" in lines
    assert f"{shards / 'part-00001.parquet'}: is missing" in lines
    assert all(line.startswith(str(shards)) for line in lines)


def test_a_part_that_nobody_listed_is_named(shards):
    shutil.copy(shards / "part-00000.parquet", shards / "part-00007.parquet")
    assert list(find_faults(shards)) == [f"{shards}/part-00007.parquet: is not in the manifest"]


@pytest.mark.parametrize(
    ("parts", "complaint"),
    [
        (([row("a", hubert=20)],), "hubert units are 0 to 20, but the vocabulary has 20"),
        (([row("a")], [row("a")]), "part-00001.parquet: the id 'a' is there twice"),
        (([row("a"), row("bad-0")],), "part-00000.parquet: the id 'bad-0' is there twice"),
    ],
)
def test_units_out_of_range_and_ids_twice_are_named(tmp_path, parts, complaint):
    (fault,) = find_faults(write(tmp_path / "wrong", *parts))
    assert fault.endswith(complaint)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"rows": 4}, "manifest.json: says rows 4, the parts have 3"),
        ({"hours": 1.0}, "manifest.json: says hours 1.0, the parts have 0.0001"),
        ({"rejected": 0}, "manifest.json: says rejected 0, the parts have 2"),
        ({"vocabulary": {}}, "manifest.json: "),
        ({"parts": "all"}, "manifest.json: "),
        ({"fingerprint": "cafe"}, "its fingerprint is not that of its vocabulary"),
    ],
)
def test_a_manifest_that_says_something_else_is_named(shards, change, complaint):
    manifest = json.loads((shards / "manifest.json").read_text())
    commit.json_file(shards / "manifest.json", {**manifest, **change})
    assert complaint in next(find_faults(shards))


def test_a_list_of_refusals_that_was_cut_is_named(shards):
    path = shards / "rejected.jsonl"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    assert list(find_faults(shards)) == [f"{path}: is not the list of what the parts rejected"]


def test_what_is_lost_of_a_corpus_is_named(shards, corpus):
    lines = [*corpus.read_text().splitlines()[1:], '{"audio": "new.wav"}']
    corpus.write_text("\n".join(lines))
    assert run(corpus, "--verify", shards) == (
        1,
        [
            f"{shards}: the utterance 'new.wav' of the corpus is lost",
            f"{shards}: 1 rows or rejections are not of this corpus",
        ],
    )
    many = "".join(json.dumps({"audio": f"{i}.wav"}) + "\n" for i in range(50))
    corpus.write_text(many)
    code, told = run(corpus, "--verify", shards)
    assert (code, len(told)) == (1, 22)
    assert told[20] == f"{shards}: the utterance of 30 more of the corpus is lost"


def test_what_is_no_folder_of_shards_is_one_line(tmp_path):
    code, lines = run("--verify", tmp_path)
    assert code == 1
    assert len(lines) == 1
    assert "it is not finished" in lines[0]
