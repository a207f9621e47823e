"""Results that outlive a stop: one JSON line per item, kept as soon as it is known."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from spirit import commit
from spirit.data.children import run_jobs

Item = TypeVar("Item")
Result = dict[str, Any]


def collect(
    path: Path,
    items: Mapping[str, Item],
    work: Callable[[Item], Result],
    *,
    origin: str,
    jobs: int,
    title: str,
) -> dict[str, Result]:
    """`work` done on every item, in their order; what `path` already holds is not done again.

    `origin` names what the results hang on (the model, the way of asking): lines of another origin
    are dropped. With `jobs` above 1 the work runs in as many processes, so `work` and the items
    must be picklable.
    """
    done = _read(path, origin)
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, origin, done)
    missing = {name: item for name, item in items.items() if name not in done}
    with path.open("a", encoding="utf-8") as lines:
        bar = tqdm(total=len(items), initial=len(items) - len(missing), desc=title, unit="clip")
        with bar:
            for name, result in _results(missing, work, jobs):
                lines.write(_line(name, origin, result))
                lines.flush()
                done[name] = result
                bar.update()
    return {name: done[name] for name in items}


def _line(name: str, origin: str, result: Result) -> str:
    return json.dumps({"item": name, "origin": origin, **result}, ensure_ascii=False) + "\n"


def _write(path: Path, origin: str, done: Mapping[str, Result]) -> None:
    commit.text(path, "".join(_line(name, origin, result) for name, result in done.items()))


def _read(path: Path, origin: str) -> dict[str, Result]:
    done: dict[str, Result] = {}
    if not path.is_file():
        return done
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # the end of a line that a kill cut short; the item is done again
        if isinstance(entry, dict) and entry.pop("origin", None) == origin and "item" in entry:
            done[str(entry.pop("item"))] = entry
    return done


def _results(
    items: Mapping[str, Item], work: Callable[[Item], Result], jobs: int
) -> Iterator[tuple[str, Result]]:
    if jobs < 2 or len(items) < 2:
        yield from ((name, work(item)) for name, item in items.items())
        return
    with closing(run_jobs(partial(_worker, work), items.items(), jobs)) as reports:
        yield from reports


def _worker(
    work: Callable[[Item], Result],
) -> Callable[[tuple[str, Item]], Iterator[tuple[str, Result]]]:
    """One thread each: more processes are faster than more threads."""
    import torch

    torch.set_num_threads(1)

    def one(job: tuple[str, Item]) -> Iterator[tuple[str, Result]]:
        name, item = job
        yield name, work(item)

    return one
