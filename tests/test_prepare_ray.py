"""Tokenizing on Ray: the same bytes as without it, also when a worker is killed at its work."""

import json
import sys
import threading
import time
from functools import partial

import pytest
import soundfile
from click.testing import CliRunner

from spirit.audio import read_audio
from spirit.cli import main
from spirit.data.parts import Note
from spirit.prepare import tokenize
from spirit.prepare.parts import Job
from spirit.units import SAMPLE_RATE
from tests.bundle import JFK

# Ray leaves the processes of a start that took too long, and we start again.
pytestmark = [
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:.* deprecated:DeprecationWarning"),  # of its own settings
]

CLIPS, PARTS = 11, 6
HOW = {"rows_per_part": 2, "batch_seconds": 15.0}

pytest_plugins = "tests.fixtures"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Recordings of several lengths, and one that cannot be used."""
    folder, speech = tmp_path_factory.mktemp("corpus"), read_audio(JFK)
    lines = [{"id": "gone", "audio": "gone.wav"}]
    for number in range(CLIPS):
        name = f"{number:02d}.flac"
        soundfile.write(folder / name, speech[: (number + 1) * SAMPLE_RATE], SAMPLE_RATE)
        lines.append({"id": f"clip-{number}", "audio": name, "text": f"clip {number}"})
    path = folder / "corpus.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def reference(corpus, tokenizer, tmp_path_factory):
    """The shards of a run in one process, without Ray."""
    out = tmp_path_factory.mktemp("reference") / "units"
    report = tokenize(corpus, tokenizer, out, **HOW)
    assert (report["utterances"], report["rejected"], report["parts"]) == (CLIPS, 1, PARTS)
    return out


@pytest.fixture(scope="module")
def on_ray():
    """A Ray of two workers for all tests here: it takes long to start. It leaves nobody behind."""
    pytest.importorskip("ray")
    import psutil

    from spirit.prepare import on_ray

    before = {process.pid for process in psutil.Process().children(recursive=True)}
    with on_ray.cluster("local", 2):
        ours = psutil.Process().children(recursive=True)
        yield on_ray
    left = psutil.wait_procs([process for process in ours if process.pid not in before], 10)[1]
    assert not left


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_folder_begun_without_ray_is_finished_on_ray_to_the_same_bytes(
    on_ray, corpus, tokenizer, reference, tmp_path
):
    out = tmp_path / "units"
    tokenize(corpus, tokenizer, out, part=(1, 3), **HOW)
    kept = {path: path.stat().st_mtime_ns for path in out.glob("part-*")}
    assert len(kept) == 2
    report = tokenize(corpus, tokenizer, out, workers=2, ray="local", **HOW)
    assert (report["utterances"], report["rejected"], report["parts"]) == (CLIPS, 1, PARTS)
    assert report["finished"]
    assert set(report["stages"]) == {"list", "decode", "encode", "pack", "write"}
    assert content(out) == content(reference)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_a_worker_that_is_killed_in_the_middle_changes_nothing(
    on_ray, corpus, tokenizer, reference, tmp_path
):
    out, killed, ended = tmp_path / "units", [], threading.Event()
    killer = threading.Thread(target=kill_one_at_work, args=(out, killed, ended))
    killer.start()
    try:
        report = tokenize(corpus, tokenizer, out, workers=2, ray="local", **HOW)
    finally:
        ended.set()
        killer.join()
    assert len(killed) == 1
    assert 0 < killed[0] < PARTS
    assert report["finished"]
    assert content(out) == content(reference)
    # And a run without Ray takes it for its own.
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    tokenize(corpus, tokenizer, out, **HOW)
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


def kill_one_at_work(out, killed, ended):
    """When the first part is there, kill a worker that is busy; note how many parts there were."""
    import psutil

    def busy(process):
        return "MapWorker" in process.cmdline()[0] and ".submit" in process.cmdline()[0]

    while not ended.is_set():
        time.sleep(0.005)
        if not list(out.glob("part-*")):
            continue
        for process in psutil.Process().children(recursive=True):
            try:
                if not busy(process):
                    continue
                process.suspend()
                if busy(process):
                    parts = len(list(out.glob("part-*")))
                    process.kill()
                    killed.append(parts)
                    return
                process.resume()
            except (psutil.NoSuchProcess, IndexError):
                continue


def test_a_part_that_kills_every_worker_is_named(on_ray):
    jobs = [Job(7, Note(vocabulary="", tokenizer="", variant="base", batch_seconds=1.0), ())]

    # A name that every worker can import.
    deadly = partial(eval, "lambda job: __import__('os').kill(__import__('os').getpid(), 9)")
    with pytest.raises(ChildProcessError, match=r"3 workers died at part 7.*fewer workers"):
        list(on_ray.run_jobs(deadly, jobs, 1, "local"))


def test_a_missing_ray_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "spirit.prepare.on_ray", raising=False)
    monkeypatch.delattr("spirit.prepare.on_ray", raising=False)
    monkeypatch.delitem(sys.modules, "spirit.prepare.on_ray", raising=False)
    told = ["tokenize", str(tmp_path), "--out", str(tmp_path / "units"), "--ray", "local"]
    result = CliRunner().invoke(main, told)
    assert result.exit_code == 1
    assert result.stderr == "spirit: ray is not installed; run: pip install '.[ray]'\n"
