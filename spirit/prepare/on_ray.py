"""The same workers on a Ray cluster, by Ray Data: what dies is made again wherever there is room.

Little travels: a job goes out, a finished part comes back and is written by who called. Recordings
and the tokenizer are read where the work is done, so every node sees them at the same paths.
"""

import logging
import os
import pickle
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ray
import ray.data

from spirit.prepare.parts import Job, Progress, add_up

Work = Callable[[Job], Iterator[Progress]]

# Ray copies the class of an actor, code and all, so its methods must be plain: checks of shapes, as
# the tests put around every function, cannot be copied.
Tries = type(
    "Tries",
    (),
    {
        "__init__": lambda self: setattr(self, "counts", {}),
        "begin": lambda self, i: (
            self.counts.update({i: self.counts.get(i, 0) + 1}) or self.counts[i]
        ),
    },
)
"""How often each part was begun: `begin` counts one more and says how often by now."""

TRIES = 3
"""Of a part: what ends its worker as often is not bad luck. Ray itself would go on for ever."""
ROUND = 64
"""Jobs of each worker that the cluster holds in memory at a time; between rounds workers are built
anew, which takes seconds."""
STARTS = 3
"""Of a Ray of our own: its helpers have 15 s to come up, too little for a cold and busy machine."""


def run_jobs(
    make: Callable[[], Work],
    jobs: Iterable[Job],
    workers: int,
    address: str,
    *,
    places: Sequence[Path] = (),
    gpu: bool = False,
) -> Generator[Progress, None, None]:
    """Yield one report for each job, with the part in it, in the order in which they end.

    `address` is `local` (a Ray of our own that ends with this iterator), `auto` or `HOST:PORT`; a
    Ray that this process is in already is used as it is. `make` builds a worker inside each of
    `workers` actors, which reserve a CPU or a GPU; they work in this process's working directory
    and must see that and all `places`. An error of a worker is raised here, a worker that dies is
    replaced and its part tried again. Raises `ConnectionError` where there is no Ray, and
    `ChildProcessError` for a part that keeps ending its workers.
    """
    waiting = iter(jobs)
    some = list(islice(waiting, ROUND * workers))
    if not some:  # a Ray takes seconds to start
        return
    with cluster(address, workers):
        # How often each part was begun, also by workers that are no more.
        tries = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Tries).remote()
        # By its name, as for processes of our own: Ray's own way copies the code of what it finds.
        told = (pickle.dumps(make), [place.absolute() for place in (Path.cwd(), *places)], tries)
        while some:
            left = {job.index for job in some}
            try:
                for report in _round(told, some, min(workers, len(some)), gpu):
                    if report.index in left:  # what was lost on its way may have been made twice
                        left.remove(report.index)
                        yield report
            except ray.exceptions.RayError as error:
                raise ChildProcessError(
                    f"Ray gave up: {_first_line(error)}; run the same command again to go on"
                ) from error
            if left:
                raise ChildProcessError(
                    f"Ray ended without part {min(left)} and {len(left) - 1} others; run the same "
                    "command again to go on"
                )
            some = list(islice(waiting, ROUND * workers))


def _round(
    told: tuple[Any, ...], jobs: Sequence[Job], workers: int, gpu: bool
) -> Iterator[Progress]:
    items = [{"job": pickle.dumps(job)} for job in jobs]
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False  # we have our own
    context.print_on_execution_start = False
    context.max_consecutive_actor_init_deaths = TRIES
    with ray.data.DataContext.current(context):
        # One row a job and one job at a time: the last ones are shared evenly, and only the one
        # that a worker was at is made again when it dies. One report a job, when it is done: of a
        # stream of reports that begins again, Ray would take up the rest by counting.
        made = ray.data.from_items(items, override_num_blocks=len(items)).map(
            _Worker,
            fn_constructor_args=told,
            compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
            **({"num_gpus": 1} if gpu else {"num_cpus": 1}),
        )
    for row in made.iter_rows():
        report = pickle.loads(row["report"])
        if isinstance(report, Exception):
            raise report
        yield report


class _Worker:
    """What lives in an actor. It is built at its first job: if that ends it, that job was tried."""

    def __init__(self, make: bytes, places: Sequence[Path], tries: Any) -> None:
        self.make, self.places, self.tries = make, places, tries
        self.work: Work | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            report: Progress | Exception = self._report(pickle.loads(row["job"]))
        except Exception as error:
            report = error
        return {"report": pickle.dumps(report)}

    def _report(self, job: Job) -> Progress:
        if ray.get(self.tries.begin.remote(job.index)) > TRIES:
            raise ChildProcessError(
                f"{TRIES} workers died at part {job.index}, which is often a lack of memory; run "
                "the same command again to go on, with fewer workers or larger nodes"
            )
        if self.work is None:
            for place in self.places:
                if not place.exists():  # or every recording there would be refused as missing
                    raise FileNotFoundError(
                        f"{place}: node {ray.util.get_node_ip_address()} of the Ray cluster does "
                        "not see it; tokenize from folders that all nodes share"
                    )
            os.chdir(self.places[0])
            self.work = pickle.loads(self.make)()
        reports: list[Progress] = list(self.work(job))
        spent: dict[str, float] = {}
        for report in reports:
            add_up(spent, report.spent)
        return replace(
            reports[-1],
            utterances=sum(report.utterances for report in reports),
            rejected=sum(report.rejected for report in reports),
            seconds=sum(report.seconds for report in reports),
            spent=spent,
        )


@contextmanager
def cluster(address: str, workers: int) -> Iterator[None]:
    """Be in a Ray: the one that this process is in, or the one at `address`, up to the end."""
    if ray.is_initialized():
        yield
        return
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    with TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        try:
            _connect(address, workers, folder)
            yield
        finally:
            ray.shutdown(wait_for_processes=True)
            if main:  # Ray has put its own in the place
                signal.signal(signal.SIGTERM, before)


def _connect(address: str, workers: int, folder: str) -> None:
    """Raises `ConnectionError` with one line."""
    how: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address != "local":
        try:
            ray.init(address, **how)
        except Exception as error:
            raise ConnectionError(
                f"no Ray cluster at {address!r} ({_first_line(error)}); start one with `ray start "
                "--head`, or say local"
            ) from error
        return
    import psutil  # Ray brings it along

    # No usage reports and no dashboard; and Ray's core warns of what Ray Data always does.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    how |= {"num_cpus": workers, "include_dashboard": False, "_temp_dir": folder}
    before = set(psutil.Process().children())
    for start in range(1, STARTS + 1):
        try:
            ray.init(address, **how)
            return
        except Exception as error:  # a bare one, and what was started is left running
            for process in set(psutil.Process().children()) - before:
                process.kill()
            if start == STARTS:
                raise ConnectionError(f"Ray does not start: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))
