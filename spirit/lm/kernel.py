"""The product of 8-bit weights with a few rows, in C (`product.c`): half the time of torch's own.

Compiled by the C compiler of the machine, in a quarter of a second, when a process first reads int8
weights; kept for the next one where the user names a cache (`XDG_CACHE_HOME`), and nowhere else.
Where there is no compiler, or another kind of CPU, torch's product serves.
"""

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from spirit import commit

SOURCE = Path(__file__).with_name("product.c")
FLAGS = (
    *("-O3", "-fPIC", "-shared", "-fopenmp"),
    # No more than what `available` asks of the CPU, so that what was compiled serves on all such.
    *("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vnni", "-mfma"),
    # Sums in any order; what may be infinite or NaN stays so.
    *("-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math"),
)
_once = threading.Lock()
CHANNELS = 16_384
"""Up to which the sums in 32 bits cannot overflow."""


def product(
    x: Float[Tensor, "rows channels"],
    weight: Int[Tensor, "weights channels"],
    scale: Float[Tensor, " weights"],
    *,
    gain: Float[Tensor, " channels"] | None = None,
    eps: float = 0.0,
    add: Float[Tensor, "rows out"] | None = None,
    gated: bool = False,
) -> Float[Tensor, "rows out"]:
    """W x in float32, a scale for each row of W; with a `gain`, of RMSNorm of x.

    Where `gated`, the first half of what comes out is put through SiLU and multiplies the second.
    `add` is added at the end. Only where `available`, for float32 and int8 in one piece.
    """
    run = _compiled()
    assert run is not None
    out = len(weight) // 2 if gated else len(weight)
    # C takes addresses and believes the rest.
    for some in (x, scale, gain, add):
        assert some is None or (some.dtype, some.is_contiguous()) == (torch.float32, True)
    assert (weight.dtype, weight.is_contiguous()) == (torch.int8, True)
    assert len(scale) == len(weight)
    assert weight.shape[1] == x.shape[1] <= CHANNELS
    assert gain is None or gain.shape == x.shape[1:]
    assert add is None or add.shape == (len(x), out)
    y = x.new_empty(len(x), out)
    done = run(
        x.data_ptr(),
        None if gain is None else gain.data_ptr(),
        eps,
        weight.data_ptr(),
        scale.data_ptr(),
        None if add is None else add.data_ptr(),
        y.data_ptr(),
        *(len(x), x.shape[1], out, gated, torch.get_num_threads()),
    )
    if not done:
        raise MemoryError(f"no room for {len(x)} rows of {x.shape[1]} channels; free some memory")
    return y


def available() -> bool:
    """Whether this machine has the kind of CPU, and a compiler or what it has compiled before."""
    return _compiled() is not None


def _compiled() -> Callable[..., Any] | None:
    with _once:  # what two threads ask for at a time is compiled by one
        return _made()


@cache
def _made() -> Callable[..., Any] | None:
    # VNNI is asked for in 512 bits.
    if not (torch.cpu._is_avx512_supported() and torch.cpu._is_vnni_supported()):
        return None
    try:
        # Of the OpenMP that torch has loaded: the threads of another one would fight with its own.
        ctypes.CDLL("libgomp.so.1", os.RTLD_NOW | os.RTLD_NOLOAD)
        run = _load()
    except (OSError, RuntimeError, ValueError, subprocess.SubprocessError):
        return None
    pointer, count = ctypes.c_void_p, ctypes.c_long
    run.argtypes = [pointer, pointer, ctypes.c_float, *[pointer] * 4, *[count] * 3]
    run.argtypes += [ctypes.c_int, ctypes.c_int]
    run.restype = ctypes.c_int
    compiled: Callable[..., Any] = run
    return compiled


def _load() -> Any:
    """The compiled function. A cache's file says by its name what it was made of."""
    home = os.environ.get("XDG_CACHE_HOME")
    if not home:
        with tempfile.TemporaryDirectory() as folder:  # what is loaded needs no file any more
            _compile(path := Path(folder) / "product.so")
            return ctypes.CDLL(str(path)).product
    made = hashlib.sha256(SOURCE.read_bytes() + " ".join(FLAGS).encode()).hexdigest()[:16]
    path = Path(home) / "spirit" / f"product-{made}.so"
    if not path.exists():
        with commit.file(path) as partial:
            _compile(partial)
    return ctypes.CDLL(str(path)).product


def _compile(path: Path) -> None:
    name, *more = shlex.split(os.environ.get("CC") or "cc")
    compiler = shutil.which(name)
    if compiler is None:
        raise OSError("no C compiler")
    command = [compiler, *more, *FLAGS, "-o", str(path), "-x", "c", str(SOURCE), "-lm"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
