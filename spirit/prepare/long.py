"""Recordings of hours, read a few minutes at a time: memory does not grow with their length."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from spirit.audio import MAX_SECONDS, AudioError
from spirit.sound import Sound
from spirit.speech.encoder import BEYOND, SECTION
from spirit.units import SAMPLE_RATE

Wave = Float[np.ndarray, " _"]

LONGEST = float(SECTION + BEYOND)
"""Seconds of the longest recording that is read whole."""


class Long:
    """A recording of more than `LONGEST` seconds, as sections for `encode_long`.

    A section is a stretch of the recording and holds the samples that reading all of it would give,
    within 2e-5 where they are resampled. Once it has been gone through, `samples` and `sha256` are
    those of the whole.
    """

    def __init__(
        self,
        audio: Path | Sound,
        read: Callable[[Path | Sound], tuple[Wave, str]],
        max_seconds: float = MAX_SECONDS,
    ) -> None:
        """`read` is `spirit.audio.read_hashed` or that of a `Decoder`, whose errors may come from
        any section."""
        self.sound, self._read, self.max_seconds = Sound.of(audio), read, max_seconds
        self.samples, self.sha256 = 0, ""

    def __iter__(self) -> Iterator[tuple[Wave, bool]]:
        if self._reaches(self.sound.start + int(self.max_seconds * SAMPLE_RATE)):
            raise AudioError(
                f"{self.sound}: longer than {self.max_seconds:g} seconds; cut it into shorter "
                "recordings",
                "too_long",
            )
        more = True
        while more:
            wave, more = self._section(self.sound.start + self.samples)
            self.samples += SECTION * SAMPLE_RATE if more else len(wave)
            yield wave, more

    def _reaches(self, sample: int) -> bool:
        """Whether there is sound at a sample, and thus up to there."""
        if self.sound.stop is not None:
            return self.sound.stop > sample
        try:
            return len(self._stretch(sample, sample + 1)) > 0
        except AudioError as error:
            if error.code != "beyond_end":
                raise
            return False

    def _section(self, start: int) -> tuple[Wave, bool]:
        """The section from a sample on, and whether it is not the last."""
        end, stop = self.sound.stop, start + (SECTION + BEYOND) * SAMPLE_RATE
        if end is None or stop < end:
            try:
                return self._stretch(start, stop), True
            except AudioError as error:
                if error.code != "beyond_end":
                    raise
        return self._stretch(start, end), False

    def _stretch(self, start: int, stop: int | None) -> Wave:
        stretch = replace(self.sound, start=start, stop=stop)
        try:
            wave, self.sha256 = self._read(stretch)
        except AudioError as error:  # is one of the recording
            line = str(error).removeprefix(f"{stretch}: ")
            raise AudioError(f"{self.sound}: {line}", error.code) from None
        return wave
