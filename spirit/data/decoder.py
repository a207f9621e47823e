"""Foreign recordings, decoded in a child process that may die of them, hang, or ask for too much.

The samples come back through a file in memory, everything else as JSON: nothing that the child says
is run.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
from jaxtyping import Float

from spirit.audio import read_hashed
from spirit.data.children import deaf
from spirit.data.decoder_child import ERRORS, READY
from spirit.decoding import MAX_SECONDS, AudioError
from spirit.sound import Sound

PROGRAM = "from spirit.data.decoder_child import serve; serve(**json.loads(sys.argv[1]))"
"""What the child runs, once it looks for modules where we do."""
STARTING = 300.0
"""Seconds that the imports of the child may take, on a machine that does a lot besides."""
KEPT = 64 << 20
"""Bytes of shared memory that are not given back between two recordings."""
HEAP = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 20),
    "MALLOC_TOP_PAD_": str(1 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(4 << 20),
}
"""What lets the child keep the memory of a block of sound for the next one, where its C library is
GNU's: to have the kernel take it back and clear it takes a twentieth of the time of FLAC."""
Asked = tuple[Sound, float]
"""What to read, and how many seconds of sound are too many."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What decoding one recording may take before it is refused."""

    memory: int = 1 << 30
    """Bytes of the child's own, on Linux; the samples (64 kB a second) come on top, and for rows of
    Parquet two row groups of the largest size that is read."""
    patience: float = 300.0
    """Seconds by the clock. Six hours of Opus take a tenth of it."""
    max_seconds: float = MAX_SECONDS
    """Of sound."""


LIMITS = Limits()
_FATAL = ("too_large", "timed_out", "crashed")


class Decoder:
    """Reads recordings one after the other, in a child that is started when it is needed, and again
    whenever it has died. `limits=None`: in this process, for recordings that are trusted."""

    def __init__(self, limits: Limits | None = LIMITS) -> None:
        self.limits = limits
        self._child: _Child | None = None
        self._reading = Lock()
        self._closed = False

    @property
    def max_seconds(self) -> float:
        """Of the longest recording that is read."""
        return MAX_SECONDS if self.limits is None else self.limits.max_seconds

    def read_hashed(
        self,
        audio: Path | Sound,
        max_seconds: float | None = None,
        then: Path | Sound | None = None,
    ) -> tuple[Float[np.ndarray, " samples"], str]:
        """As `spirit.audio.read_hashed`, within the limits; `max_seconds` may be less than theirs.

        `then` is what is likely to be read next, as this is: the child begins with it while what it
        has read is taken over here, and its faults show when it is read. An `AudioError` may also
        be `too_large`, `timed_out` or `crashed`; the first and the last do not hang on what was
        read before. Raises `ChildProcessError` where no child will start.
        """
        sound = Sound.of(audio)
        most = self.max_seconds if max_seconds is None else min(max_seconds, self.max_seconds)
        if self.limits is None or _is_here(sound):
            return read_hashed(sound, max_seconds=most)
        later = None if then is None else Sound.of(then)
        ahead = None if later is None or _is_here(later) else (later, most)
        with self._reading:
            while True:
                child = self._started(self.limits)
                if not child.is_free_for((sound, most)):
                    self._end()
                    continue
                fresh = child.fresh
                try:
                    return child.read((sound, most), ahead)
                except AudioError as error:
                    if error.code not in _FATAL:
                        raise
                    self._end()
                    if fresh or self._closed or error.code == "timed_out":
                        raise

    def start(self) -> None:
        """Start the child ahead of the first recording. Raises `ChildProcessError`."""
        with self._reading:
            if self.limits is not None:
                self._started(self.limits)

    def close(self) -> None:
        """End the child, even in the midst of a recording; nothing can be read any more."""
        self._closed = True
        if child := self._child:
            child.process.kill()
        with self._reading:
            self._end()

    def _started(self, limits: Limits) -> "_Child":
        if self._child is None:
            if self._closed:
                raise ChildProcessError("no recordings are decoded any more")
            self._child = _Child(limits)
            if self._closed:  # by another thread, just now
                self._child.process.kill()
            if not self._child.is_ready():
                code = self._child.process.wait()
                self._end()
                raise ChildProcessError(
                    f"the process that decodes recordings did not start (exit code {code}); run "
                    "the same command again to go on"
                )
        return self._child

    def _end(self) -> None:
        if self._child is not None:
            self._child.end()
        self._child = None


class _Child:
    """A child, as its parent sees it."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.fresh = True
        self._ahead: Asked | None = None
        """What it has been asked already, without being asked for the answer."""
        self._samples = (_memory_file(), _memory_file())
        """For the sound of what it is asked by turns: it fills one while the other is read here."""
        self._turn = 0
        ours, theirs = socket.socketpair()
        self._socket, self._lines = ours, ours.makefile("rwb")
        given = {"answers": theirs.fileno(), "memory": limits.memory}
        boot = f"import json, sys; sys.path[:] = json.loads(sys.argv[2]); {PROGRAM}"
        with theirs, deaf():
            self.process = subprocess.Popen(
                [sys.executable, "-c", boot, json.dumps(given), json.dumps(sys.path)],
                # Nobody writes there: it ends when this process does, however that happens.
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), *self._samples),
                env={**os.environ, **HEAP, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )

    def is_ready(self) -> bool:
        """Wait for its imports; after `False` it is dead."""
        with suppress(OSError):
            self._socket.settimeout(STARTING)
            if self._lines.readline() == READY:
                self._socket.settimeout(self.limits.patience)
                return True
        self.process.kill()
        return False

    def is_free_for(self, asked: Asked) -> bool:
        """Wait until it has done what it was asked ahead, unless that is `asked`; it may die of it,
        and is of no use then."""
        if self._ahead not in (None, asked):
            with suppress(OSError):
                if self._lines.readline(1 << 20).endswith(b"\n"):
                    self._ahead = None
        return self._ahead in (None, asked)

    def read(self, asked: Asked, then: Asked | None) -> tuple[Float[np.ndarray, " samples"], str]:
        """What it reads, before it goes on to `then`; raises the errors that it has met, or that it
        is."""
        self.fresh = False
        sound = asked[0]
        try:
            if self._ahead is None:
                self._ask(asked)
            samples = self._samples[self._turn ^ 1]
            self._ahead = then
            if then is not None:
                self._ask(then)
            self._lines.flush()
            answer = json.loads(self._lines.readline(1 << 20))
        except TimeoutError:
            raise AudioError(
                f"{sound}: not decoded after {self.limits.patience:g} seconds; convert it to wav "
                "or flac",
                "timed_out",
            ) from None
        except (OSError, ValueError):
            raise self._crashed(sound) from None
        if "fault" in answer:
            raise AudioError(answer["line"], answer["fault"])
        if "error" in answer:
            raise ERRORS[answer["error"]](answer["line"])
        return self._fetch(sound, samples, answer["samples"]), answer["sha256"]

    def _ask(self, asked: Asked) -> None:
        sound, most = asked
        told = {**vars(sound), "max_seconds": most, "samples": self._samples[self._turn]}
        self._lines.write(json.dumps(told).encode() + b"\n")
        self._turn ^= 1

    def _fetch(self, sound: Sound, samples: int, count: int) -> Float[np.ndarray, " samples"]:
        if os.fstat(samples).st_size < 4 * count:
            raise self._crashed(sound)
        wave = np.empty(count, np.float32)
        left = wave.data.cast("B")
        while left and (got := os.preadv(samples, [left], wave.nbytes - len(left))):
            left = left[got:]
        if left:
            raise self._crashed(sound)
        if wave.nbytes > KEPT:
            os.truncate(samples, 0)
        return wave

    def _crashed(self, sound: Sound) -> AudioError:
        self.process.kill()
        code = self.process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return AudioError(
            f"{sound}: the decoder died of it ({how}); convert it to wav or flac", "crashed"
        )

    def end(self) -> None:
        """Kill it, whatever it does."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()
        with suppress(OSError):  # what it never read
            self._lines.close()
        self._socket.close()
        for samples in self._samples:
            os.close(samples)


def _is_here(sound: Sound) -> bool:
    """What fsspec calls memory is that of this process alone."""
    return sound.uri.startswith("memory://")


def _memory_file() -> int:
    """A file that lies on no disk, where there is such a thing."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("samples")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
