"""What style tokens cost beside the pass of HuBERT and the F0 that they are pooled from.

    python benchmarks/style.py

One thread encodes noise in batches of four clips of 10 s. Prints JSON: seconds of the CPU's own
time for everything, the same without style, and for pooling and the classifier alone, the best of
`--rounds` each; and the last as a share of the first.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from spirit.speech.style import pool_features
from spirit.tokenizer import Tokenizer
from spirit.units import SAMPLE_RATE, Kind

CLIPS, SECONDS = 4, 10


def best(work: Callable[[], object], rounds: int) -> float:
    """Seconds of the CPU."""
    taken = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return min(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tokenizer", type=Path, default=Path("tokenizers/tiny"))
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    encoder = Tokenizer.load(asked.tokenizer).encoder
    style, pitch = encoder.style, encoder.pitch
    if style is None or pitch is None:
        raise SystemExit(f"{asked.tokenizer} makes no style tokens; give one that does")
    noise = np.random.default_rng(0).normal(0, 0.05, SECONDS * SAMPLE_RATE).astype(np.float32)
    waves = [noise] * CLIPS
    (features,) = encoder.hubert.features([noise])
    (f0,) = pitch.f0([torch.from_numpy(noise)])
    rate = SAMPLE_RATE // encoder.hubert.hop

    def style_alone() -> None:
        for _ in waves:
            style.tokens(pool_features(features, rate), f0)

    everything = best(lambda: encoder.encode_batch(waves), asked.rounds)
    without = best(lambda: encoder.encode_batch(waves, [Kind.HUBERT, Kind.PITCH]), asked.rounds)
    alone = best(style_alone, asked.rounds)
    told = {
        "everything": everything,
        "without_style": without,
        "style_alone": alone,
        "share": alone / everything,
    }
    print(json.dumps({name: round(seconds, 5) for name, seconds in told.items()}, indent=1))


if __name__ == "__main__":
    main()
