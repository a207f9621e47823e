"""Hostile recordings: each is read or refused for one typed reason, and nothing else is lost."""

import json
import os
import threading
from typing import get_args

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from spirit.audio import AudioError, Fault
from spirit.cli import main
from spirit.data.corpus import read_corpus
from spirit.data.decoder import Decoder, Limits
from spirit.data.faults import find_faults
from spirit.data.shards import read_shards
from spirit.units import SAMPLE_RATE
from tests import hostile
from tests.bundle import JFK, build_tokenizer

COUNT = 150
CODES = {*get_args(Fault), "words_beyond_end", "too_short"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of hostile files, each family as it is and then damaged, and one that is well."""
    folder = tmp_path_factory.mktemp("hostile")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hostile, "BOMB", 70.0)
        files = hostile.write(folder, COUNT, seed=1)
    return folder, files


@pytest.fixture(scope="module")
def found(made):
    """What came of each file, and the line that was said about it."""
    decoder, results = Decoder(Limits(max_seconds=60.0)), {}
    for path in made[1]:
        try:
            wave, digest = decoder.read_hashed(path)
            assert np.isfinite(wave).all()
            assert len(digest) == 64
            results[path] = ("heard", "")
        except AudioError as error:
            results[path] = (error.code, str(error))
    decoder.close()
    return results


def test_there_are_forty_families_and_more():
    assert len(hostile.FAMILIES) == len(hostile.LIST) >= 40


def test_every_family_is_heard_or_refused_for_its_reason(made, found):
    first = list(made[1].items())[: len(hostile.LIST)]
    assert [family for _, family in first] == list(hostile.LIST)
    odd = {f.name: found[path] for path, f in first if found[path][0] not in f.outcomes.split()}
    assert not odd


def test_damage_gives_one_line_with_the_name_and_no_child_dies(found):
    for path, (code, line) in found.items():
        if code != "heard":
            assert code in CODES - {"crashed", "timed_out", "too_large", "unusable"}
            assert line.startswith(f"{path}: ")
            assert "\n" not in line.removeprefix(str(path))


def test_a_hostile_folder_is_tokenized_and_nothing_is_lost(made, tmp_path):
    folder, files = made
    (folder / "well.flac").write_bytes(JFK.read_bytes())
    build_tokenizer(tmp_path / "tiny")
    out = tmp_path / "units"
    command = ["tokenize", str(folder), "--tokenizer", str(tmp_path / "tiny"), "--out", str(out)]
    done = CliRunner().invoke(main, [*command, "--json"])
    assert done.exit_code == 0, done.stderr
    assert "Traceback" not in done.stderr
    report = json.loads(done.stdout)
    corpus = list(read_corpus(folder))
    assert list(find_faults(out, corpus)) == []
    assert report["utterances"] + report["rejected"] == len(corpus) > len(files) - 5
    rows = {row.id: row for row in read_shards(out)}
    assert rows["well.flac"].seconds == 2.5
    texts = {row.text for name, row in rows.items() if name != "well.flac"}
    assert texts == {hostile.TRANSCRIPT, ""}
    for line in (out / "rejected.jsonl").read_text().splitlines():
        refused = json.loads(line)
        assert refused["code"] in CODES
        assert "\n" not in refused["reason"]


def test_names_of_a_manifest_cannot_end_the_run(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.full(16_000, 0.1), SAMPLE_RATE)
    names = {
        "up": f"../{tmp_path.name}/./a.wav",
        "root": "../../../../../../etc/passwd",
        "long": "a" * 5_000 + ".wav",
        "lines": "a\nb\u2028.wav",
        "self": ".",
    }
    lines = [json.dumps({"id": id, "audio": name}) for id, name in names.items()]
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines))
    build_tokenizer(tmp_path / "tiny")
    command = ["tokenize", f"{tmp_path}/corpus.jsonl", "--tokenizer", f"{tmp_path}/tiny"]
    done = CliRunner().invoke(main, [*command, "--out", f"{tmp_path}/units"])
    assert done.exit_code == 0, done.stderr
    codes = {}
    for line in (tmp_path / "units" / "rejected.jsonl").read_text().split("\n")[:-1]:
        refused = json.loads(line)
        codes[refused["id"]] = refused["code"]
    assert [row.id for row in read_shards(tmp_path / "units")] == ["up"]
    assert codes.pop("root") in ("not_audio", "missing")
    assert codes.pop("long") in ("not_readable", "missing")
    assert codes == {"lines": "missing", "self": "not_a_file"}


CHANGED = "changed while it was read"


def test_files_that_vanish_grow_or_shrink_while_they_are_read(tmp_path):
    path, noise = tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.3, 0.3, 400_000)
    soundfile.write(path, noise, 48_000)
    whole, done = path.read_bytes(), threading.Event()

    def meddle() -> None:
        while not done.is_set():
            path.write_bytes(whole)
            with path.open("ab") as file:
                file.write(whole[:100_000])
            os.truncate(path, 300_001)
            path.unlink(missing_ok=True)

    meddling, decoder, codes = threading.Thread(target=meddle), Decoder(), set()
    decoder.start()
    meddling.start()
    try:
        for turn in range(5_000):
            if turn >= 60 and len(codes) > 1:  # who comes when is chance
                break
            try:
                decoder.read_hashed(path)
                codes.add("heard")
            except AudioError as error:
                codes.add(error.code)
            except OSError as error:
                codes.add(CHANGED if CHANGED in str(error) else str(error))
    finally:
        done.set()
        meddling.join()
        decoder.close()
    known = {"heard", "missing", "not_a_file", "empty", "not_audio", "cut_short", CHANGED}
    assert codes <= known
    assert len(codes) > 1


def test_a_row_of_parquet_that_names_a_fifo_is_refused(tmp_path):
    import pyarrow
    from pyarrow import parquet

    from spirit.sound import Sound

    os.mkfifo(tmp_path / "a.wav")
    form = pyarrow.struct([("bytes", "binary"), ("path", "string")])
    audio = pyarrow.array([{"bytes": None, "path": "a.wav"}], form)
    parquet.write_table(pyarrow.table({"audio": audio}), tmp_path / "x.parquet")
    decoder = Decoder(Limits(patience=20.0))
    with pytest.raises(AudioError) as caught:
        decoder.read_hashed(Sound(f"{tmp_path}/x.parquet", row=0, column="audio"))
    decoder.close()
    assert caught.value.code == "not_readable"
