"""Workers change the speed of the loader and nothing else."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from dataclasses import replace

import pytest

from spirit.data.loader import MixtureConfig, Rows
from tests.synthetic import byte_codec, same, take, write_corpus

psutil = pytest.importorskip("psutil")


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    # Released tokenizers have their ends among the added tokens, which a text could spell.
    return byte_codec(tmp_path_factory.mktemp("text"), "</s>")


@pytest.fixture(scope="module")
def config(tmp_path_factory, codec):
    home = tmp_path_factory.mktemp("data")
    write_corpus(home / "units", codec.vocab, 150, seconds=(1, 4), rows_per_part=40)
    (home / "text.txt").write_text("it says </s> here\nand [Hu12] there\n")
    return MixtureConfig(
        shards=(home / "units",),
        texts=(home / "text.txt",),
        interleaved=0.4,
        speech=0.2,
        text=0.1,
        transcribe=0.2,
        speak=0.1,
        text_span=(1, 4),
        speech_span=(1, 3),
        excerpts=0.5,
        row=512,
        rows=4,
        window=32,
    )


def children():
    """The processes of this one that draw documents."""
    found = psutil.Process().children()
    return [child for child in found if "spawn_main" in " ".join(child.cmdline())]


@pytest.fixture(scope="module")
def alone(config, codec):
    """25 steps of one process: more than an epoch of some sources."""
    rows = Rows(config, codec)
    return take(rows, 25), rows.state_dict()


def test_rows_and_state_are_the_same_with_two_workers(config, codec, alone):
    rows = Rows(replace(config, workers=2), codec)
    assert same(take(rows, 25), alone[0])
    assert rows.state_dict() == alone[1]
    assert len(children()) == 2
    rows.close()
    assert same(take(rows, 3), take(_at(config, codec, alone[1]), 3)), "it goes on without them"


def test_a_saved_position_goes_on_with_any_number_of_workers(config, codec, alone):
    rows = Rows(replace(config, workers=1), codec)
    take(rows, 7)
    state = json.loads(json.dumps(rows.state_dict()))
    assert same(take(_at(config, codec, state), 18), alone[0][7:])
    rows.load_state_dict(state)  # back, while later documents are on their way
    assert same(take(rows, 18), alone[0][7:])
    rows.close()


def _at(config, codec, state):
    rows = Rows(config, codec)
    rows.load_state_dict(state)
    return rows


def test_workers_that_die_are_told_of_and_done_without(config, codec, alone, capfd):
    rows = Rows(replace(config, workers=1), codec)
    first = take(rows, 2)
    for child in children():
        os.kill(child.pid, signal.SIGKILL)
    assert same(first + take(rows, 23), alone[0])
    told = capfd.readouterr().err
    assert told.count("loader: a worker process died (exit code -9") == 1
    assert "is often a lack of memory); going on without them, more slowly\n" in told
    assert rows.state_dict() == alone[1]


def test_what_no_worker_came_to_before_the_end_is_drawn_here(config, codec, alone):
    rows = Rows(replace(config, workers=1), codec)
    first = take(rows, 1)
    rows.close()
    for chunks in rows._ahead._chunks.values():
        for number, chunk in chunks.items():
            cancelled = Future()
            cancelled.cancel()
            chunks[number] = chunk._replace(ids=cancelled)
    assert same(first + take(rows, 24), alone[0])


SCRIPT = """
import pickle, sys, time
from pathlib import Path
from spirit.data.loader import Rows
if __name__ == "__main__":
    config, codec = pickle.loads(Path(sys.argv[1]).read_bytes())
    rows = Rows(config, codec)
    next(rows)
    print("ready", flush=True)
    time.sleep(60)
"""


def test_workers_do_not_outlive_a_killed_training(config, codec, tmp_path):
    (tmp_path / "run.py").write_text(SCRIPT)
    (tmp_path / "made.bin").write_bytes(pickle.dumps((replace(config, workers=1), codec)))
    command = [sys.executable, str(tmp_path / "run.py"), str(tmp_path / "made.bin")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        workers = psutil.Process(parent.pid).children(recursive=True)
        assert workers
        parent.kill()
    waited = time.monotonic() + 20
    while any(_alive(worker) for worker in workers) and time.monotonic() < waited:
        time.sleep(0.1)
    assert not any(_alive(worker) for worker in workers)


def _alive(process):
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
