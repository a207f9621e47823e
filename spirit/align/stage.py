"""Where aligned parts wait until all of them are there, and how they take their places.

Until then the shards are as they were. The stage holds a plan (the settings, and the hashes of the
parts that are aligned), parts with their hash in the name, and at last a manifest: from then on
only renames are left, which whoever comes next can finish.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spirit import commit
from spirit.data.shards import STAGE

UNALIGNED = "unaligned.jsonl"
"""`id`, `audio`, `reason` and `detail` of each utterance that has a text but no words."""


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder for this process, however it ends. Raises ValueError if another one has it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise ValueError(f"another `spirit align` works on {folder}; wait for its end") from None
    finally:
        os.close(handle)


def finish(folder: Path) -> None:
    """Put the parts of a stage that is complete in their places, and the manifest last."""
    stage = folder / STAGE
    if not (stage / "manifest.json").is_file():
        return
    for path in sorted(stage.glob("part-*.parquet")):
        commit.move(path, folder / f"{path.name.split('.')[0]}.parquet")
    for name in (UNALIGNED, "manifest.json"):
        if (stage / name).is_file():
            commit.move(stage / name, folder / name)
    shutil.rmtree(stage)


def resume(folder: Path, plan: Mapping[str, Any]) -> dict[str, Path]:
    """Begin a stage or go on with the one that has the same plan; the parts in it by name.

    What another plan or a kill has left behind is removed, and so is a part that is damaged.
    """
    stage = folder / STAGE
    try:
        same = json.loads((stage / "plan.json").read_text(encoding="utf-8")) == plan
    except (OSError, ValueError):
        same = False
    if not same:
        shutil.rmtree(stage, ignore_errors=True)
        commit.json_file(stage / "plan.json", plan)
    kept: dict[str, Path] = {}
    for path in sorted(stage.iterdir()):
        name, _, rest = path.name.partition(".")
        if path.suffix == ".parquet" and commit.sha256(path) == rest.removesuffix(".parquet"):
            kept[f"{name}.parquet"] = path
        elif path.name != "plan.json":
            path.unlink()
    return kept


def keep(folder: Path, part: Path, content: bytes) -> Path:
    """Write an aligned part into the stage."""
    digest = hashlib.sha256(content).hexdigest()
    path = folder / STAGE / f"{part.stem}.{digest}.parquet"
    with commit.file(path) as partial:
        partial.write_bytes(content)
    return path


def complete(
    folder: Path, manifest: Mapping[str, Any], unaligned: Sequence[Mapping[str, Any]]
) -> None:
    """Write what goes with the parts, the manifest last, and put all of it in place."""
    lines = [json.dumps(entry, ensure_ascii=False) + "\n" for entry in unaligned]
    commit.text(folder / STAGE / UNALIGNED, "".join(lines))
    commit.json_file(folder / STAGE / "manifest.json", manifest)
    finish(folder)


def discard(folder: Path) -> None:
    """Leave the shards as they were."""
    shutil.rmtree(folder / STAGE, ignore_errors=True)
