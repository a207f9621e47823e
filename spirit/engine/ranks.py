"""The processes of one training: one alone, or several under `deepspeed` or `torchrun`."""

import atexit
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import HashStore  # type: ignore[attr-defined]

from spirit.engine import launch, watch

T = TypeVar("T")
_control: "dist.ProcessGroup | None" = None


def rank() -> int:
    """The number of this process among all processes of the training, from 0."""
    launch.adopt()
    return dist.get_rank() if dist.is_initialized() else int(os.environ.get("RANK", "0"))


def world() -> int:
    """How many processes train together."""
    launch.adopt()
    return (
        dist.get_world_size() if dist.is_initialized() else int(os.environ.get("WORLD_SIZE", "1"))
    )


def main_process() -> bool:
    """Whether this process is the one that talks: progress, logs, finished files."""
    return rank() == 0


def device(name: str = "auto") -> torch.device:
    """The device of this process: "auto" takes a GPU where there is one; others insist."""
    launch.adopt()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device {name!r}: say auto, cpu, cuda or cuda:N") from None
    if found.type not in ("cpu", "cuda"):
        raise ValueError(f"device {name!r}: say auto, cpu, cuda or cuda:N")
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device {name!r}: no GPU that torch {torch.__version__} can use; say device=cpu"
        )
    if found.type == "cuda" and found.index is None:
        found = torch.device("cuda", local)
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {found}: this machine has {torch.cuda.device_count()} GPU(s)")
    return found


def start(where: torch.device) -> None:
    """Join the processes of this training; alone, without a launcher, no port is opened."""
    global _control
    if dist.is_initialized():
        return
    backend = "gloo"
    if where.type == "cuda":
        torch.cuda.set_device(where)
        backend = "nccl"
    if "RANK" in os.environ:
        dist.init_process_group(backend)
    else:
        dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
    if world() > 1 and backend != "gloo":
        _control = dist.new_group(
            backend="gloo"
        )  # small talk between hosts must not wait for the GPU
    if world() > 1:
        watch.start(rank(), world(), share)
    atexit.register(stop)


def stop() -> None:
    """Leave the others when all are done with each other.

    Who closes connections that another still reads from takes that one down. And DeepSpeed keeps
    groups alive, so that gloo's threads outlive `destroy_process_group`: one that lets go of its
    last tensor while the interpreter is ending aborts the process (SIGABRT), all done as it may be.
    """
    if not dist.is_initialized():
        return
    if watch.stop() and world() > 1:
        with suppress(RuntimeError):  # somebody failed after the training: nothing to wait for
            dist.monitored_barrier(_control, timeout=timedelta(seconds=30))
    dist.destroy_process_group()
    until = time.monotonic() + 5
    while _busy() and time.monotonic() < until:
        time.sleep(0.02)


def _busy() -> bool:
    """Whether a thread of gloo is at work (where the system tells of threads: Linux)."""
    for task in Path("/proc/self/task").glob("*"):
        with suppress(OSError):  # it has just ended
            name, _, rest = (task / "stat").read_text().partition(") ")
            if "gloo" in name and rest.startswith("R"):
                return True
    return False


def any_rank(*flags: bool) -> tuple[bool, ...]:
    """For each flag, whether it is set in any process."""
    if world() == 1:
        return flags
    box = torch.tensor(flags, dtype=torch.int32)
    dist.all_reduce(box, dist.ReduceOp.MAX, group=_control)
    return tuple(bool(flag) for flag in box.tolist())


def total(count: int) -> int:
    """The sum of a count over all processes."""
    if world() == 1:
        return count
    box = torch.tensor(count)
    dist.all_reduce(box, group=_control)
    return int(box)


def summed(values: Tensor) -> Tensor:
    """The sum of a tensor over all processes, on its device; a GPU is not waited for."""
    if world() > 1:
        dist.all_reduce(values)
    return values


@torch.no_grad()
def receive(tensors: Iterable[Tensor]) -> None:
    """Give every process the values that these tensors have in the main one, on its device."""
    for tensor in tensors if world() > 1 else ():
        # As bytes, which every backend can send, of whatever type they are.
        whole = tensor.detach().contiguous()
        dist.broadcast(whole.view(-1).view(torch.uint8), src=0)
        if not tensor.is_contiguous():
            tensor.copy_(whole)


def share(text: str) -> str:
    """What the main process says, in every process."""
    if world() == 1:
        return text
    box: list[str] = [text]
    dist.broadcast_object_list(box, src=0, group=_control)
    return box[0]


def gather(text: str) -> list[str]:
    """What every process says, in every process."""
    if world() == 1:
        return [text]
    box: list[str] = [""] * world()
    dist.all_gather_object(box, text, group=_control)
    return box


def together(action: Callable[[], T]) -> T:
    """What `action()` gives in this process; where it fails in one process, all raise.

    The one raises its own error, the others an `OSError` that names it: nobody goes on alone into
    an exchange that the other will never come to.
    """
    error: Exception | None = None
    answer: list[T] = []
    try:
        answer = [action()]
    except Exception as problem:
        error = problem
    said = gather("" if error is None else str(error) or type(error).__name__)
    if error is not None:
        raise error
    for number, line in enumerate(said):
        if line:
            raise OSError(f"process {number}: {line}")
    return answer[0]
