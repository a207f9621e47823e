"""Two readers of one corpus in one run: ours and fairseq2's data pipeline.

    .venv-fairseq2/bin/python benchmarks/readers.py [CORPUS] --threads 1 2

Without a corpus, recordings are made: half 16 kHz FLAC, half 44.1 kHz WAV in stereo. Both
readers give the same samples (that is checked); ours decodes in so many threads ahead of who asks,
as `spirit tokenize` does with one. Prints JSON: seconds of audio in a second by the clock and by
the CPU's own time (on a busy machine they differ), the best of `--rounds` each, in turn, and
fairseq2's speed as a multiple of ours.
"""

import argparse
import json
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import numpy as np
import soundfile

from spirit.audio import read_audio, resample
from spirit.data.corpus import Utterance, read_corpus
from spirit.data.fairseq2 import Wave, read_waves
from spirit.units import SAMPLE_RATE

SPEECH = Path(__file__).parents[1] / "tests/data/jfk.flac"
AHEAD = 16


def make(folder: Path, files: int, seconds: float) -> None:
    """Stretches of one recording of speech, said again and again."""
    rng = np.random.default_rng(0)
    mono = read_audio(SPEECH)
    stereo = np.stack([resample(mono, SAMPLE_RATE, 44_100)] * 2, axis=1)
    for number in range(files):
        sound, rate, suffix = ((mono, SAMPLE_RATE, "flac"), (stereo, 44_100, "wav"))[number % 2]
        length, start = int(rate * seconds * rng.uniform(0.5, 1.5)), rng.integers(len(sound))
        stretch = sound[np.arange(start, start + length) % len(sound)]
        soundfile.write(folder / f"{number:04d}.{suffix}", stretch, rate)


def ours(corpus: list[Utterance], threads: int) -> Iterator[Wave]:
    waiting: deque = deque()
    with ThreadPoolExecutor(threads) as pool:
        for utterance in corpus:
            waiting.append(pool.submit(read_audio, utterance.audio))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def theirs(corpus: list[Utterance], threads: int) -> Iterator[Wave]:
    for _, wave in read_waves(corpus, threads=threads, ahead=AHEAD):
        if isinstance(wave, Exception):
            raise wave
        yield wave


READERS: dict[str, Callable[[list[Utterance], int], Iterator[Wave]]] = {
    "ours": ours,
    "fairseq2": theirs,
}


def measure(
    read: Callable[[list[Utterance], int], Iterator[Wave]], corpus: list[Utterance], threads: int
) -> tuple[float, float, float]:
    """Seconds of audio, by the clock, and of the CPU."""
    clock, own, samples = time.perf_counter(), time.process_time(), 0
    for wave in read(corpus, threads):
        samples += len(wave)
    return samples / SAMPLE_RATE, time.perf_counter() - clock, time.process_time() - own


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of two readers of a corpus.")
    parser.add_argument("corpus", nargs="?", type=Path)
    parser.add_argument("--files", type=int, default=200, help="to make where no corpus is given")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each of them on average")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if args.corpus is None:
            make(Path(name), args.files, args.seconds)
        corpus = list(read_corpus(args.corpus or Path(name)))
        same = all(map(np.array_equal, ours(corpus, 1), theirs(corpus, 1)))
        table = []
        for threads in args.threads:
            taken: dict[str, list[tuple[float, float, float]]] = {name: [] for name in READERS}
            for _ in range(args.rounds):
                for reader, read in READERS.items():
                    taken[reader].append(measure(read, corpus, threads))
            speed = {}
            for reader, runs in taken.items():
                seconds, clock, own = (min(column) for column in zip(*runs, strict=True))
                speed[reader] = {"times": seconds / clock, "times_by_cpu": seconds / own}
            ratio = {key: speed["fairseq2"][key] / speed["ours"][key] for key in speed["ours"]}
            table.append({"threads": threads, **speed, "ratio": ratio})
    report = {
        "fairseq2": version("fairseq2"),
        "recordings": len(corpus),
        "hours": seconds / 3600,
        "same_samples": same,
        "readers": table,
    }
    rounded = json.loads(json.dumps(report), parse_float=lambda number: round(float(number), 2))
    print(json.dumps(rounded, indent=1))


if __name__ == "__main__":
    main()
