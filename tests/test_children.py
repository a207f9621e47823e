"""Child processes: every job is done, errors come home, and nobody outlives anybody."""

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import closing
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from spirit.data.children import Children, run_jobs


def squarer():
    def work(number: int) -> Iterator[tuple[int, int, int]]:
        if number == 13:
            raise ValueError("no thirteen")
        if number == 17:
            raise ConnectionError("the server is gone")
        if number == 99:
            os.kill(os.getpid(), signal.SIGKILL)
        yield os.getpid(), number, number**2

    return work


def refusing():
    raise ValueError("cannot be built")


def test_every_job_is_done_once_by_several_children():
    reports = list(run_jobs(squarer, iter(range(7)), 2))
    assert sorted(number for _, number, _ in reports) == list(range(7))
    assert all(square == number**2 for _, number, square in reports)
    assert len({pid for pid, _, _ in reports}) == 2
    assert os.getpid() not in {pid for pid, _, _ in reports}


def test_an_error_of_a_worker_is_raised_here():
    with pytest.raises(ValueError, match="no thirteen"):
        list(run_jobs(squarer, [1, 13], 1))
    with pytest.raises(ConnectionError, match="the server is gone"):
        list(run_jobs(squarer, [1, 17], 1))
    with pytest.raises(ValueError, match="cannot be built"):
        list(run_jobs(refusing, [1], 1))


def test_a_worker_that_is_killed_is_noticed():
    with pytest.raises(ChildProcessError, match=r"exit code -9.*run the same command again"):
        list(run_jobs(squarer, [1, 99, 2], 1))


def test_children_end_when_the_iterator_is_closed():
    reports = run_jobs(squarer, iter(range(100)), 1)
    pid = next(reports)[0]
    reports.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_children_end_when_the_parent_is_killed():
    script = (
        "import tests.test_children as t\n"
        "if __name__ == '__main__':\n"
        "    for pid, *_ in t.run_jobs(t.squarer, iter(range(10**9)), 1):\n"
        "        print(pid, flush=True)\n"
    )
    root = Path(__file__).parent.parent
    parent = subprocess.Popen(
        [sys.executable, "-c", script], cwd=root, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    for _ in range(100):
        if not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text():
            return
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the child lives on")


def plus(shared: int, number: int) -> tuple[int, int]:
    if number == 13:
        raise ValueError("no thirteen")
    return os.getpid(), shared + number


def asleep(_shared: int) -> None:
    time.sleep(60)


def dying_in_the_midst_of_an_answer(_shared: int, size: int) -> bytes:
    def half(self: Connection, content: bytes) -> None:
        os.write(self.fileno(), bytes(content)[: len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

    Connection._send = half  # type: ignore[assignment]
    return bytes(size)


def test_calls_are_answered_by_several_children_with_what_they_share():
    with closing(Children(2, 100)) as children:
        answers = [children.submit(plus, number) for number in range(12)]
        assert [answer.result(60)[1] for answer in answers] == list(range(100, 112))
        assert os.getpid() not in {answer.result()[0] for answer in answers}


def test_an_error_of_a_call_is_raised_by_its_future_and_the_child_lives_on():
    with closing(Children(1, 100)) as children:
        before, wrong, after = (children.submit(plus, number) for number in (1, 13, 2))
        with pytest.raises(ValueError, match="no thirteen"):
            wrong.result(60)
        assert after.result(60) == (before.result()[0], 102)


@pytest.mark.parametrize("size", [10, 1_000_000])
def test_a_child_that_is_killed_in_the_midst_of_an_answer_is_noticed(size):
    with closing(Children(2, 100)) as children:
        busy = children.submit(asleep)  # another that could hold the pipe open
        answer = children.submit(dying_in_the_midst_of_an_answer, size)
        with pytest.raises(ChildProcessError, match="exit code -9"):
            answer.result(60)
        assert not busy.done()


class OnlyHere(Exception):
    """Is pickled, and cannot be unpickled."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what}: {why}")


def odd(shared: object, kind: str) -> object:
    if kind == "error":
        raise OnlyHere("milk", "is sour")
    return (lambda: None) if kind == "answer" else shared


def test_what_cannot_be_shared_is_told_to_every_call():
    with closing(Children(1, lambda: None)) as children:
        for _ in range(2):
            with pytest.raises((AttributeError, pickle.PicklingError), match="lambda"):
                children.submit(plus, 1).result(60)


def meeting(folder: Path, children: int):
    """Built only when as many are being built."""
    (folder / str(os.getpid())).touch()
    until = time.monotonic() + 100
    while len(list(folder.iterdir())) < children:
        if time.monotonic() > until:
            raise ValueError("nobody else came")
        time.sleep(0.02)

    def work(job: bytes) -> Iterator[int]:
        yield len(job)

    return work


def test_children_are_built_side_by_side_whatever_the_size_of_their_jobs(tmp_path):
    jobs = [bytes(1_000_000)] * 3
    assert list(run_jobs(partial(meeting, tmp_path, 3), jobs, 3)) == [1_000_000] * 3


def test_what_cannot_travel_is_told_and_the_child_lives_on():
    with closing(Children(1, 100)) as children:
        error, answer, after = (children.submit(odd, kind) for kind in ("error", "answer", ""))
        with pytest.raises(RuntimeError, match="OnlyHere: milk: is sour"):
            error.result(60)
        with pytest.raises((AttributeError, pickle.PicklingError), match="lambda"):
            answer.result(60)
        assert after.result(60) == 100


START = """
import os, signal, sys
if __name__ != "__main__":
    os.kill(os.getpid(), signal.SIGKILL)  # as when memory is short: before it reads
from contextlib import closing
from functools import partial
from spirit.data.children import Children, run_jobs
with closing(Children(2, bytes(1_000_000))) as children:
    answers = [children.submit(len) for _ in range(3)]
    for answer in answers:
        print(type(answer.exception(60)).__name__)
try:
    list(run_jobs(partial(print, bytes(1_000_000)), [1, 2], 2))
except ChildProcessError:
    print("noticed")
"""


def test_children_that_die_while_they_start_are_noticed(tmp_path):
    (tmp_path / "main.py").write_text(START)
    root = str(Path(__file__).parent.parent)
    told = subprocess.run(
        [sys.executable, str(tmp_path / "main.py")],
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.PIPE,
        text=True,
        timeout=100,
        check=True,
    )
    assert told.stdout.split() == ["ChildProcessError"] * 3 + ["noticed"]


def test_children_end_at_once_when_they_are_closed():
    children = Children(1, 100)
    pid = children.submit(plus, 1).result(60)[0]
    busy, waiting = children.submit(asleep), children.submit(plus, 2)
    while not busy.running():
        time.sleep(0.01)
    children.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(ChildProcessError):
        busy.result(60)
    with pytest.raises((CancelledError, ChildProcessError)):
        waiting.result(60)
