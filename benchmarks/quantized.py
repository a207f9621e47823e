"""What quantized weights cost: likelihood and word errors in fp32, bf16, int8 and int4.

    python benchmarks/quantized.py --model checkpoints/tiny --clips 60    (five minutes at most)

Sentences that nobody was trained on are said by flite in the voices of the recipe
(`recipes/tiny/corpus.py`, its held-out settings), or taken from --data, a manifest of recordings
with transcripts. Measured is, of the same language model in each precision, the mean log
probability of a token, in nats, of text (the transcripts alone) and of speech (the units alone,
pitch and style among them), and the rate of word errors of `--task transcribe`. What is heard is
the same for all of them. Behind each figure stands its difference from fp32 and the 95 % interval
of that, by paired bootstrap over utterances. Prints a table in Markdown.
"""

import argparse
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from spirit.audio import read_audio
from spirit.codec import Document, Segment
from spirit.data.corpus import Utterance, read_corpus
from spirit.eval.figures import (
    Figure,
    Ratio,
    WordErrors,
    rate,
    rate_difference,
    word_error_difference,
    word_error_rate,
    word_errors,
)
from spirit.eval.listen import normalize
from spirit.lm.score import score
from spirit.lm.weights import PRECISIONS, Packed, Precision
from spirit.pipeline import Spirit
from spirit.units import Units

ROOT = Path(__file__).parents[1]
SEED = 1
"""Of the sentences; those of `spirit eval tiny` are drawn with 0."""


@dataclass(frozen=True)
class Found:
    """What one precision came to, utterance by utterance."""

    megabytes: float
    """Of the language model's weights in memory."""
    text: list[Ratio]
    """The sum of log probabilities, and how many tokens."""
    speech: list[Ratio]
    words: list[WordErrors]


def measure(spirit: Spirit, clips: Sequence[Utterance], heard: Sequence[Units]) -> Found:
    """Figures of a model on utterances and the units that were heard in them."""
    words = []
    for clip, units in zip(clips, heard, strict=True):
        seed = zlib.crc32(clip.id.encode())
        answer = spirit.generate([units], task="transcribe", seed=seed)
        said = " ".join(segment for segment in answer if isinstance(segment, str))
        words.append(word_errors(normalize(clip.text), normalize(said)))
    text, speech = told(spirit, [clip.text for clip in clips]), told(spirit, heard)
    return Found(megabytes(spirit), text, speech, words)


def told(spirit: Spirit, segments: Sequence[Segment]) -> list[Ratio]:
    """The log probabilities of each segment's own tokens, summed, and how many these are."""
    codec = spirit.tokenizer.codec
    rows = [codec.encode(Document((segment,))) for segment in segments]
    markers = [codec.vocab.bos, codec.vocab.eos, *codec.vocab.markers.values()]
    found = []
    for row, values in zip(rows, score(spirit.model, rows), strict=True):
        own = values[~np.isin(row[1:], markers)]
        found.append((float(own.sum()), float(len(own))))
    return found


def megabytes(spirit: Spirit) -> float:
    """What the weights take in memory, each counted once; what oneDNN laid out, too."""
    modules = list(spirit.model.modules())
    tensors = {id(t): t for t in (*spirit.model.parameters(), *spirit.model.buffers())}
    tensors |= {id(m.weight): m.weight for m in modules if isinstance(m, Packed)}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) / 1e6


def table(found: dict[Precision, Found]) -> str:
    """Markdown, one line a precision; the first is what others are compared with."""
    base = next(iter(found.values()))
    lines = [
        "| weights | MB | text, nats a token | speech, nats a token | word errors |",
        "|---|---|---|---|---|",
    ]
    for name, own in found.items():
        cells = [name, f"{own.megabytes:.1f}"]
        for ours, theirs in ((own.text, base.text), (own.speech, base.speech)):
            cells.append(f"{rate(ours).value:.4f}")
            if own is not base:
                cells[-1] += " " + _change(rate_difference(ours, theirs), 1, 4, "")
        errors = word_error_rate(own.words)
        cells.append(errors.percent())
        if own is not base:
            difference = word_error_difference(own.words, base.words)
            cells[-1] = f"{100 * errors.value:.1f} % " + _change(difference, 100, 1, " points")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _change(figure: Figure, factor: float, digits: int, unit: str) -> str:
    value, low, high = (
        f"{factor * number + 0.0:+.{digits}f}" for number in (figure.value, figure.low, figure.high)
    )
    return f"({value}{unit}; {low} to {high})"


def synthesize(count: int, out: Path) -> list[Utterance]:
    """Held-out sentences of the recipe's language in its voices."""
    none = dict.fromkeys(("sentences", "prompts", "quiet", "texts", "written"), 0)
    counts = {"heldout": count, **none, "seed": SEED}
    asked = [word for name, value in counts.items() for word in (f"--{name}", str(value))]
    script = ROOT / "recipes" / "tiny" / "corpus.py"
    subprocess.run([sys.executable, script, "--out", out, *asked], check=True, stdout=sys.stderr)
    return list(read_corpus(out / "heldout.jsonl"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default=str(ROOT / "checkpoints" / "tiny"))
    parser.add_argument("--data", type=Path, help="recordings with transcripts, in place of flite")
    parser.add_argument("--clips", type=int, default=60)
    precisions = [name for name in PRECISIONS if name != "auto"]
    parser.add_argument("--dtypes", nargs="+", choices=precisions, default=precisions)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if asked.data is None:
            clips = synthesize(asked.clips, Path(scratch) / "corpus")
        else:
            clips = list(islice((c for c in read_corpus(asked.data) if c.text), asked.clips))
        heard: list[Units] = []
        found: dict[Precision, Found] = {}
        for dtype in asked.dtypes:
            spirit = Spirit.load(asked.model, asked.device, dtype)
            heard = heard or [spirit.hear(read_audio(clip.audio)) for clip in clips]
            found[dtype] = measure(spirit, clips, heard)
            print(f"{dtype}: done", file=sys.stderr)
    sums = [sum(tokens for _, tokens in side) for side in (found[dtype].text, found[dtype].speech)]
    print(table(found))
    print(
        f"\n{len(clips)} utterances, {sum(w.words for w in found[dtype].words)} words, "
        f"{sums[0]:.0f} tokens of text and {sums[1]:.0f} of speech; torch {torch.__version__}"
    )


if __name__ == "__main__":
    main()
