"""Checkpoints of a training: whole, verified, two kept, found again after any crash.

A checkpoint is a folder `step-00001234` with a manifest that holds the SHA-256 of every file. It
is written aside, synced and renamed; only then `latest` moves to it. A reader believes nothing
that the manifest does not confirm, and says which checkpoint it passed over.
"""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from spirit import commit
from spirit.engine import ranks

KEPT = 2


def save(root: Path, step: int, write: Callable[[Path], None]) -> Path:
    """Commit what `write(folder)` leaves as the state after `step` steps; all ranks call it."""
    target = root / f"step-{step:08d}"
    if not ranks.main_process():
        _write_together(Path(ranks.share("")), write)
        ranks.any_rank(False)  # the main process has committed
        return target
    before = _named(root)
    for left in (*root.glob(".step-*.partial"), *root.glob(".step-*.old")):
        shutil.rmtree(left, ignore_errors=True)  # of a process that was killed while it saved
    with commit.folder(target) as partial:
        ranks.share(str(partial))
        _write_together(partial, write)
        files = {
            path.relative_to(partial).as_posix(): {
                "sha256": commit.sha256(path),
                "bytes": path.stat().st_size,
            }
            for path in sorted(partial.rglob("*"))
            if path.is_file()
        }
        commit.json_file(
            partial / "manifest.json", {"step": step, "ranks": ranks.world(), "files": files}
        )
    commit.text(root / "latest", target.name + "\n")
    kept = [target.name, *(name for name in before if name < target.name)][:KEPT]
    for folder in root.glob("step-*"):
        if folder.name not in kept:
            shutil.rmtree(folder)
    ranks.any_rank(False)
    return target


def _write_together(folder: Path, write: Callable[[Path], None]) -> None:
    error: Exception | None = None
    try:
        write(folder)
    except Exception as problem:
        error = problem
    (failed,) = ranks.any_rank(error is not None)
    if error is not None:
        raise error
    if failed:
        raise OSError(
            f"{folder.parent}: another process could not write its part of the checkpoint"
        )


def newest(root: Path) -> tuple[int, Path] | None:
    """The newest checkpoint that is whole, as (steps done, folder); None where there is none yet.

    A torn or altered one is named on stderr and the one before it is taken.

    Raises:
        ValueError: all checkpoints are broken, or they belong to another number of processes.
    """
    names = _named(root)
    if ranks.main_process():
        answer = next((name for name in names if _whole(root / name, loud=True)), "")
        for name in names[: names.index(answer)] if answer else ():
            # Else the next save would keep the broken one and delete the good one.
            shutil.rmtree(root / f"broken-{name}", ignore_errors=True)
            (root / name).replace(root / f"broken-{name}")
        ranks.share(answer)
    else:
        answer = ranks.share("")
    if not answer:
        if names:
            raise ValueError(
                f"{root}: none of the checkpoints {', '.join(names)} is whole; "
                "remove the folder to start again"
            )
        return None
    written_by = json.loads((root / answer / "manifest.json").read_text())["ranks"]
    if written_by != ranks.world():
        raise ValueError(
            f"{root / answer} was written by {written_by} process(es), not {ranks.world()}; "
            "start that many again"
        )
    return int(answer.removeprefix("step-")), root / answer


def _named(root: Path) -> list[str]:
    """The committed checkpoints, the one that `latest` names first, then the newest first."""
    names = sorted((path.name for path in root.glob("step-*") if path.is_dir()), reverse=True)
    pointer = root / "latest"
    latest = pointer.read_text(errors="replace").strip() if pointer.is_file() else ""
    if names and latest not in names:
        print(
            f"{pointer}: missing or torn; looking for the newest checkpoint that is whole",
            file=sys.stderr,
        )
    return sorted(names, key=lambda name: name != latest)


def _whole(folder: Path, *, loud: bool) -> bool:
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        problem = (
            ""
            if f"step-{manifest['step']:08d}" == folder.name
            else "manifest.json is of another step"
        )
        for name, entry in manifest["files"].items():
            path = folder / name
            if not path.is_file():
                problem = f"{name} is missing"
            elif path.stat().st_size != entry["bytes"] or commit.sha256(path) != entry["sha256"]:
                problem = f"{name} is torn or altered"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        problem = "manifest.json is missing or torn"
    if problem and loud:
        print(f"{folder}: {problem}; trying the checkpoint before it", file=sys.stderr)
    return not problem
