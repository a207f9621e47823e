"""What a training was made from, and whether it may go on with what the recipe says now."""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spirit.config import plain

_FREE = re.compile(
    r"out|measure_every|validate_every|"
    r"mixture\.workers|"
    r"training\.(steps|save_seconds|log_every|device|threads|deepspeed|wandb|peak_tflops|"
    r"accumulate|checkpointing|compile|fused_loss|attention)"
)
"""What may change when a training goes on: how long, where and how it is watched."""


_ONCE_FREE = {"validate_clips"}
"""What checkpoints of before do not say, whatever it was."""


def fixed(recipe: Any) -> dict[str, Any] | None:
    """A recipe as a flat table of what must stay as it is."""
    return None if recipe is None else _flat(plain(recipe))


def check(where: Path, kept: Mapping[str, Any] | None, recipe: Any) -> None:
    """Raise ValueError for what is `kept` of another recipe, in one line that names `where`.

    A key that was not known then counts as its default: what was done before there was the key.
    """
    wanted = fixed(recipe)
    if kept is None or wanted is None:
        return
    told = {**_flat(_defaults(recipe, kept)), **kept}
    for name in sorted(told.keys() | wanted.keys()):
        if name in _ONCE_FREE and name not in kept:
            continue
        if told.get(name) != wanted.get(name):
            raise ValueError(
                f"{where} was made with {name} = {told.get(name)}, the recipe now says "
                f"{wanted.get(name)}; give another `out`, or remove that folder to start anew"
            )


def _flat(table: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}

    def visit(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                visit(f"{name}.{key}" if name else key, inner)
        elif not _FREE.fullmatch(name):
            flat[name] = value

    visit("", table)
    return flat


def _defaults(config: Any, kept: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """The default of every key that has one, by its whole name; of a table that may be left out
    only where `kept` has it."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        name, value, default = above + field.name, getattr(config, field.name), field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        optional = default is None and not any(key.startswith(f"{name}.") for key in kept)
        if dataclasses.is_dataclass(value) and not optional:
            found |= _defaults(value, kept, f"{name}.")
        elif default is not dataclasses.MISSING:
            found[name] = default
    as_kept: dict[str, Any] = json.loads(json.dumps(found, default=str))
    return as_kept
