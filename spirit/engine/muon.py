"""Muon: matrices learn by orthogonalized momentum, everything else by AdamW."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


class Muon(torch.optim.Optimizer):
    """AdamW, but groups with `"muon": True` take steps whose singular values are all about one.

    For the matrices between hidden channels; embeddings, output tables and vectors stay with AdamW.
    A step is scaled to the size that AdamW's steps have (0.2 per weight, root mean square), so both
    kinds of group share learning rate and weight decay. Jordan et al., "Muon", 2024; scale: Liu et
    al., "Muon is scalable for LLM training", 2025, section 2.2.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float],
        momentum: float = 0.95,
        eps: float = 1e-8,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "momentum": momentum, "eps": eps}
        super().__init__(groups, {**defaults, "weight_decay": 0.0, "muon": False})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Take a step along the gradients that the parameters hold."""
        assert closure is None
        for group in self.param_groups:
            trained = [p for p in group["params"] if p.grad is not None]
            torch._foreach_mul_(trained, 1 - group["lr"] * group["weight_decay"])
            (self._orthogonal if group["muon"] else self._adam)(group, trained)

    def _orthogonal(self, group: dict[str, Any], trained: list[Tensor]) -> None:
        by_shape: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
        for parameter in trained:
            by_shape[tuple(parameter.shape)].append(parameter)
        for shape, parameters in by_shape.items():
            states = [self.state[p] for p in parameters]
            for state, parameter in zip(states, parameters, strict=True):
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
            momenta = [state["momentum"] for state in states]
            gradients = [p.grad for p in parameters if p.grad is not None]
            torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
            ahead = torch._foreach_lerp(gradients, momenta, group["momentum"])
            steps = orthogonalize(torch.stack(ahead)).to(parameters[0].dtype).unbind()
            torch._foreach_add_(parameters, steps, alpha=-group["lr"] * 0.2 * max(shape) ** 0.5)

    def _adam(self, group: dict[str, Any], trained: list[Tensor]) -> None:
        first, second = group["betas"]
        for parameter in trained:
            state, gradient = self.state[parameter], parameter.grad
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float64)
                state["mean"] = torch.zeros_like(parameter)
                state["square"] = torch.zeros_like(parameter)
            state["step"] += 1
            count = state["step"].item()
            state["mean"].lerp_(gradient, 1 - first)
            state["square"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
            spread = (state["square"] / (1 - second**count)).sqrt_().add_(group["eps"])
            parameter.addcdiv_(state["mean"], spread, value=-group["lr"] / (1 - first**count))


def orthogonalize(
    matrices: Float[Tensor, "batch rows columns"], steps: int = 5
) -> Float[Tensor, "batch rows columns"]:
    """Matrices with the same singular vectors and singular values between about 0.7 and 1.2.

    The quintic Newton-Schulz iteration of Muon, in bfloat16.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(
            x, torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445
        )
    return (x.mT if tall else x).to(matrices.dtype)
