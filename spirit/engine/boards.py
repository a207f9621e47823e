"""Where curves are drawn: TensorBoard always, Weights & Biases where a recipe names a project."""

import importlib.util
import math
import uuid
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spirit import commit


class Boards:
    """All that take a training's metrics, of the main process."""

    def __init__(self, logs: Path, *, first: int, project: str = "", about: Any = None) -> None:
        """`first` steps are done already; `about` is the recipe as plain JSON.

        Raises ValueError where a project is asked for and Weights & Biases refuses it.
        """
        from torch.utils.tensorboard import SummaryWriter

        self._run = _wandb(logs, project, about) if project else None
        self._writer = SummaryWriter(str(logs), purge_step=first + 1)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Draw a point of every curve, but of those that are no number."""
        known = {key: value for key, value in values.items() if not math.isnan(value)}
        for key, value in known.items():
            self._writer.add_scalar(key, value, step)
        if self._run is not None:
            self._run.log({"step": step, **known})

    def flush(self) -> None:
        """Bring what was drawn to the disk."""
        self._writer.flush()

    def close(self, failed: bool) -> None:
        """Write what is left."""
        self._writer.close()
        if self._run is not None:
            self._run.finish(exit_code=int(failed))


def check(project: str) -> None:
    """Raise ValueError where `Boards` would need a package that is missing."""
    if project and importlib.util.find_spec("wandb") is None:
        raise ValueError(
            f"training.wandb = {project!r} needs Weights & Biases; pip install '.[wandb]'"
        )


def _wandb(logs: Path, project: str, about: Any) -> Any:
    """A run of Weights & Biases; a training that goes on goes on with its run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import wandb
    note = logs / "wandb-run"
    logs.mkdir(parents=True, exist_ok=True)
    if not note.is_file():
        commit.text(note, uuid.uuid4().hex[:8] + "\n")
    try:
        run = wandb.init(
            project=project,
            id=note.read_text(encoding="utf-8").strip(),
            resume="allow",
            dir=str(logs),
            config=about or {},
            settings=wandb.Settings(silent=True),
        )
    except wandb.errors.Error as error:
        raise ValueError(
            f"training.wandb = {project!r}: {' '.join(str(error).split())}; "
            "WANDB_MODE=offline needs no network and no account"
        ) from None
    # Steps that a crash took back are drawn again; by its own count wandb would drop them.
    run.define_metric("*", step_metric="step")
    return run
