"""The child of `spirit.data.decoder`: it decodes what it is asked to, and may die of it."""

import json
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from threading import Thread

import numpy as np
from jaxtyping import Float

from spirit.decoding import AudioError, read_into
from spirit.sound import Sound
from spirit.streams import MAX_GROUP

READY = b"ready\n"
"""What it says once it can be asked."""
Block = Float[np.ndarray, " _"]


class _NoRoom(ChildProcessError):
    """Not a fault of the recording."""


ERRORS: dict[str, type[Exception]] = {
    "connection": ConnectionError,
    "room": ChildProcessError,
    "system": OSError,
    "value": ValueError,
}
"""Errors that are passed on, the more special ones first."""


def serve(answers: int, memory: int) -> None:
    """The child: answers what it is asked through `answers`, the sound in the file that each line
    names."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    Thread(target=_end_with_parent, daemon=True).start()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))  # of the memory file, that is
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, sys.stderr.fileno())  # decoders complain there
    at_rest = _private_memory()
    with socket.socket(fileno=answers) as own, own.makefile("rwb") as lines:
        lines.write(READY)
        lines.flush()
        for line in lines:
            asked = json.loads(line)
            max_seconds, samples = asked.pop("max_seconds"), asked.pop("samples")
            sound = Sound(**asked)
            groups = 0 if sound.row is None else 2 * MAX_GROUP
            _limit_memory(at_rest + memory + groups)
            lines.write(json.dumps(_answer(sound, samples, max_seconds)).encode() + b"\n")
            lines.flush()


def _answer(sound: Sound, samples: int, max_seconds: float) -> dict[str, str | int]:
    written = 0

    def keep(block: Block) -> None:
        nonlocal written
        left = np.ascontiguousarray(block).data.cast("B")
        try:
            while left:
                some = os.pwrite(samples, left, written)
                left, written = left[some:], written + some
        except OSError as error:
            raise _NoRoom(f"no room for the samples of {sound} ({error.strerror})") from None

    try:
        digest = read_into(sound, keep, max_seconds=max_seconds)
    except AudioError as error:
        return {"fault": error.code, "line": str(error)}
    except MemoryError:
        line = f"{sound}: decoding it takes more memory than is allowed; convert it to wav or flac"
        return {"fault": "too_large", "line": line}
    except Exception as error:
        for name, kind in ERRORS.items():
            if isinstance(error, kind):
                return {"error": name, "line": str(error)}
        what = " ".join(f"{type(error).__name__}: {error}".split())
        line = f"{sound}: the decoder failed ({what}); convert it to wav or flac"
        return {"fault": "crashed", "line": line}
    return {"samples": written // 4, "sha256": digest}


def _end_with_parent() -> None:
    """Wait in a thread: what the decoder does meanwhile holds no lock of Python's."""
    os.read(0, 1)
    os._exit(0)


def _private_memory() -> int:
    """Bytes that the kernel counts against the limit; 0 where it does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    except (OSError, IndexError):
        return 0


def _limit_memory(count: int) -> None:
    most = resource.getrlimit(resource.RLIMIT_DATA)[1]
    count = count if most == resource.RLIM_INFINITY else min(count, most)
    resource.setrlimit(resource.RLIMIT_DATA, (count, most))
