"""A ledger keeps what was done: a stop loses one item at most, another model starts afresh."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from spirit.eval.ledger import collect

calls: list[int] = []


def double(number: int) -> dict[str, int]:
    calls.append(number)
    return {"double": 2 * number, "process": os.getpid()}


def stumble(number: int) -> dict[str, int]:
    if number == 3:
        raise RuntimeError("a worker died")
    return double(number)


@pytest.fixture(autouse=True)
def _fresh_calls():
    calls.clear()


ITEMS = {str(n): n for n in range(6)}


def test_what_was_done_before_a_failure_is_not_done_again(tmp_path):
    path = tmp_path / "part.jsonl"
    with pytest.raises(RuntimeError, match="a worker died"):
        collect(path, ITEMS, stumble, origin="a", jobs=1, title="")
    assert calls == [0, 1, 2]
    calls.clear()
    results = collect(path, ITEMS, double, origin="a", jobs=1, title="")
    assert calls == [3, 4, 5]
    assert [result["double"] for result in results.values()] == [0, 2, 4, 6, 8, 10]


def test_a_line_cut_short_is_done_again(tmp_path):
    path = tmp_path / "part.jsonl"
    collect(path, ITEMS, double, origin="a", jobs=1, title="")
    path.write_text(path.read_text()[:-20])
    calls.clear()
    collect(path, ITEMS, double, origin="a", jobs=1, title="")
    assert calls == [5]
    assert len(path.read_text().splitlines()) == 6


def test_results_of_another_model_are_not_taken(tmp_path):
    path = tmp_path / "part.jsonl"
    collect(path, ITEMS, double, origin="a", jobs=1, title="")
    calls.clear()
    collect(path, ITEMS, double, origin="b", jobs=1, title="")
    assert calls == [0, 1, 2, 3, 4, 5]


def test_two_processes_share_the_work_and_keep_the_order(tmp_path):
    results = collect(tmp_path / "p.jsonl", ITEMS, double, origin="a", jobs=2, title="")
    assert list(results) == list(ITEMS)
    assert [result["double"] for result in results.values()] == [0, 2, 4, 6, 8, 10]
    assert os.getpid() not in {result["process"] for result in results.values()}


SLOW = """
import sys, time
from pathlib import Path
from spirit.eval.ledger import collect

def sleep(number):
    import os
    Path(sys.argv[1], f"{os.getpid()}.pid").touch()
    time.sleep(2 if number > 1 else 0)
    return {}

if __name__ == "__main__":
    items = {str(n): n for n in range(400)}
    collect(Path(sys.argv[1], "p.jsonl"), items, sleep, origin="a", jobs=2, title="")
"""


def test_workers_end_with_their_item_when_the_main_process_is_killed(tmp_path):
    script = tmp_path / "slow.py"
    script.write_text(SLOW)
    process = subprocess.Popen([sys.executable, script, tmp_path], stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while len(list(tmp_path.glob("*.pid"))) < 2 and time.monotonic() < until:
        time.sleep(0.1)
    workers = [int(path.stem) for path in tmp_path.glob("*.pid")]
    assert len(workers) == 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    until = time.monotonic() + 10
    while any(_alive(pid) for pid in workers) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(_alive(pid) for pid in workers)


def _alive(pid: int) -> bool:
    try:
        with Path(f"/proc/{pid}/stat").open() as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
