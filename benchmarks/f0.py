"""How well and how fast F0 extractors hear pitch that is known.

    python benchmarks/f0.py --seconds 120

Three kinds of sound, each with its F0 at every 5 ms: glides from anywhere to anywhere in 55 to
1,000 Hz, vibrato, and sentences of flite's voices that WORLD says again with a contour of ours
(extra `pitch`). Prints JSON, by extractor and kind: gross pitch errors (share of the frames voiced
in both that are more than 20 % off, in %), voicing decision errors (%), their sum over all frames
(FFE, Chu and Alwan 2009), the median distance of the right frames in cents, and seconds of sound in
a second of one thread: the best of 5, by the clock and by the CPU's own (on a busy machine they
differ), for batches of 16 clips of 10 s.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from spirit.speech.f0 import HOP, Autocorrelation, F0Extractor
from spirit.speech.f0_others import HEAR, OneByOne
from spirit.speech.fcpe import Fcpe
from spirit.units import SAMPLE_RATE

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes/tiny"))

import language
import voices

Sound = tuple[Float[np.ndarray, " samples"], Float[np.ndarray, " frames"]]
SECONDS = 4.0
"""Of a glide or a vibrato."""
GROSS = 0.2
"""A relative error that is no longer a matter of precision."""


def complex_tone(f0: Float[np.ndarray, " frames"], rng: np.random.Generator) -> Sound:
    """A harmonic sound that falls by 6 dB an octave behind one formant, with noise 30 dB below."""
    samples = (len(f0) - 1) * HOP
    hertz = np.interp(np.arange(samples) / HOP, np.arange(len(f0)), f0)
    phase = 2 * np.pi * np.cumsum(hertz) / SAMPLE_RATE
    formant, wave = rng.uniform(300, 900), np.zeros(samples)
    for number in range(1, int(7_500 / f0.min()) + 1):
        there = number * hertz
        level = 1 / number / (1 + ((there - formant) / 500) ** 2) + 0.1 / number
        wave += np.where(there < 7_500, level * np.sin(number * phase + rng.uniform(0, 6.3)), 0.0)
    wave += rng.standard_normal(samples) * np.sqrt(np.mean(wave**2)) * 10 ** (-30 / 20)
    return (0.3 * wave / np.abs(wave).max()).astype(np.float32), f0


def glides(seconds: float, rng: np.random.Generator) -> Iterator[Sound]:
    frames = round(SECONDS * SAMPLE_RATE / HOP) + 1
    for _ in range(round(seconds / SECONDS)):
        ends = rng.uniform(np.log(55), np.log(1_000), 2)
        yield complex_tone(np.exp(np.linspace(*ends, frames)), rng)


def vibrato(seconds: float, rng: np.random.Generator) -> Iterator[Sound]:
    frames = round(SECONDS * SAMPLE_RATE / HOP) + 1
    times = np.arange(frames) * HOP / SAMPLE_RATE
    for _ in range(round(seconds / SECONDS)):
        middle, depth = np.exp(rng.uniform(np.log(80), np.log(800))), rng.uniform(0.3, 1.5) / 12
        swing = np.sin(2 * np.pi * rng.uniform(4, 7) * times + rng.uniform(0, 6.3))
        yield complex_tone(middle * 2 ** (depth * swing), rng)


def speech(seconds: float, rng: np.random.Generator) -> Iterator[Sound]:
    """Sentences of flite, said again by WORLD (Morise et al. 2016) with a contour that is known."""
    import pyworld

    drawn = random.Random(int(rng.integers(1 << 32)))
    with tempfile.TemporaryDirectory() as scratch:
        voices.prepare(Path(scratch))
        number, left = 0, seconds
        while left > 0:
            voice = list(voices.VOICES)[number % len(voices.VOICES)]
            settings = voices.draw_settings(voice, "lively", True, drawn)
            wave, _ = voices.speak(language.draw(drawn), voice, settings, Path(scratch))
            sound = wave.astype(np.float64)
            rough, times = pyworld.harvest(sound, SAMPLE_RATE, frame_period=5.0)
            envelope = pyworld.cheaptrick(sound, rough, times, SAMPLE_RATE)
            breath = pyworld.d4c(sound, rough, times, SAMPLE_RATE)
            f0 = rough * (0.75, 1.0, 1.4)[number % 3]
            again = pyworld.synthesize(f0, envelope, breath, SAMPLE_RATE, 5.0)
            yield again[: (len(f0) - 1) * HOP].astype(np.float32), f0
            number, left = number + 1, left - len(wave) / SAMPLE_RATE


KINDS: dict[str, Callable[[float, np.random.Generator], Iterator[Sound]]] = {
    "glides": glides,
    "vibrato": vibrato,
    "speech": speech,
}


def errors(extractor: F0Extractor, sounds: list[Sound]) -> dict[str, float]:
    heard, truth = [], []
    for wave, f0 in sounds:
        found = extractor(torch.from_numpy(wave)).cpu().numpy()
        frames = min(len(found), len(f0))
        heard.append(found[:frames])
        truth.append(f0[:frames])
    mine, real = np.concatenate(heard), np.concatenate(truth)
    both = (mine > 0) & (real > 0)
    off = np.abs(mine[both] / real[both] - 1)
    unvoiced = (mine > 0) != (real > 0)
    cents = 1_200 * np.abs(np.log2(mine[both][off <= GROSS] / real[both][off <= GROSS]))
    return {
        "gpe": 100 * float((off > GROSS).mean()),
        "vde": 100 * float(unvoiced.mean()),
        "ffe": 100 * float((unvoiced.sum() + (off > GROSS).sum()) / len(real)),
        "cents": float(np.median(cents)),
    }


def speed(extractor: F0Extractor, sounds: list[Sound], clips: int) -> dict[str, float]:
    tape = np.concatenate([wave for wave, _ in sounds])
    size = 10 * SAMPLE_RATE
    tape = np.tile(tape, -(-clips * size // len(tape)))
    batch = [torch.from_numpy(tape[i * size : (i + 1) * size]) for i in range(clips)]
    extractor.batch(batch[:1])
    clock, own = [], []
    for _ in range(5):
        before = time.perf_counter(), time.process_time()
        extractor.batch(batch)
        clock.append(time.perf_counter() - before[0])
        own.append(time.process_time() - before[1])
    return {"times": 10 * clips / min(clock), "times_by_cpu": 10 * clips / min(own)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Errors and speed of F0 extractors.")
    parser.add_argument("--seconds", type=float, default=120.0, help="of each kind of sound")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    only = ["own", "fcpe", *HEAR]
    parser.add_argument("--only", nargs="*", choices=only, default=only)
    args = parser.parse_args()
    torch.set_num_threads(1)
    made = {
        kind: list(make(args.seconds, np.random.default_rng((args.seed, place))))
        for place, (kind, make) in enumerate(KINDS.items())
    }
    build: dict[str, Callable[[], F0Extractor]] = {
        "own": lambda: Autocorrelation(device=args.device),
        "fcpe": lambda: Fcpe(args.device),
    }
    table = {}
    for name in args.only:
        extractor = build[name]() if name in build else OneByOne(name)
        rows = {kind: errors(extractor, sounds) for kind, sounds in made.items()}
        # What takes one wave after the other needs no sixteen of them to be timed.
        clips = 16 if name == "own" else 2
        table[name] = {**rows, "speed": speed(extractor, made["speech"], clips)}
        print(name, "done", file=sys.stderr)
    rounded = json.loads(json.dumps(table), parse_float=lambda number: round(float(number), 2))
    print(json.dumps({"torch": torch.__version__, "seconds": args.seconds, **rounded}, indent=1))


if __name__ == "__main__":
    main()
