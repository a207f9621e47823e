"""How fast recordings are decoded in a child process, against the same work in this one.

    python benchmarks/decode.py --seconds 12 --recordings 60

FLAC files of speech-like noise at 16, 24 and 48 kHz are read by `spirit.data.decoder.Decoder`
(checked, hashed, resampled to 16 kHz, within limits, transferred here) and by soundfile and soxr
called in one process, in turns. Prints JSON, by rate: how many seconds of sound in a second either
way, the best of 5, by the clock and by the time of all the CPUs that it took (child included), and
the ratios. The bar is a ratio of 0.8 by the clock.
"""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import soxr
from jaxtyping import Float

from spirit.audio import read_hashed
from spirit.data.decoder import Decoder
from spirit.units import SAMPLE_RATE

RATES = (16_000, 24_000, 48_000)
ROUNDS = 5


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


def cpu() -> float:
    """Seconds of CPU of this process and its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(some.ru_utime + some.ru_stime for some in used)


def compare(paths: list[Path], seconds: float) -> dict[str, float]:
    """Both ways in turns. A child's time counts when it has ended: its start is taken off."""
    clock: dict[str, list[float]] = {"child": [], "together": []}
    work: dict[str, list[float]] = {"child": [], "together": []}
    for _ in range(ROUNDS):
        begun = cpu()
        decoder = Decoder()
        decoder.start()
        decoder.close()
        start = cpu() - begun
        begun = cpu()
        decoder = Decoder()
        decoder.start()
        clock["child"].append(timed(decoder.read_hashed, paths))
        decoder.close()
        work["child"].append(cpu() - begun - start)
        begun = cpu()
        clock["together"].append(timed(together, paths))
        work["together"].append(cpu() - begun)
    in_process = min(timed(read_hashed, paths) for _ in range(ROUNDS))
    best = {name: min(times) for name, times in clock.items()}
    least = {name: min(times) for name, times in work.items()}
    return {
        "child": seconds / best["child"],
        "soundfile_and_soxr": seconds / best["together"],
        "ratio": best["together"] / best["child"],
        "ratio_of_cpu_time": least["together"] / least["child"],
        "ratio_checked_and_hashed_without_a_child": best["together"] / in_process,
    }


def timed(read: Callable[[Path], object], paths: list[Path]) -> float:
    began = time.perf_counter()
    for path in paths:
        read(path)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=12.0, help="of a recording")
    parser.add_argument("--recordings", type=int, default=60)
    options = parser.parse_args()
    print(json.dumps(measure(options.seconds, options.recordings), indent=2))


def measure(seconds: float, recordings: int) -> dict[str, object]:
    rng, report = np.random.default_rng(0), {}
    with tempfile.TemporaryDirectory() as name:
        for rate in RATES:
            paths = [Path(name, f"{rate}-{number}.flac") for number in range(recordings)]
            for path in paths:
                write(path, rate, seconds, rng)
            report[f"{rate} Hz"] = compare(paths, seconds * recordings)
    return report


if __name__ == "__main__":
    main()
