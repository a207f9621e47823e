"""Stretches of long files and rows of Parquet become the same shards however they are made."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import soundfile
from pyarrow import parquet

from spirit import commit
from spirit.audio import read_audio
from spirit.data.corpus import read_corpus
from spirit.data.faults import find_faults
from spirit.data.shards import read_shards
from spirit.prepare import tokenize
from spirit.units import SAMPLE_RATE

ROOT = Path(__file__).parent.parent
SPEECH = np.tile(read_audio(ROOT / "tests" / "data" / "jfk.flac"), 6)
RUN = {"rows_per_part": 3, "batch_seconds": 4}

pytest_plugins = "tests.fixtures"


@pytest.fixture(scope="module")
def kaldi(tmp_path_factory):
    """Nine segments of two long files, one of them beyond the end, one of a file that is gone."""
    folder = tmp_path_factory.mktemp("kaldi")
    for name, rate in (("a.flac", 44_100), ("b.wav", 16_000)):
        soundfile.write(folder / name, np.repeat(SPEECH, 3)[: rate * 10], rate)
    (folder / "wav.scp").write_text("a a.flac\nb b.wav\nc gone.wav\n")
    spans = [("ab"[i % 2], 0.7 * i, 0.7 * i + 0.5 + 0.1 * (i % 4)) for i in range(9)]
    spans += [("a", 9.0, 12.0), ("c", 0.0, 1.0)]
    lines = [
        f"u{i:02d} {name} {start:.2f} {end:.2f}\n" for i, (name, start, end) in enumerate(spans)
    ]
    (folder / "segments").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Nine rows of bytes in groups of two, one of them no sound."""
    path = tmp_path_factory.mktemp("parquet") / "train.parquet"
    scratch, audio = path.with_name("x.flac"), []
    for i in range(9):
        soundfile.write(scratch, SPEECH[i * 9_000 :][: 6_000 + 1_500 * (i % 4)], SAMPLE_RATE)
        audio.append({"bytes": scratch.read_bytes() if i != 4 else b"no sound", "path": None})
    scratch.unlink()
    form = pyarrow.struct([("bytes", "binary"), ("path", "string")])
    table = pyarrow.table({"audio": pyarrow.array(audio, form), "text": list("abcdefghi")})
    parquet.write_table(table, path, row_group_size=2)
    return path


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_rows_lead_back_to_what_was_heard(kaldi, rows, tokenizer, tmp_path):
    for corpus, root in ((kaldi, kaldi), (rows, rows.parent)):
        out = tmp_path / root.name
        tokenize(corpus, tokenizer, out, **RUN)
        for row in read_shards(out):
            assert len(read_audio(row.sound(root))) == round(row.seconds * SAMPLE_RATE)
            if corpus is kaldi:
                assert row.sha256 == commit.sha256(kaldi / row.audio)
                assert row.stop - row.start == round(row.seconds * SAMPLE_RATE)
            else:
                assert (row.audio, row.parquet_column) == ("train.parquet", "audio")
                assert row.text == "abcdefghi"[row.parquet_row]
    lines = (tmp_path / kaldi.name / "rejected.jsonl").read_text().splitlines()
    late, gone = map(json.loads, lines)
    assert (late["id"], late["code"], late["start"], late["stop"]) == ("u09", "beyond_end", 9, 12)
    assert (gone["audio"], gone["code"]) == ("gone.wav", "missing")
    (line,) = (tmp_path / rows.parent.name / "rejected.jsonl").read_text().splitlines()
    refused = json.loads(line)
    assert (refused["row"], refused["code"]) == (4, "not_audio")


@pytest.mark.parametrize("name", ["kaldi", "rows"])
def test_a_killed_run_ends_in_the_same_bytes_with_other_workers(name, request, tokenizer, tmp_path):
    corpus = request.getfixturevalue(name)
    whole, out = tmp_path / "whole", tmp_path / "killed"
    report = tokenize(corpus, tokenizer, whole, **RUN)
    assert report["rejected"] == {"kaldi": 2, "rows": 1}[name]
    assert list(find_faults(whole, read_corpus(corpus))) == []
    call = f"tokenize(Path({str(corpus)!r}), Path({str(tokenizer)!r}), Path({str(out)!r}), **{RUN})"
    imports = "from pathlib import Path; from spirit.prepare import tokenize"
    running = subprocess.Popen([sys.executable, "-c", f"{imports}; {call}"], cwd=ROOT)
    while running.poll() is None and not list(out.glob("part-*")):
        time.sleep(0.01)
    running.kill()
    running.wait()
    tokenize(corpus, tokenizer, out, workers=2, **RUN)
    assert content(out) == content(whole)


def test_a_url_that_fails_ends_the_run_and_not_the_recording(tokenizer, tmp_path, monkeypatch):
    import fsspec

    with fsspec.open("memory://talks/a.flac", "wb") as file:
        file.write((ROOT / "tests" / "data" / "jfk.flac").read_bytes())
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"audio": "memory://talks/a.flac", "start": 1, "duration": 0.5}\n')
    with monkeypatch.context() as broken:
        broken.setattr("fsspec.open", lambda *_: 1 / 0)
        with pytest.raises(ConnectionError, match=r"memory://talks/a\.flac: cannot be fetched"):
            tokenize(corpus, tokenizer, tmp_path / "units")
    tokenize(corpus, tokenizer, tmp_path / "units")
    (row,) = read_shards(tmp_path / "units")
    assert (row.audio, row.start, row.stop) == ("memory://talks/a.flac", 16_000, 24_000)
