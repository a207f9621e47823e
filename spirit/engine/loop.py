"""The loop around every training step: exact resume, checkpoints, signals, progress."""

import dataclasses
import json
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from spirit import commit
from spirit.config import plain
from spirit.engine import boards, checkpoint, ranks, recipes, watch
from spirit.engine.flops import Utilization
from spirit.engine.network import Engine
from spirit.engine.progress import Progress
from spirit.engine.ranks import main_process, rank, world
from spirit.engine.schedule import TrainingConfig


@runtime_checkable
class Stateful(Protocol):
    """Something whose position belongs to a checkpoint, as plain JSON."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@watch.watched
def train(
    step: Callable[[int], Mapping[str, float | Tensor]],
    engines: Mapping[str, Engine],
    config: TrainingConfig,
    out: Path,
    *,
    recipe: Any = None,
    state: Mapping[str, Stateful] | None = None,
    fingerprints: Mapping[str, str] | None = None,
    unit: str = "tokens",
    formula: str = "",
) -> None:
    """Run `step(i)` for every step not done yet; progress, logs and checkpoints go under `out`.

    `recipe` is the dataclass that all of this was made from: a checkpoint of another one (more or
    fewer steps apart) is not gone on from, nor one with other `fingerprints` of what the recipe
    names by its path alone.

    A step returns its metrics: "loss", `unit` (how many it consumed, for the rate), "flops" where
    `formula` says how these are counted (for the MFU), and what else belongs into the logs. It must
    draw everything from (seed, i), from a `Stateful` or from torch's own generator: then a training
    that was interrupted equals one that ran through, bit for bit. With another number of processes
    it goes on with the same rows and losses, up to rounding.

    Raises:
        ValueError: no checkpoint is whole, they are of another recipe, or the loss is no number.
        OSError: a checkpoint could not be saved, or another process died.
        KeyboardInterrupt: after Ctrl-C, when the step in progress is done and saved.
        SystemExit: the same after SIGTERM, code 0: nothing failed.
    """
    state, fingerprints = state or {}, dict(fingerprints or {})
    root = out / "state"
    boards.check(config.wandb)  # in every process: alone, the main one would leave them waiting
    torch.manual_seed(config.seed + rank())
    first, shown = _resume(root, engines, state, config, recipe, fingerprints)

    def save(done: int) -> None:
        def write(folder: Path) -> dict[Path, str]:
            note = {"recipe": recipes.fixed(recipe), "fingerprints": fingerprints}
            return _write(folder, engines, state, {**note, "progress": progress.state_dict()})

        checkpoint.save(root, done, write)

    saved = time.monotonic()
    device = next(iter(engines.values())).device

    def utilization() -> Utilization:
        return Utilization(formula, device, config.dtype, config.peak_tflops, ranks.world())

    curves = None
    if main_process():
        about = plain(recipe) if recipe is not None else None
        # What was stopped drew a point of its last steps, which belong to the next point.
        known = first - len((shown or {}).get("waiting", ()))
        curves = boards.Boards(out / "logs", first=known, project=config.wandb, about=about)
    progress = Progress(
        first=first,
        steps=config.steps,
        unit=unit,
        every=config.log_every,
        boards=curves,
        utilization=utilization if formula else None,
        state=shown,
    )
    with progress, _signals() as received:
        for i in range(first, config.steps):
            progress.add(i + 1, step(i))
            due = main_process() and time.monotonic() - saved >= config.save_seconds
            term, interrupt, due = ranks.any_rank(
                signal.SIGTERM in received, signal.SIGINT in received, due
            )
            if term or interrupt or due or i + 1 == config.steps:
                save(i + 1)
                saved = time.monotonic()
            if term or interrupt:
                told = f"stopped and saved after step {i + 1}; the same command goes on"
                if not term:
                    raise KeyboardInterrupt(told)
                progress.say(told)
                raise SystemExit(0)  # without `finished.json`: the training is not done
    if main_process():
        done = {**dataclasses.asdict(config), "recipe": recipes.fixed(recipe)}
        commit.json_file(root / "finished.json", done)


def finished(out: Path, config: TrainingConfig, recipe: Any = None) -> bool:
    """Whether the training under `out` has done all the steps that `config` asks for.

    Raises ValueError if it was made by another recipe.
    """
    try:
        kept = json.loads((out / "state" / "finished.json").read_text())
        done = int(kept["steps"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
    recipes.check(out / "state", kept.get("recipe"), recipe)
    return done >= config.steps


def _write(
    folder: Path,
    engines: Mapping[str, Engine],
    state: Mapping[str, Stateful],
    note: Mapping[str, Any],
) -> dict[Path, str]:
    """This process's part of a checkpoint, as files with their SHA-256."""
    written: dict[Path, str] = {}
    for name, engine in engines.items():
        written |= engine.save(folder / name)
    path = folder / f"rank-{rank():05d}.json"
    places = {name: item.state_dict() for name, item in state.items()}
    with commit.hashed(path) as stream:
        stream.write(json.dumps({"state": places, **note}, indent=1).encode())
    written[path] = stream.sha256
    random = {"cpu": torch.get_rng_state()}
    if any(engine.device.type == "cuda" for engine in engines.values()):
        random["cuda"] = torch.cuda.get_rng_state()
    path = folder / f"random-{rank():05d}.pt"
    with commit.hashed(path) as stream:
        torch.save(random, stream)
    written[path] = stream.sha256
    return written


def _resume(
    root: Path,
    engines: Mapping[str, Engine],
    state: Mapping[str, Stateful],
    config: TrainingConfig,
    recipe: Any,
    fingerprints: Mapping[str, str],
) -> tuple[int, dict[str, Any]]:
    """Make everything what it was at the newest checkpoint: the steps done, what `Progress` knew.

    Nothing is loaded unless the checkpoint is of this recipe and these fingerprints.
    """
    found = checkpoint.newest(root)
    if found is None:
        if main_process():
            print(f"a new training: {root} holds no checkpoint", file=sys.stderr)
        return 0, {}
    folder, same = found.folder, found.ranks == world()
    note = _note(folder, rank() if same else 0)
    recipes.check(folder, note.get("recipe"), recipe)
    for name, here in fingerprints.items():
        if (there := note.get("fingerprints", {}).get(name, here)) != here:
            raise ValueError(
                f"{folder} was made with the {name} {there}, but here it is {here}; give back the "
                "former one, or another `out`"
            )
    saved = note["state"]
    if set(saved) != set(state):
        raise ValueError(
            f"{folder} holds the state of {sorted(saved)}, this training has {sorted(state)}; "
            "give another output folder"
        )
    if not same:
        ranks.together(lambda: _shared(found, saved))
    for name, engine in engines.items():
        engine.load(folder / name, saved_by=found.ranks)
    for name, item in state.items():
        item.load_state_dict(saved[name])
    if same:
        random = torch.load(folder / f"random-{rank():05d}.pt", weights_only=True)
        torch.set_rng_state(random["cpu"])
        if "cuda" in random and torch.cuda.is_available():
            torch.cuda.set_rng_state(random["cuda"])
    else:
        # What each process would have drawn, none can draw now: all begin anew from this step.
        torch.manual_seed(config.seed + rank() + 1_000_003 * found.step)
    if main_process():
        by = "" if same else f", saved by {found.ranks} process(es), with {world()}"
        print(f"going on after step {found.step:,} ({folder}{by})", file=sys.stderr)
    return found.step, note.get("progress", {}) if main_process() else {}


def _note(folder: Path, number: int) -> dict[str, Any]:
    path = folder / f"rank-{number:05d}.json"
    note: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return note


def _shared(found: checkpoint.Found, saved: dict[str, Any]) -> None:
    """Make sure that one process's places are every process's, so that any number can go on."""
    for number in range(1, found.ranks if main_process() else 1):
        if _note(found.folder, number)["state"] != saved:
            raise ValueError(
                f"{found.folder} was saved by {found.ranks} processes, each at a place of its own "
                f"in the data; start that many again, not {world()}"
            )


@contextmanager
def _signals() -> Iterator[Mapping[int, float]]:
    """Collect SIGINT and SIGTERM instead of dying; a second Ctrl-C acts at once.

    Launchers hand on a signal that the whole group has got already: what comes within a second is
    the same, and a second SIGTERM says nothing new.
    """
    received: dict[int, float] = {}
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def note(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and received.get(number, math.inf) < time.monotonic() - 1:
            signal.signal(number, before[number])
            raise KeyboardInterrupt
        received.setdefault(number, time.monotonic())

    watched = (signal.SIGINT, signal.SIGTERM)
    before: dict[int, Any] = {number: signal.signal(number, note) for number in watched}
    try:
        yield received
    finally:
        for number in watched:
            signal.signal(number, before[number])
