"""One network under DeepSpeed: quiet, without its compiler, in one process or several."""

import json
import logging
import math
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spirit import commit
from spirit.engine import ranks, zero
from spirit.engine.muon import Muon
from spirit.engine.schedule import TrainingConfig

_OURS = (
    "optimizer",
    "scheduler",
    "bf16",
    "fp16",
    "torch_autocast",
    "gradient_clipping",
    "gradient_accumulation_steps",
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
)


class NotFinite(ValueError):
    """A loss or gradient that is no number; weights and optimizer are as they were before it."""

    def __init__(self, message: str, what: str) -> None:
        super().__init__(message)
        self.what = what
        """loss or gradient"""


class Engine:
    """One network under DeepSpeed, with AdamW and its schedule."""

    def __init__(
        self,
        module: nn.Module,
        config: TrainingConfig,
        *,
        hidden: Iterable[nn.Parameter] = (),
        accumulate: int = 1,
    ) -> None:
        """Take a network over; `hidden` are its matrices between hidden channels, for Muon.

        A step adds up the gradients of `accumulate` losses. All processes begin with the weights
        and buffers of the main one.
        """
        if config.threads:
            torch.set_num_threads(config.threads)
        self.config = config
        self.device = ranks.device(config.device)
        self.steps = 0
        self.accumulate = accumulate
        self._frozen = False
        chosen = settings(config, accumulate)
        if config.dtype == "bf16-weights":
            for parameter in module.parameters():
                parameter.data = parameter.data.bfloat16()  # before they take room on a GPU
        self.stage = int(chosen.get("zero_optimization", {}).get("stage", 0))
        # ZeRO-3 takes one weight after the other there: all at once may be more than a GPU holds.
        self.module = module if self.stage == 3 else module.to(self.device)
        if self.stage and config.optimizer != "adamw":
            raise ValueError(
                f"training.optimizer = {config.optimizer!r} needs whole matrices, but ZeRO stage "
                f"{self.stage} spreads them; take adamw, or leave training.deepspeed empty"
            )
        offloaded = "offload_optimizer" in chosen.get("zero_optimization", {})
        optimizer = _optimizer(module, config, {id(p) for p in hidden}, offloaded)
        self._engine = _initialize(module, optimizer, chosen, self.device)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The network's forward pass in the training dtype.

        What another network's loss is to flow through must be called inside `frozen()`.
        """
        if not self._frozen:
            with _place(self.device):
                return self._engine(*args, **kwargs)
        bf16 = self.config.dtype == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            return self.module(*args, **kwargs)

    def update(self, loss: Tensor | Iterator[Tensor]) -> dict[str, float | Tensor]:
        """Take one optimizer step down the loss, or down the sum of `accumulate` losses.

        These come from an iterator that makes each in its own forward pass when it is asked to, so
        that only one at a time is in memory.

        Returns {"grad": the gradient's norm before clipping, "lr": the learning rate}. Raises
        NotFinite, before the step, where a loss or the gradient is not a finite number.
        """
        rate = self.config.rate(self.steps)
        for group in self._engine.optimizer.param_groups:
            group["lr"] = rate
        if self.stage == 0:
            self.module.zero_grad(
                set_to_none=True
            )  # another network's loss may have passed through this one
        values: list[tuple[Tensor, torch.cuda.Event | None]] = []
        for part in (loss,) if isinstance(loss, Tensor) else loss:
            value = part.detach().float().to("cpu", non_blocking=True)
            copied = torch.cuda.current_stream().record_event() if part.is_cuda else None
            values.append((value, copied))
            self._engine.backward(part, scale_wrt_gas=False)
            if len(values) < self.accumulate:
                self._engine.step()  # counts, and steps only behind the last one
        assert len(values) == self.accumulate, "as many losses as were announced"
        for _, copied in values:
            if copied is not None:
                copied.synchronize()  # waits for the forward pass only; the backward pass goes on
        self._check("loss", all(bool(value.isfinite()) for value, _ in values))
        norm = self._clip()
        self._engine.step()
        if self.stage > 0:
            # ZeRO looks at the norm of all processes' gradients itself, and then takes no step.
            self._check("gradient", bool(self._engine.was_step_applied()))
        if norm is None:
            norm = self._engine.get_global_grad_norm()
        self.steps += 1
        return {"grad": norm if norm is not None else math.nan, "lr": rate}

    def _clip(self) -> Tensor | None:
        """Clip where DeepSpeed does not report the norm (no ZeRO)."""
        if self.stage > 0:
            return None
        limit = self.config.clip if self.config.clip > 0 else math.inf
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), limit)
        self._check("gradient", bool(norm.isfinite()))
        return norm

    def _check(self, what: str, finite: bool) -> None:
        (broken,) = ranks.any_rank(not finite)
        if broken:
            raise NotFinite(
                f"the {what} of step {self.steps + 1} is not a finite number and changed nothing; "
                f"lower the learning rate ({self.config.lr:g}) or look at that step's data",
                what,
            )

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let gradients pass through this network without gathering any in its weights."""
        trained = [p for p in self.module.parameters() if p.requires_grad]
        for parameter in trained:
            parameter.requires_grad_(False)
        self._frozen = True
        try:
            yield
        finally:
            self._frozen = False
            for parameter in trained:
                parameter.requires_grad_(True)

    def weights(self, *, everywhere: bool = True) -> dict[str, Tensor]:
        """All weights; every process must ask, since ZeRO-3 has spread them. They come together one
        after another, in the memory of every process or of the main one alone."""
        state: dict[str, Tensor] = self.module.state_dict()
        if self.stage < 3:
            return state
        import deepspeed

        spread = dict(self.module.named_parameters(remove_duplicate=False))
        found: dict[str, Tensor] = {}
        for name, value in state.items():
            with deepspeed.zero.GatheredParameters([spread[name]] if name in spread else []):
                if everywhere or ranks.main_process():
                    found[name] = spread.get(name, value).detach().cpu().clone()
        return found

    def save(self, folder: Path) -> dict[Path, str]:
        """Write weights, optimizer and step count; every process must call it.

        Returns the files that this process wrote, with their SHA-256. Raises OSError if the disk is
        full.
        """
        if self.stage > 0:
            return zero.save(self._engine, folder, self.steps)
        state = {
            "module": self.module.state_dict(),
            "optimizer": self._engine.optimizer.state_dict(),
        }
        if not ranks.main_process():
            return {}
        folder.mkdir(parents=True, exist_ok=True)
        with commit.hashed(folder / "engine.pt") as stream:
            torch.save({**state, "steps": self.steps}, stream)
        return {folder / "engine.pt": stream.sha256}

    def load(self, folder: Path, *, saved_by: int | None = None) -> None:
        """Read what `save` wrote; the network must have the same shape.

        `saved_by` is the number of processes that wrote it, as many as now if it is not given.
        """
        try:
            if self.stage == 0:
                # To the CPU: optimizers read their step counts there without waiting for a GPU.
                state = torch.load(folder / "engine.pt", map_location="cpu", weights_only=True)
                self.module.load_state_dict(state["module"])
                self._engine.optimizer.load_state_dict(state["optimizer"])
                self.steps = int(state["steps"])
            else:
                self.steps = zero.load(self._engine, folder, saved_by or ranks.world())
        except (
            RuntimeError,
            FileNotFoundError,
            LookupError,
            ValueError,
            AttributeError,
            AssertionError,
        ) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ValueError(
                f"{folder} does not fit this network or ZeRO stage {self.stage} ({reason})"
            ) from error


def settings(config: TrainingConfig, accumulate: int = 1) -> dict[str, Any]:
    """DeepSpeed's settings: the engine concerns from the JSON, everything else from `config`.

    Raises ValueError where the JSON cannot be read, or the two contradict each other.
    """
    chosen: dict[str, Any] = {}
    if config.deepspeed:
        path = Path(config.deepspeed)
        try:
            chosen = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ValueError(f"{path}: no such DeepSpeed settings; see recipes/deepspeed") from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: not valid JSON ({error})") from None
        if foreign := [key for key in _OURS if key in chosen]:
            raise ValueError(
                f"{path}: {foreign[0]!r} belongs into the recipe's [training], not here"
            )
    stage = chosen.get("zero_optimization", {}).get("stage", 0)
    if config.dtype == "bf16":
        chosen["torch_autocast"] = {"enabled": True, "dtype": "bfloat16"}
    elif config.dtype == "bf16-weights":
        if stage < 2:
            raise ValueError(
                "training.dtype = bf16-weights needs ZeRO's optimizer, which keeps all "
                "in float32; give training.deepspeed = recipes/deepspeed/zero2.json or zero3.json"
            )
        chosen["bf16"] = {"enabled": True}
        if accumulate > 1:
            chosen["data_types"] = {"grad_accum_dtype": "fp32"}
    if stage > 0:
        chosen["gradient_clipping"] = config.clip
        chosen["zero_allow_untested_optimizer"] = True
        chosen["zero_force_ds_cpu_optimizer"] = False
    return {
        **chosen,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": accumulate,
        "steps_per_print": 1_000_000_000,
    }


def _optimizer(
    module: nn.Module, config: TrainingConfig, hidden: set[int], offloaded: bool
) -> torch.optim.Optimizer:
    trained = [p for p in module.parameters() if p.requires_grad]
    vectors = [p for p in trained if p.ndim <= 1]
    muon = [p for p in trained if p.ndim == 2 and id(p) in hidden and config.optimizer == "muon"]
    taken = {id(p) for p in (*vectors, *muon)}
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trained if id(p) not in taken], "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
        {"params": muon, "weight_decay": config.weight_decay, "muon": True},
    ]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "muon":
        return Muon(groups, lr=config.lr, betas=config.betas)
    # On the CPU of a machine with GPUs only the fused kernel is fast enough.
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=offloaded or None)


def _initialize(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    chosen: dict[str, Any],
    where: torch.device,
) -> Any:
    """The DeepSpeed engine of one network."""
    os.environ.setdefault("DS_ACCELERATOR", where.type)  # otherwise it looks around and warns
    with _place(where), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated torch calls inside DeepSpeed
        import deepspeed
        import deepspeed.ops

        logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
        # It would look with a compiler for what can be compiled, then compile its own all-reduce
        # in shared memory, for minutes. Everything here is done by torch.
        deepspeed.ops.__compatible_ops__ = {}
        ranks.start(where)
        if chosen.get("zero_optimization", {}).get("stage") == 3:
            deepspeed.zero.Init(module=module, config_dict_or_path=chosen)
            for buffer in module.buffers():
                buffer.data = buffer.data.to(where)
        engine = deepspeed.initialize(model=module, optimizer=optimizer, config=chosen)[0]
        ranks.receive(module.buffers())  # the weights, DeepSpeed has sent
        return engine


@contextmanager
def _place(where: torch.device) -> Iterator[None]:
    """DeepSpeed asks for LOCAL_RANK, also where no launcher gave one, and takes the GPU it says."""
    alone = "LOCAL_RANK" not in os.environ
    if alone:
        os.environ["LOCAL_RANK"] = str(where.index or 0)
    try:
        yield
    finally:
        if alone:
            del os.environ["LOCAL_RANK"]
