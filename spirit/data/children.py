"""Work in child processes that never outlive their parent and whose death is noticed."""

import multiprocessing
import pickle
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import islice
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

Job = TypeVar("Job")
Report = TypeVar("Report")


def run_jobs(
    make: Callable[[], Callable[[Job], Iterator[Report]]], jobs: Iterable[Job], children: int
) -> Generator[Report, None, None]:
    """Yield what workers report on jobs, in the order in which it happens.

    `make` builds a worker inside each child (it is pickled, so is every job and report); a worker
    takes a job and yields reports. An error of a worker is raised here. Closing this iterator ends
    the children at once. Raises `ChildProcessError` if one of them dies.
    """
    waiting = iter(jobs)
    alive: dict[Connection, BaseProcess] = {}
    try:
        first = list(islice(waiting, children))
        for _ in first:
            ours, child = _start(_serve)
            alive[ours] = child
        # What is large waits until its child reads: only when all are starting up, and a job, which
        # is read when the worker is built, only when all are being built.
        for ours in alive:
            _send(ours, make)
        for ours, job in zip(alive, first, strict=True):
            _send(ours, job)
        busy = set(alive)
        while busy:
            for pipe in wait(list(busy)):
                assert isinstance(pipe, Connection)
                kind, content = _receive(pipe, alive[pipe])
                if kind == "report":
                    yield content
                elif kind == "error":
                    raise content
                elif more := list(islice(waiting, 1)):
                    _send(pipe, more[0])
                else:
                    busy.remove(pipe)
    finally:
        for pipe, child in alive.items():
            child.kill()
            child.join()
            pipe.close()


AGAIN = "; run the same command again, with fewer workers if it happens again"
"""What to do where a death ends the command."""


class Children:
    """Child processes that call functions, and a future for each call.

    Each child has a pipe of its own. Where all share one, as in `ProcessPoolExecutor`, others hold
    it open when a child is killed in the midst of an answer, and the rest is awaited for ever.
    """

    def __init__(self, count: int, shared: object) -> None:
        """`count` children that are started when there is work; each gets a copy of `shared`.

        A program that ends without `close` first waits for all calls.
        """
        self._shared = shared
        self._threads = ThreadPoolExecutor(count, "children")  # one for each child
        self._here = threading.local()
        self._lock = threading.RLock()  # a collected owner closes wherever the collector runs
        self._alive: list[BaseProcess] | None = []

    def submit(self, function: Callable[..., Report], *given: Any) -> "Future[Report]":
        """Call `function(shared, *given)` in a child. Its result raises what the function raised,
        and `ChildProcessError` if the child dies."""
        return self._threads.submit(self._call, function, given)

    def close(self) -> None:
        """End the children at once; what none has come to is cancelled."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            alive, self._alive = self._alive, None
        for child in alive or ():
            child.kill()
            child.join()

    def _call(self, function: Callable[..., Report], given: tuple[Any, ...]) -> Report:
        if not hasattr(self._here, "child"):
            with self._lock:
                if self._alive is None:
                    raise ChildProcessError("the worker processes were ended")
                started = _start(_answer)
                self._alive.append(started[1])
            _send(started[0], self._shared)
            self._here.child = started
        pipe, child = self._here.child
        _send(pipe, (function, given))
        kind, content = _receive(pipe, child)
        if kind == "error":
            raise content
        result: Report = content
        return result


def _start(serve: Callable[[Connection], None]) -> tuple[Connection, BaseProcess]:
    """A child and the pipe to it, by which all that it works with is to be sent: what `start` hands
    over is awaited for ever if it is large and the child dies before it has read it."""
    context = multiprocessing.get_context("spawn")
    resource_tracker.ensure_running()  # when it starts it lets Ctrl-C through again
    ours, theirs = context.Pipe()
    child: BaseProcess = context.Process(target=serve, args=(theirs,), daemon=True)
    with deaf():
        child.start()
    theirs.close()
    return ours, child


@contextmanager
def deaf() -> Iterator[None]:
    """A child starts with Ctrl-C held back, until it can say that it is the parent's to handle."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _send(pipe: Connection, content: object) -> None:
    with suppress(ConnectionError):  # a dead child is noticed where its answer is awaited
        pipe.send(content)


def _receive(pipe: Connection, child: BaseProcess) -> tuple[str, Any]:
    try:
        kind, content = pipe.recv()
        return kind, content
    except (EOFError, OSError):  # OSError: in the midst of a message
        child.join(5)
        raise ChildProcessError(
            f"a worker process died (exit code {child.exitcode}; -9 is often a lack of memory)"
            f"{AGAIN}"
        ) from None


def _serve(pipe: Connection) -> None:
    """In a child of `run_jobs`: build the worker, and report on one job after another."""
    _leave_signals_to_the_parent()
    try:
        worker = _alone(pipe.recv)()
        while True:
            for report in worker(_alone(pipe.recv)):
                _alone(pipe.send, ("report", report))
            _alone(pipe.send, ("done", None))
    except Exception as error:
        _alone(pipe.send, ("error", _portable(error)))


def _answer(pipe: Connection) -> None:
    """In a child of `Children`: answer one call after another."""
    _leave_signals_to_the_parent()
    shared: Any = None
    failure: Exception | None = None
    try:
        shared = _alone(pipe.recv)
    except Exception as error:  # it is told to whoever calls
        failure = error
    while True:
        try:
            function, given = _alone(pipe.recv)
            if failure is not None:
                raise failure
            _alone(pipe.send, ("report", function(shared, *given)))
        except Exception as error:
            _alone(pipe.send, ("error", _portable(error)))


def _leave_signals_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _portable(error: Exception) -> Exception:
    """The error, or one that says the same where it cannot travel."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _alone(act: Callable[..., Any], *content: object) -> Any:
    """A parent that is gone closes the pipe, and then there is nobody to work for."""
    try:
        return act(*content)
    except (EOFError, ConnectionError):
        raise SystemExit from None
