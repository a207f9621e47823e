"""How fast recordings are decoded in a child process, against the same work in this one.

    python benchmarks/decode.py --seconds 12 --recordings 60

FLAC files of speech-like noise at 16, 24 and 48 kHz are read by `spirit.data.decoder.Decoder`
(checked, hashed, resampled to 16 kHz, within limits, transferred here, the next one named as
`spirit tokenize` does) and by soundfile and soxr called in one process, in turns. Prints JSON, by
rate: how many seconds of sound in a second either way, by the clock, and the ratios, by the clock
and by CPU time (that of the child included), each from the best of the rounds. The bar is a ratio
of 0.8 by the clock. Without a child, what is left of the difference is checks, the hash, and a file
that Python reads.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path

import numpy as np
import soundfile
import soxr
from jaxtyping import Float

from spirit.audio import read_hashed
from spirit.data.decoder import Decoder
from spirit.units import SAMPLE_RATE

RATES = (16_000, 24_000, 48_000)


def write(path: Path, rate: int, seconds: float, rng: np.random.Generator) -> None:
    """Noise with the slope and the syllables of speech: FLAC needs about half of 16 bits for it."""
    white = rng.standard_normal(round(seconds * rate))
    spectrum = np.fft.rfft(white) / (1 + np.fft.rfftfreq(len(white), 1 / rate) / 500)
    wave = np.fft.irfft(spectrum, len(white))
    syllables = 0.05 + np.sin(2 * np.pi * 2 * np.arange(len(wave)) / rate) ** 2
    wave *= 0.3 * syllables / np.abs(wave).max()
    soundfile.write(path, wave, rate)


def together(path: Path) -> Float[np.ndarray, " samples"]:
    """What the bar is measured by: nothing checked, nothing hashed, no other process."""
    wave, rate = soundfile.read(path, dtype="float32")
    heard: np.ndarray = soxr.resample(wave, rate, SAMPLE_RATE) if rate != SAMPLE_RATE else wave
    return heard


def measured(
    read: Callable[[Path, Path | None], object], paths: list[Path], cpu: Callable[[], float]
) -> tuple[float, float]:
    """Seconds by the clock, and of CPU."""
    clock, work = time.perf_counter(), cpu()
    for path, then in zip_longest(paths, paths[1:]):
        read(path, then)
    return time.perf_counter() - clock, cpu() - work


def compare(paths: list[Path], seconds: float, rounds: int) -> dict[str, float]:
    """Every way in turns; the best of each."""
    decoder = Decoder()
    decoder.start()
    assert decoder._child is not None
    child = (~decoder._child.process.pid << 3) | 2  # what Linux calls its clock

    def both() -> float:
        return time.process_time() + time.clock_gettime(child)

    ways: dict[str, tuple[Callable[[Path, Path | None], object], Callable[[], float]]] = {
        "child": (lambda path, then: decoder.read_hashed(path, then=then), both),
        "here": (lambda path, _: read_hashed(path), time.process_time),
        "together": (lambda path, _: together(path), time.process_time),
    }
    times: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, (read, cpu) in ways.items():
            times[way].append(measured(read, paths, cpu))
    decoder.close()
    clock = {way: min(clock for clock, _ in each) for way, each in times.items()}
    work = {way: min(work for _, work in each) for way, each in times.items()}
    return {
        "child": seconds / clock["child"],
        "soundfile_and_soxr": seconds / clock["together"],
        "ratio": clock["together"] / clock["child"],
        "ratio_of_cpu_time": work["together"] / work["child"],
        "ratio_without_a_child": clock["together"] / clock["here"],
        "ratio_of_cpu_time_without_a_child": work["together"] / work["here"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=12.0, help="of a recording")
    parser.add_argument("--recordings", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5, help="of which the best counts")
    options = parser.parse_args()
    print(json.dumps(measure(options.seconds, options.recordings, options.rounds), indent=2))


def measure(seconds: float, recordings: int, rounds: int) -> dict[str, object]:
    rng, report = np.random.default_rng(0), {}
    with tempfile.TemporaryDirectory() as name:
        for rate in RATES:
            paths = [Path(name, f"{rate}-{number}.flac") for number in range(recordings)]
            for path in paths:
                write(path, rate, seconds, rng)
            report[f"{rate} Hz"] = compare(paths, seconds * recordings, rounds)
    return report


if __name__ == "__main__":
    main()
