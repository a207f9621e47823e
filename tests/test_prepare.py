"""Tokenizing: the same bytes however it is run or stopped, and a reason for every refusal."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from pyarrow import parquet

from spirit import commit
from spirit.audio import read_audio
from spirit.data.parts import read_note
from spirit.data.shards import read_shards, verify
from spirit.prepare import tokenize
from spirit.prepare.parts import precision
from spirit.speech.hubert import Hubert
from spirit.speech.pitch import PitchFormat, PitchTokenizer
from spirit.speech.quantizer import KMeans
from spirit.speech.style import StyleFormat, StyleTokenizer
from spirit.tokenizer import Tokenizer, assemble
from spirit.units import SAMPLE_RATE, Kind, Word

ROOT = Path(__file__).parent.parent
SPEECH = read_audio(ROOT / "tests" / "data" / "jfk.flac")
CLIPS = 14


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """A real tokenizer, as small as it goes."""
    folder = tmp_path_factory.mktemp("tokenizer")
    torch.manual_seed(0)
    hubert = Hubert.new(
        hidden=32,
        layers=2,
        heads=2,
        ffn=32,
        conv_dim=(16, 16, 16, 16),
        conv_kernel=(20, 16, 4, 2),
        conv_stride=(10, 8, 4, 2),
    ).eval()
    for name in ("hubert", "units", "pitch", "style"):
        (folder / name).mkdir()
    hubert.save(folder / "hubert")
    (features,) = hubert.features([SPEECH])
    KMeans(features[::20].clone()).save(folder / "units" / "units.safetensors")
    form = PitchFormat(width=8, depth=1, channels=16, codes=16)
    network = form.network()
    network.codebook.vectors.normal_(std=0.1)
    PitchTokenizer(form, network, form.hear("cpu")).save(folder / "pitch")
    style = StyleFormat(names=("calm", "lively"), channels=32, hidden=8)
    StyleTokenizer(style, style.network()).save(folder / "style")
    parts = {name: folder / name for name in ("hubert", "units", "pitch", "style")}
    assemble(**parts, out=folder / "small", name="small")
    return folder / "small"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Clips of several lengths with words, and three recordings that cannot be used."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "audio").mkdir()
    rng = np.random.default_rng(0)
    lines = []
    for number in range(CLIPS):
        start, length = int(rng.integers(len(SPEECH) - 30_000)), int(rng.integers(5_000, 30_000))
        name = f"audio/{number:02d}.flac"
        soundfile.write(folder / name, SPEECH[start : start + length], SAMPLE_RATE)
        words = [
            {"text": "ask", "start": 0, "stop": 900},
            {"text": "not", "start": 900, "stop": 5_000},
        ]
        lines.append({"id": f"clip-{number}", "audio": name, "words": words, "speaker": "jfk"})
    (folder / "audio" / "text.wav").write_text("this is no sound")
    lines.insert(3, {"id": "text", "audio": "audio/text.wav"})
    lines.insert(8, {"id": "gone", "audio": "audio/gone.wav"})
    late = [{"text": "late", "start": 0, "stop": 10**6}]
    lines.append({"id": "late", "audio": "audio/00.flac", "words": late})
    path = folder / "corpus.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def reference(corpus, tokenizer, tmp_path_factory):
    """The shards of an unbroken run in one process."""
    out = tmp_path_factory.mktemp("reference") / "units"
    report = tokenize(corpus, tokenizer, out, rows_per_part=4, batch_seconds=4)
    assert (report["utterances"], report["rejected"], report["parts"]) == (CLIPS, 3, 5)
    assert report["finished"]
    assert report["x_real_time"] > 0
    assert set(report["stages"]) == {"list", "decode", "encode", "pack", "write"}
    assert report["slowest"] == "encode"
    return out


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_shards_hold_what_the_encoder_hears_in_corpus_order(corpus, tokenizer, reference):
    heard_by = Tokenizer.load(tokenizer)
    rows = read_shards(reference, fingerprint=heard_by.vocab.fingerprint)
    assert [row.id for row in rows] == [f"clip-{number}" for number in range(CLIPS)]
    for row in rows:
        wave = read_audio(corpus.parent / row.audio)
        alone = heard_by.encoder.encode(wave)
        assert row.seconds == len(wave) / SAMPLE_RATE
        assert row.sha256 == commit.sha256(corpus.parent / row.audio)
        assert (row.text, row.speaker) == ("ask not", "jfk")
        assert row.words == (Word("ask", 0, 900), Word("not", 900, 5_000))
        for kind, track in alone.by_kind.items():
            assert row.tracks.by_kind[kind].unit.tolist() == track.unit.tolist()
            assert row.tracks.by_kind[kind].hop == track.hop


def test_every_refusal_has_a_reason(reference):
    lines = (reference / "rejected.jsonl").read_text().splitlines()
    rejected = {entry["id"]: entry for entry in map(json.loads, lines)}
    assert list(rejected) == ["text", "gone", "late"]
    assert [e["code"] for e in rejected.values()] == ["not_audio", "missing", "words_beyond_end"]
    assert rejected["text"]["audio"] == "audio/text.wav"
    assert "cannot be read as audio" in rejected["text"]["reason"]
    assert rejected["gone"]["reason"].startswith("no such file")
    assert rejected["late"]["reason"].startswith("the words end at 62.50 s")


def test_the_manifest_says_what_made_the_units(corpus, tokenizer, reference):
    manifest = verify(reference)
    heard_by = Tokenizer.load(tokenizer)
    assert manifest["tokenizer"] == {"name": "small", "fingerprint": heard_by.fingerprint}
    assert manifest["fingerprint"] == heard_by.vocab.fingerprint
    assert manifest["hops"] == {"style": "16000", "pitch": "1280", "hubert": "640"}
    assert (manifest["corpus"], manifest["variant"]) == (str(corpus), "expressive")
    assert manifest["windows"] == {"window": 40, "stride": 32, "f0_chunk": 100, "f0_least": 10}
    hours = sum(row.seconds for row in read_shards(reference)) / 3600
    assert manifest["contents"] == {
        "text": CLIPS,
        "words": CLIPS,
        "style": 0,
        "speaker": CLIPS,
        "speakers": 1,
        "hours": {"": pytest.approx(hours, abs=1e-6)},
    }


def test_two_processes_make_the_same_bytes(corpus, tokenizer, reference, tmp_path):
    tokenize(corpus, tokenizer, tmp_path / "units", workers=2, rows_per_part=4, batch_seconds=4)
    assert content(tmp_path / "units") == content(reference)


def test_machines_that_share_a_folder_make_the_same_bytes(corpus, tokenizer, reference, tmp_path):
    reports = []
    for i in (2, 0, 1):
        out = tmp_path / "units"
        assert not (out / "manifest.json").exists()
        report = tokenize(corpus, tokenizer, out, part=(i, 3), rows_per_part=4, batch_seconds=4)
        reports.append(report)
    assert [report["finished"] for report in reports] == [False, False, True]
    assert sum(report["utterances"] for report in reports) == CLIPS
    assert content(tmp_path / "units") == content(reference)


def test_ctrl_c_at_any_moment_leaves_whole_parts_and_the_next_call_goes_on(
    corpus, tokenizer, reference, tmp_path
):
    out, interrupted = tmp_path / "units", 0
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for delay in (0.05, 0.15, 0.3, 0.5, 0.5, 0.8):
            timer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT))
            timer.start()
            try:
                tokenize(corpus, tokenizer, out, rows_per_part=4, batch_seconds=4)
                timer.cancel()
                timer.join()
            except KeyboardInterrupt:
                interrupted += 1
            for path in out.glob("*"):
                assert path.read_bytes() == (reference / path.name).read_bytes()
            assert not list(out.glob(".*"))
    finally:
        signal.signal(signal.SIGINT, before)
    assert interrupted
    tokenize(corpus, tokenizer, out, rows_per_part=4, batch_seconds=4)
    assert content(out) == content(reference)


def test_a_killed_run_goes_on_to_the_same_bytes(corpus, tokenizer, reference, tmp_path):
    out = tmp_path / "units"
    call = f"tokenize(Path({str(corpus)!r}), Path({str(tokenizer)!r}), Path({str(out)!r}),"
    script = (
        "from pathlib import Path\nfrom spirit.prepare import tokenize\n"
        f"if __name__ == '__main__':\n    {call} rows_per_part=4, batch_seconds=4)\n"
    )
    running = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    while running.poll() is None and not list(out.glob("part-*")):
        time.sleep(0.01)
    running.kill()
    running.wait()
    # As if it had died while writing.
    (out / ".part-00004.parquet.123.partial").write_bytes(b"half")
    kept = {path: path.stat().st_mtime_ns for path in out.glob("part-*")}
    assert kept
    tokenize(corpus, tokenizer, out, rows_per_part=4, batch_seconds=4)
    assert content(out) == content(reference)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_a_finished_folder_is_left_alone(corpus, tokenizer, reference):
    before = {path: path.stat().st_mtime_ns for path in reference.iterdir()}
    report = tokenize(corpus, tokenizer, reference, rows_per_part=4, batch_seconds=4)
    assert report["utterances"] == CLIPS
    assert {path: path.stat().st_mtime_ns for path in reference.iterdir()} == before


def test_a_disk_that_fills_is_one_error_and_nothing_half_written(corpus, tokenizer, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            tokenize(corpus, tokenizer, tmp_path / "units", rows_per_part=4, batch_seconds=4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list((tmp_path / "units").iterdir())


def test_bf16_is_another_way_and_says_so(corpus, tokenizer, reference, tmp_path):
    settings = {"rows_per_part": 4, "batch_seconds": 4, "dtype": "bf16"}
    out = tmp_path / "units"
    tokenize(corpus, tokenizer, out, **settings)
    assert (verify(out)["dtype"], verify(reference)["dtype"]) == ("bf16", "fp32")
    tokenize(corpus, tokenizer, tmp_path / "two", workers=2, **settings)
    assert content(tmp_path / "two") == content(out)
    with pytest.raises(ValueError, match=r"dtype bf16, now fp32.*give a new --out"):
        tokenize(corpus, tokenizer, out, rows_per_part=4, batch_seconds=4)
    pairs = list(zip(read_shards(out), read_shards(reference), strict=True))
    assert any(
        (half.tracks.by_kind[Kind.HUBERT].unit != row.tracks.by_kind[Kind.HUBERT].unit).any()
        for half, row in pairs
    )


def test_parts_of_two_precisions_are_no_folder(corpus, tokenizer, tmp_path):
    settings = {"rows_per_part": 4, "batch_seconds": 4}
    tokenize(corpus, tokenizer, tmp_path, part=(0, 2), dtype="bf16", **settings)
    with pytest.raises(ValueError, match="parts of several tokenizers, variants or dtypes"):
        tokenize(corpus, tokenizer, tmp_path, part=(1, 2), dtype="fp32", **settings)


def renote(folder, change):
    """Write the notes of all parts again, changed."""
    for path in folder.glob("part-*"):
        table = parquet.read_table(path)
        about = json.loads(table.schema.metadata[b"spirit"])
        change(about)
        parquet.write_table(table.replace_schema_metadata({"spirit": json.dumps(about)}), path)


def test_parts_with_other_windows_are_refused_and_those_without_are_kept(
    corpus, tokenizer, reference, tmp_path
):
    out = shutil.copytree(reference, tmp_path / "units")
    renote(out, lambda about: about.pop("windows"))
    before = content(out)
    assert tokenize(corpus, tokenizer, out, rows_per_part=4, batch_seconds=4)["finished"]
    assert content(out) == before
    renote(out, lambda about: about.update(windows={"window": 20, "stride": 16}))
    with pytest.raises(ValueError, match=r"windows {'window': 20.*now {'window': 40.*give a new"):
        tokenize(corpus, tokenizer, out, rows_per_part=4, batch_seconds=4)


def test_a_note_without_dtype_is_of_fp32(corpus, tokenizer, reference, tmp_path):
    out = shutil.copytree(reference, tmp_path / "units")
    renote(out, lambda about: about.pop("dtype"))
    before = {path: path.stat().st_mtime_ns for path in out.glob("part-*")}
    tokenize(corpus, tokenizer, out, rows_per_part=4, batch_seconds=4)
    assert {path: path.stat().st_mtime_ns for path in out.glob("part-*")} == before
    with pytest.raises(ValueError, match="dtype fp32, now bf16"):
        tokenize(corpus, tokenizer, out, rows_per_part=4, batch_seconds=4, dtype="bf16")


@pytest.mark.parametrize(
    ("dtype", "device", "released", "precise"),
    [
        ("auto", "cpu", False, "fp32"),
        ("auto", "cuda", False, "bf16"),
        ("auto", "cuda", True, "fp32"),
        ("bf16", "cpu", True, "bf16"),
        ("fp32", "cuda", False, "fp32"),
    ],
)
def test_precision_is_chosen_by_device_and_tokenizer(dtype, device, released, precise):
    folder = ROOT / "tests/golden/spiritlm/speech_tokenizer" if released else ROOT
    assert precision(dtype, device, folder) == precise


def test_a_folder_made_in_another_way_is_refused(corpus, tokenizer, reference, tmp_path):
    with pytest.raises(ValueError, match=r"variant expressive, now base.*give a new --out"):
        tokenize(corpus, tokenizer, reference, variant="base", rows_per_part=4, batch_seconds=4)
    with pytest.raises(ValueError, match=r"part-00000.parquet was made from another.*\(source"):
        tokenize(corpus, tokenizer, reference, rows_per_part=5, batch_seconds=4)
    shorter = corpus.parent / "shorter.jsonl"
    shorter.write_text("".join(corpus.read_text().splitlines(keepends=True)[:8]))
    with pytest.raises(ValueError, match="parts of a larger corpus"):
        tokenize(shorter, tokenizer, reference, rows_per_part=4, batch_seconds=4)


def test_the_base_variant_has_hubert_units_alone(corpus, tokenizer, reference, tmp_path):
    tokenize(corpus, tokenizer, tmp_path / "units", variant="base")
    for base, row in zip(read_shards(tmp_path / "units"), read_shards(reference), strict=True):
        assert list(base.tracks.by_kind) == [Kind.HUBERT]
        expected = row.tracks.by_kind[Kind.HUBERT].unit.tolist()
        assert base.tracks.by_kind[Kind.HUBERT].unit.tolist() == expected


def test_a_folder_of_recordings_is_a_corpus(tokenizer, tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    soundfile.write(tmp_path / "in" / "deep" / "a.wav", SPEECH[:20_000], SAMPLE_RATE)
    soundfile.write(tmp_path / "in" / "b.ogg", SPEECH[:40_000], SAMPLE_RATE)
    (tmp_path / "in" / "b.txt").write_text("and so my fellow")
    tokenize(tmp_path / "in", tokenizer, tmp_path / "units")
    found = [(row.id, row.audio, row.text) for row in read_shards(tmp_path / "units")]
    assert found == [("b.ogg", "b.ogg", "and so my fellow"), ("deep/a.wav", "deep/a.wav", "")]
    assert read_note(tmp_path / "units" / "part-00000.parquet")["seconds"] == pytest.approx(3.75)


def test_a_corpus_with_nothing_usable_is_an_error_with_the_first_reason(tokenizer, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.wav").touch()
    with pytest.raises(ValueError, match=r"all 1 recordings were rejected.*a\.wav.*empty"):
        tokenize(tmp_path / "in", tokenizer, tmp_path / "units")


def test_a_fault_in_the_last_line_of_a_corpus_shows_before_any_work(corpus, tokenizer, tmp_path):
    path = corpus.parent / "faulty.jsonl"
    path.write_text(corpus.read_text() + "{}\n")
    with pytest.raises(ValueError, match=r"faulty\.jsonl:18: `audio` is missing"):
        tokenize(path, tokenizer, tmp_path / "units", rows_per_part=4)
    assert not (tmp_path / "units").exists()


@pytest.mark.parametrize(("part", "workers"), [((3, 3), 1), ((-1, 2), 1), ((0, 1), 0)])
def test_parts_and_workers_that_do_not_exist_are_refused(
    corpus, tokenizer, tmp_path, part, workers
):
    with pytest.raises(ValueError, match=r"is above 0|parts of"):
        tokenize(corpus, tokenizer, tmp_path, part=part, workers=workers)
