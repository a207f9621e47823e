"""How fast a corpus becomes units, against the networks alone.

    python benchmarks/tokenizing.py                 (--quick for a first impression)

A HuBERT of base size at 25 Hz with random weights hears clips of 2 to 20 s, in two processes of one
thread each. In every round each contender hears the same clips, one contender after the other:

transformers   HubertModel as it is: fp32, one clip at a time, all 12 layers
forward        our pass of the same weights up to layer 11, in batches of similar length
end_to_end     files to shards: decoding, that pass, k-means, pooled style, our F0, packing

What is loaded and warmed up before is not timed. Prints JSON: seconds of sound in a second, the
best of all rounds, and ratios, the median of those within a round; by the clock, and by the CPU's
own (on a busy machine they differ). `--batches` tries the seconds that are heard together.
"""

import argparse
import json
import math
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import transformers
from transformers import HubertConfig, HubertModel

from spirit import commit
from spirit.audio import read_audio
from spirit.data.corpus import Utterance
from spirit.data.parts import Note
from spirit.prepare.parts import THREADS, Job, PartMaker
from spirit.speech import encoder
from spirit.speech.pitch import PitchFormat, PitchTokenizer
from spirit.speech.pretrained import Pretrained
from spirit.speech.quantizer import KMeans
from spirit.speech.style import StyleFormat, StyleTokenizer
from spirit.tokenizer import assemble
from spirit.units import SAMPLE_RATE

ROOT = Path(__file__).parents[1]
LAYER = 11
"""Whose features become units in Spirit LM; the twelfth is not needed."""
SHAPE = {
    "conv_dim": (512,) * 8,
    "conv_kernel": (10, 3, 3, 3, 3, 2, 2, 2),
    "conv_stride": (5, 2, 2, 2, 2, 2, 2, 2),
    "num_feat_extract_layers": 8,
    "attn_implementation": "sdpa",
}
"""What HuBERT-base at 25 Hz has instead of the 50 Hz settings of transformers."""
SHORTEST, LONGEST = 2.0, 20.0
BATCH_SECONDS = 120.0
PROCESSES = 2


def network() -> HubertModel:
    torch.manual_seed(0)
    return HubertModel(HubertConfig(**SHAPE)).eval()


def write_tokenizer(folder: Path, speech: np.ndarray) -> Path:
    """A tokenizer of ours around that network: 500 units, our F0, pooled style."""
    work = folder / "parts"
    work.mkdir()
    hubert = Pretrained(network(), LAYER, padded=True)
    hubert.save(work)
    (features,) = hubert.features([speech[: 20 * SAMPLE_RATE]])
    KMeans(features.clone()).save(work / "units.safetensors")
    form = PitchFormat()
    PitchTokenizer(form, form.network(), form.hear("cpu")).save(work)
    style = StyleFormat(names=("calm", "lively", "sad"), channels=hubert.channels)
    StyleTokenizer(style, style.network()).save(work)
    home = folder / "tokenizer"
    assemble(hubert=work, units=work, pitch=work, style=work, out=home, name="base")
    return home


def write_corpus(folder: Path, seconds: float, speech: np.ndarray) -> list[list[Utterance]]:
    """FLAC clips of evenly spread lengths, dealt to the processes."""
    count = 2 * math.ceil(seconds / (SHORTEST + LONGEST) / PROCESSES) * PROCESSES
    lengths = np.linspace(LONGEST, SHORTEST, count)
    rng = np.random.default_rng(0)
    shares: list[list[Utterance]] = [[] for _ in range(PROCESSES)]
    for number, length in enumerate(lengths):
        path = folder / f"{number:03d}.flac"
        start = int(rng.integers(len(speech)))
        wave = np.roll(speech, -start)[: round(length * SAMPLE_RATE)]
        soundfile.write(path, np.resize(wave, round(length * SAMPLE_RATE)), SAMPLE_RATE)
        turn = number % (2 * PROCESSES)  # there and back, so that no share is the longer one
        share = shares[min(turn, 2 * PROCESSES - 1 - turn)]
        share.append(Utterance(id=path.stem, audio=path, seconds=float(length)))
    return shares


def contenders(home: Path, share: Sequence[Utterance], out: Path) -> dict[str, Callable[[], Any]]:
    """What is timed, loaded and ready."""
    theirs = network()
    makers = {
        dtype: PartMaker.load(home, share[0].audio.parent, "cpu", "expressive", dtype)
        for dtype in ("fp32", "bf16")
    }
    waves = [read_audio(utterance.audio) for utterance in share]

    @torch.inference_mode()
    def transformers_alone() -> None:
        for wave in waves:
            theirs(torch.from_numpy(wave)[None])

    def forward(dtype: str) -> None:
        hubert = makers[dtype].tokenizer.encoder.hubert
        for batch in _batches(waves):
            encoder.hear(hubert, batch, lambda features: features[0, 0])

    def end_to_end(dtype: str) -> None:
        note = Note(vocabulary="", tokenizer="", dtype=dtype, batch_seconds=BATCH_SECONDS)
        for progress in makers[dtype](Job(0, note, tuple(share))):
            if progress.content is not None:
                with commit.file(out / f"{dtype}-{os.getpid()}.parquet") as path:
                    path.write_bytes(progress.content)

    table: dict[str, Callable[[], Any]] = {"transformers_fp32": transformers_alone}
    for dtype in makers:
        table[f"forward_{dtype}"] = lambda dtype=dtype: forward(dtype)
        table[f"end_to_end_{dtype}"] = lambda dtype=dtype: end_to_end(dtype)
    return table


def _batches(waves: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    """The waves as a part is encoded, the longest first."""
    batches: list[list[np.ndarray]] = [[]]
    for wave in sorted(waves, key=len, reverse=True):
        full = len(batches[-1]) + 1 > BATCH_SECONDS * SAMPLE_RATE / len([*batches[-1], wave][0])
        if batches[-1] and full:
            batches.append([])
        batches[-1].append(wave)
    return batches


def work(
    home: Path,
    share: Sequence[Utterance],
    out: Path,
    rounds: int,
    batches: Sequence[float],
    start: Barrier,
    answers: Any,
) -> None:
    """One of the processes; all of them begin and end each run together."""
    torch.set_num_threads(THREADS)
    ready = contenders(home, share, out)
    runs = [(name, encoder.BATCH_SECONDS, run) for name, run in ready.items()]
    runs += [
        (f"{name}, {seconds:g} s together", seconds, run)
        for name, run in ready.items()
        for seconds in batches
        if name.startswith("forward")
    ]
    table: dict[str, list[tuple[float, float]]] = {name: [] for name, *_ in runs}
    for number in range(rounds + 1):
        for name, seconds, run in runs:
            encoder.BATCH_SECONDS = seconds
            start.wait()
            began, worked = time.perf_counter(), time.process_time()
            run()
            worked = time.process_time() - worked
            start.wait()
            if number:  # the first round warms up
                table[name].append((time.perf_counter() - began, worked))
        print(f"round {number} of {rounds}", file=sys.stderr)
    answers.put(table)


def measure(seconds: float, rounds: int, batches: Sequence[float]) -> dict[str, Any]:
    speech = read_audio(ROOT / "tests" / "data" / "jfk.flac")
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        home = write_tokenizer(folder, np.resize(speech, 20 * SAMPLE_RATE))
        shares = write_corpus(folder, seconds, np.resize(speech, 20 * SAMPLE_RATE))
        start, answers = context.Barrier(PROCESSES), context.Queue()
        told = (folder, rounds, batches, start, answers)
        children = [context.Process(target=work, args=(home, share, *told)) for share in shares]
        for child in children:
            child.start()
        tables = [answers.get() for _ in children]
        for child in children:
            child.join()
    sound = sum(float(u.seconds or 0) for share in shares for u in share)
    clock, own = (
        {name: join([np.array(each[name])[:, k] for each in tables], 0) for name in tables[0]}
        for k, join in enumerate((np.max, np.mean))
    )
    return {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "processes": PROCESSES,
        "clips": sum(map(len, shares)),
        "seconds_of_audio": sound,
        "rounds": rounds,
        "by_the_clock": figures(clock, sound),
        "by_the_cpu": figures(own, sound),
    }


def figures(table: dict[str, np.ndarray], sound: float) -> dict[str, Any]:
    """Speeds, and ratios within the rounds."""

    def ratio(slow: str, fast: str) -> float:
        return float(np.median(table[slow] / table[fast]))

    return {
        "x_real_time": {name: sound / float(took.min()) for name, took in table.items()},
        "forward_against_transformers": {
            dtype: ratio("transformers_fp32", f"forward_{dtype}") for dtype in ("fp32", "bf16")
        },
        "end_to_end_against_forward": {
            dtype: ratio(f"forward_{dtype}", f"end_to_end_{dtype}") for dtype in ("fp32", "bf16")
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=480.0, help="of sound in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=float, nargs="*", default=[], metavar="SECONDS")
    parser.add_argument("--quick", action="store_true", help="60 s of sound, two rounds")
    asked = parser.parse_args()
    seconds, rounds = (60.0, 2) if asked.quick else (asked.seconds, asked.rounds)
    told = measure(seconds, rounds, asked.batches)
    print(
        json.dumps(json.loads(json.dumps(told), parse_float=lambda x: round(float(x), 3)), indent=1)
    )


if __name__ == "__main__":
    main()
