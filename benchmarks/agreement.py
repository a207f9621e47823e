"""How many units stay the same: in bf16, in a batch, and across the windows of long recordings.

    python benchmarks/agreement.py --clips 8

flite says sentences of the tiny recipe's grammar, voice after voice, joined to clips of 60 s.
Prints JSON, the shares of frames (of HuBERT units) and seconds (of style tokens) that agree:

bf16         the same clips in bf16 and in fp32
batched      random stretches of 1 to 20 s, all in one batch, and each alone, in either precision
windowed     60 s in windows, as everything over 40 s is heard, and heard at once
"""

import argparse
import json
import platform
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from spirit.speech.encoder import STRIDE, WINDOW, SpeechEncoder
from spirit.tokenizer import Tokenizer
from spirit.units import SAMPLE_RATE, Kind, Tracks

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes/tiny"))

import language
import voices

SECONDS = 60


def speech(clips: int, seed: int) -> list[np.ndarray]:
    """Clips of 60 s, by the voices in turn."""
    rng, made = random.Random(seed), []
    with tempfile.TemporaryDirectory() as scratch:
        voices.prepare(Path(scratch))
        for number in range(clips):
            voice, said = (
                list(voices.VOICES)[number % len(voices.VOICES)],
                [np.zeros(0, np.float32)],
            )
            while sum(map(len, said)) < SECONDS * SAMPLE_RATE:
                drawn = voices.draw_settings(voice, "neutral", True, rng)
                said.append(voices.speak(language.draw(rng), voice, drawn, Path(scratch))[0])
            made.append(np.concatenate(said)[: SECONDS * SAMPLE_RATE])
    return made


def stretches(clips: Sequence[np.ndarray], count: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    drawn = []
    for number in range(count):
        clip, length = clips[number % len(clips)], int(rng.integers(1, 20 * SAMPLE_RATE))
        start = int(rng.integers(len(clip) - length))
        drawn.append(clip[start : start + length])
    return drawn


def same(one: Sequence[Tracks], other: Sequence[Tracks], kind: Kind) -> float:
    pairs = zip(one, other, strict=True)
    equal = [a.by_kind[kind].unit == b.by_kind[kind].unit for a, b in pairs]
    return float(np.concatenate(equal).mean())


def at_once(encoder: SpeechEncoder, clip: np.ndarray) -> np.ndarray:
    return encoder.quantizer.units(encoder.hubert.features([clip])[0])


def measure(folder: Path, clips: int, seed: int, device: str) -> dict[str, Any]:
    sounds = speech(clips, seed)
    short = stretches(sounds, 8 * clips, seed)
    table: dict[str, Any] = {"bf16": {}, "batched": {}, "windowed": {}}
    heard = {}
    for dtype in ("fp32", "bf16"):
        encoder = Tokenizer.load(folder, device, bf16=dtype == "bf16").encoder
        heard[dtype] = [encoder.encode(sound) for sound in sounds]
        together = encoder.encode_batch(short)
        alone = [encoder.encode(sound) for sound in short]
        table["batched"][dtype] = same(together, alone, Kind.HUBERT)
        whole = [at_once(encoder, sound) for sound in sounds]
        units = [tracks.by_kind[Kind.HUBERT].unit for tracks in heard[dtype]]
        table["windowed"][dtype] = float(np.mean(np.array(units) == np.array(whole)))
    table["bf16"] = {kind.key: same(heard["fp32"], heard["bf16"], kind) for kind in encoder.counts}
    return {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "clips": clips,
        "window_and_stride_seconds": [WINDOW, STRIDE],
        **json.loads(json.dumps(table), parse_float=lambda share: round(float(share), 5)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tokenizer", type=Path, default=Path("tokenizers/tiny"))
    parser.add_argument("--clips", type=int, default=8, help="of 60 s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    try:
        voices.require()
        told = measure(asked.tokenizer, asked.clips, asked.seed, asked.device)
    except ValueError as error:
        sys.exit(f"benchmarks/agreement.py: {error}")
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
