"""A voice that goes on from another one, such as the released HiFi-GAN, instead of from nothing."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from spirit.vocoder.voice import Voice

_FIRST = "generator.conv_pre.conv.weight"
"""Reads all embeddings side by side, in the order of the generator's inputs."""


@torch.no_grad()
def go_on_from(voice: Voice, other: Voice) -> list[str]:
    """Take the weights of another voice wherever they have the same place and shape, and the first
    rows of a table that has fewer; returns the names of those that stay as they are.

    Raises ValueError where the generators are not of one shape, so that little would be left.
    """
    found = {name: weight for _, name, weight in _weights(other)}
    found[_FIRST] = _ordered(voice, other, found[_FIRST])
    left = []
    for module, name, weight in _weights(voice):
        theirs = found.get(name)
        if theirs is not None:
            theirs = theirs.to(weight)
        if theirs is not None and theirs.shape == weight.shape:
            _put(module, name.rpartition(".")[2], theirs)
        elif theirs is not None and ".embed." in name and _begins(theirs, weight):
            weight[: len(theirs)] = theirs
        else:
            left.append(name)
    if lost := [name for name in left if name.startswith("generator.") and ".embed." not in name]:
        raise ValueError(
            f"the vocoder to start from has no {lost[0]} of the shape that this network has; give "
            "the recipe its sizes ([network]), or leave out init"
        )
    return left


def _weights(voice: Voice) -> list[tuple[nn.Module, str, Tensor]]:
    """Every weight with its module and name, that of a weight norm as one."""
    rows = []
    for path, module in voice.named_modules():
        if path.partition(".parametrizations")[1]:
            continue
        named = dict(module.named_parameters(recurse=False))
        if parametrize.is_parametrized(module, "weight"):
            named["weight"] = module.weight  # type: ignore[assignment]
        rows += [(module, f"{path}.{name}", weight) for name, weight in named.items()]
    return rows


def _put(module: nn.Module, name: str, weight: Tensor) -> None:
    if parametrize.is_parametrized(module, name):
        setattr(module, name, weight.detach())  # becomes direction and length
    else:
        module.get_parameter(name).copy_(weight)


def _begins(some: Tensor, table: Tensor) -> bool:
    return some.shape[1:] == table.shape[1:] and len(some) < len(table)


def _ordered(voice: Voice, other: Voice, weight: Float[Tensor, "out width kernel"]) -> Tensor:
    """The first convolution for embeddings in the order of `voice`."""
    inputs = other.config["generator"]["inputs"]
    parts, start = {}, 0
    for name, (_, width) in inputs.items():
        parts[name] = weight[:, start : start + width]
        start += width
    if set(parts) != set(voice.config["generator"]["inputs"]):
        return weight
    return torch.cat([parts[name] for name in voice.config["generator"]["inputs"]], 1)
