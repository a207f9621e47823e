"""What the suites that ask about every recording of a corpus share."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from spirit.data.corpus import Utterance, read_corpus
from spirit.eval.ledger import Result, answered, collect, mark
from spirit.eval.tiny import ALL, digest


def first(data: Path, limit: int) -> tuple[list[Utterance], dict[str, int]]:
    """The first utterances of a corpus, 0: all, and how many are left out by the limit, if any."""
    everyone = list(read_corpus(data))
    items = everyone[: limit or None]
    beyond = len(everyone) - len(items)
    return items, {"beyond --limit": beyond} if beyond else {}


def named(path: Path | None) -> str:
    """A judge by its name and what is in it; "" of none. Raises ValueError where it is missing."""
    if path is None:
        return ""
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder; give that of a judge")
    folder = path.is_dir()
    told = digest(path, ALL) if folder else mark((path,), {})
    return f"{path.name} {told[:12]}"


def ask(
    kept: Path,
    items: Iterable[Utterance],
    work: Callable[[Utterance], Result],
    parts: Callable[[Utterance], tuple[object, ...]],
    *,
    model: str,
    settings: Mapping[str, Any],
    by: tuple[object, ...],
    jobs: int,
    title: str,
) -> tuple[dict[str, Result], dict[str, int]]:
    """The results of `work` without a fault, and why the others are left out, see `answered`.

    They are `kept`, and taken again where the model, the settings but for the limit, who measures
    (`by`), and the `parts` of an utterance that a result hangs on are the same, see `collect`.
    """
    recordings, read_files = {item.id: item for item in items}, dict[str, str]()
    told = [value for name, value in settings.items() if name != "limit"]
    found = collect(
        kept,
        recordings,
        work,
        origin="-".join(map(str, (model, *told, *by))),
        jobs=jobs,
        title=title,
        marks={name: mark(parts(item), read_files) for name, item in recordings.items()},
    )
    return answered(found, kept)
