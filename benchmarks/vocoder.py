"""How fast vocoders speak, how soon an answer is heard, and what a shorter look-ahead changes.

    python benchmarks/vocoder.py                 # two threads by the clock, a few minutes
    python benchmarks/vocoder.py --only speed    # or first, look_ahead
    python benchmarks/vocoder.py --cpu           # one thread by its CPU time: on a busy machine

- `speed`: the bundled voice, a HiFi-GAN of the released size, the network of
  `recipes/vocoder/fast.toml`, which ends in short-time spectra, and a HiFi-GAN of that one's widths
  and blocks, which goes on to samples (the last three with random weights): times real time of
  `Vocoder.synthesize`, beside the same network as it is trained (`Generator.forward`, weight norm
  folded) in the same round, and the time that a chunk of 0.4 s takes in a stream. The bars are 20
  times real time and 40 ms for the released size, 60 times for the bundle, and for spectra 3 times
  the speed of samples.
- `first`: the bundle hears 5 s of speech and goes on in speech: seconds from the end of the prompt
  to the first sound, and how much faster than real time the rest comes. The bar is 0.4 s.
- `look_ahead`: streams that look ahead less than their reach against the whole: largest difference
  of a sample as a share of the peak, and the distance of log spectra (mean over three resolutions,
  in dB).

Prints JSON; the best of the rounds counts, for chunks and first sounds also the median.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from spirit import config
from spirit.audio import read_audio
from spirit.pipeline import Spirit, find
from spirit.units import SAMPLE_RATE, Kind, Units
from spirit.vocoder import Vocoder
from spirit.vocoder.flow import Flow
from spirit.vocoder.losses import SpectralLoss
from spirit.vocoder.recipe import NetworkConfig, VocoderRecipe, parts
from spirit.vocoder.source import excite, noise
from spirit.vocoder.voice import Voice, fold

ROOT = Path(__file__).parents[1]
CHUNK = 10
"""Frames of a chunk: 0.4 s."""
LEAST = 1.0
"""Seconds of speech in an answer that counts: in a shorter one everything comes at its end."""

clock: Callable[[], float] = time.perf_counter


def voices() -> dict[str, Vocoder]:
    """What is measured; those without weights are as loud as speech."""
    fast = config.load(ROOT / "recipes/vocoder/fast.toml", VocoderRecipe).network
    return {
        "bundle": Vocoder.load(find("bundled") / "vocoder"),
        "released size": untrained(NetworkConfig()),
        "fast": untrained(fast),
        "fast to samples": untrained(to_samples(fast)),
    }


def to_samples(network: NetworkConfig) -> NetworkConfig:
    """A HiFi-GAN with the same slow stages; what was one spectrum are three more stages, each half
    as wide as the one before."""
    narrow = network.channels[-1]
    assert network.hop == 4 * 4 * 4
    assert network.right is not None
    return replace(
        network,
        head="wave",
        hop=1,
        n_fft=4,
        source=False,
        channels=(*network.channels, narrow // 2, narrow // 4, narrow // 8),
        rates=(*network.rates, 4, 4, 4),
        kernels=(*network.kernels, 8, 8, 8),
        right=(*network.right, 0, 0, 0),
    )


def untrained(network: NetworkConfig) -> Vocoder:
    torch.manual_seed(0)
    alphabet = {"unit": 501, "pitch": 64, "style": 100}
    voice = Voice(**parts(network, alphabet, 4))
    fold(voice)
    absent = {name: alphabet[name] for name in ("pitch", "style")}
    return Vocoder(voice, ["a", "b", "c", "d"], alphabet, absent=absent)


def stream_of(voice: Vocoder, runs: int) -> Units:
    """Units as a model writes them: two of three have a pitch behind them."""
    rng = np.random.default_rng(0)
    tops = [voice.alphabet[name] for name in ("style", "pitch", "unit")]
    pairs = [(Kind.STYLE, 1), (Kind.PITCH, 1)]
    for _ in range(runs):
        pairs.append((Kind.HUBERT, int(rng.integers(tops[2]))))
        if rng.random() < 0.6:
            pairs.append((Kind.PITCH, int(rng.integers(tops[1]))))
        if rng.random() < 0.06:
            pairs.append((Kind.STYLE, int(rng.integers(tops[0]))))
    return Units.build(pairs)


def timed(work: Callable[[], Any]) -> float:
    begun = clock()
    work()
    return clock() - begun


@torch.inference_mode()
def speed(voice: Vocoder, rounds: int, seconds: float) -> dict[str, float]:
    """Whole and streamed, in turns with the network as it is trained."""
    frames = round(seconds * SAMPLE_RATE / voice.voice.generator.frame)
    rng = np.random.default_rng(0)
    tracks = voice.predict_tracks(stream_of(voice, 4 * frames), 0).clip(0, frames * 640)
    ids = {
        name: torch.from_numpy(rng.integers(0, rows.num_embeddings, (1, frames)))
        for name, rows in voice.voice.generator.embed.items()
    }
    whole, plain, chunks = [], [], []
    for _ in range(rounds):
        whole.append(timed(lambda: voice.synthesize(tracks, 0)))
        plain.append(timed(lambda: trained(voice, ids)))
        flow, vectors = Flow(voice.kernels()), voice.voice.generator.join(ids)
        for first in range(0, frames - CHUNK + 1, CHUNK):
            piece, before = vectors[:, first : first + CHUNK], flow.said
            taken = timed(lambda piece=piece, flow=flow: chunk(flow, piece))
            if flow.said - before == CHUNK * flow.frame:  # the first ones wait for what follows
                chunks.append(taken)
    return {
        "times_real_time": seconds / min(whole),
        "as_trained_times_real_time": seconds / min(plain),
        "chunk_ms_best": 1_000 * min(chunks),
        "chunk_ms_median": 1_000 * median(chunks),
        "parameters_million": sum(p.numel() for p in voice.voice.generator.parameters()) / 1e6,
        "reach_ahead_seconds": voice.voice.reach()[1] / SAMPLE_RATE,
    }


def chunk(flow: Flow, piece: torch.Tensor) -> None:
    flow.feed(piece)
    flow.read(flow.ready())


def trained(voice: Vocoder, ids: dict[str, torch.Tensor]) -> torch.Tensor:
    """One pass of the network over all frames."""
    generator, real = voice.voice.generator, torch.ones_like(ids["unit"], dtype=torch.bool)
    if voice.voice.contour is None:
        return generator(ids, None, real)
    log_f0, voiced = voice.voice.contour(generator.join(ids), real)
    pulses, _ = excite(log_f0.exp(), voiced.sigmoid(), voice.voice.hop)
    return generator(ids, torch.stack([pulses, noise(pulses.shape[1])[None]], 1), real)


def first_sound(rounds: int, look_ahead: float | None) -> dict[str, float]:
    """The bundle's answer to 5 s of speech."""
    spirit = Spirit.load("bundled", device="cpu")
    wave = np.resize(read_audio(ROOT / "demo" / "prompt.flac"), 5 * SAMPLE_RATE)
    firsts, hearing, paces, number = [], [], [], 0
    while len(firsts) <= rounds:
        begun = clock()
        heard = spirit.hear(wave)
        heard_in = clock() - begun
        sound, first = 0, 0.0
        settings: dict[str, Any] = {"seed": number, "max_seconds": 6.0, "look_ahead": look_ahead}
        number += 1
        for piece in spirit.stream([heard], "speech", **settings):
            if isinstance(piece, np.ndarray):
                first = first or clock() - begun
                sound += len(piece)
        if sound >= LEAST * SAMPLE_RATE:
            firsts.append(first)
            hearing.append(heard_in)
            paces.append(sound / SAMPLE_RATE / (clock() - begun - first))
    return {  # the first answer warms up
        "first_sound_seconds_best": min(firsts[1:]),
        "first_sound_seconds_median": median(firsts[1:]),
        "of_which_hearing_seconds": min(hearing[1:]),
        "then_times_real_time_median": median(paces[1:]),
    }


def look_ahead(voice: Vocoder, shares: list[float]) -> dict[str, dict[str, float]]:
    """How far streams with a shorter look-ahead are from the whole."""
    units = stream_of(voice, 200)
    whole, spectral = voice.speak(units, 0), SpectralLoss((1024, 512, 256))
    reach, table = voice.voice.reach()[1] / SAMPLE_RATE, {}
    for share in shares:
        stream = voice.stream(0, look_ahead=share * reach, chunk=0.2)
        pieces = [stream.push(units[i : i + 1]) for i in range(len(units))]
        made = np.concatenate([*pieces, stream.finish()])
        distances = []
        for size in spectral.sizes:
            logs = [
                20 * torch.log10(spectral.magnitude(torch.from_numpy(w)[None], size) + 1e-3)
                for w in (made, whole)
            ]
            distances.append(float((logs[0] - logs[1]).abs().mean()))
        table[f"{1_000 * share * reach:.0f} ms"] = {
            "largest_difference": float(np.abs(made - whole).max() / np.abs(whole).max()),
            "log_spectra_db": sum(distances) / len(distances),
        }
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="of which the best counts")
    parser.add_argument("--seconds", type=float, default=8.0, help="of sound in a round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=["speed", "first", "look_ahead"])
    parser.add_argument("--cpu", action="store_true", help="CPU time of one thread")
    options = parser.parse_args()
    torch.set_num_threads(1 if options.cpu else options.threads)
    if options.cpu:
        global clock
        clock = time.process_time
    report: dict[str, Any] = {}
    if options.only in (None, "speed"):
        made = voices().items()
        table = {n: speed(v, options.rounds, options.seconds) for n, v in made}
        report["speed"] = table
        rates = [table[name]["times_real_time"] for name in ("fast", "fast to samples")]
        report["spectra_against_samples"] = rates[0] / rates[1]
    if options.only in (None, "first"):
        report["first"] = {
            "full look-ahead": first_sound(options.rounds, None),
            "look-ahead 0.05 s": first_sound(options.rounds, 0.05),
        }
    if options.only in (None, "look_ahead"):
        named = voices()
        shares = [0.0, 0.125, 0.25, 0.5, 0.75, 1.0]
        report["look_ahead"] = {
            name: look_ahead(named[name], shares) for name in ("bundle", "released size")
        }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
