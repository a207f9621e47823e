"""A part of a tokenizer on disk: NAME.json says what it is, NAME.safetensors holds its weights."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from spirit import commit, config

Form = TypeVar("Form")


def save(folder: Path, name: str, form: Any, network: nn.Module) -> None:
    """Write a part; `form` is the dataclass that says how to build the network again."""
    from safetensors.torch import save_file

    state: dict[str, Tensor] = {
        key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()
    }
    with commit.file(folder / f"{name}.safetensors") as partial:
        save_file(state, partial)
    commit.json_file(folder / f"{name}.json", asdict(form))


def read_form(folder: Path, name: str, cls: type[Form]) -> Form:
    """The description of a part. Raises ValueError if it is missing or damaged."""
    path = Path(folder) / f"{name}.json"
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} is missing; make it with `spirit fit {name}`") from None
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise ValueError(f"{path} cannot be read as JSON ({error}); fit the part again") from None
    if not isinstance(table, dict):
        raise ValueError(f"{path} must hold one object; make it again with `spirit fit {name}`")
    return config.build(table, cls, str(path))


def read_weights(folder: Path, name: str, network: nn.Module, device: torch.device | str) -> None:
    """Fill a network with the weights of a part, in fp32, and move it to `device`.

    Raises ValueError if the file is missing, damaged or made for another description.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(folder) / f"{name}.safetensors"
    try:
        network.load_state_dict(load_file(path))
    except FileNotFoundError:
        raise ValueError(f"{path} is missing; make it with `spirit fit {name}`") from None
    except (SafetensorError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ValueError(
            f"{path} does not fit {name}.json ({reason}); fit the part again"
        ) from None
    network.to(device)
