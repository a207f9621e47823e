"""Unit shards of utterances that nobody said, as many as a test wants, and who reads them."""

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Tokenizer
from torch import Tensor

from spirit.codec import Codec, HFText, byte_tokenizer
from spirit.data.parts import Row
from spirit.data.shards import write_shards
from spirit.units import SAMPLE_RATE, Kind, Track, Tracks, Word
from spirit.vocab import Vocab

COUNTS = {Kind.HUBERT: 50, Kind.PITCH: 16, Kind.STYLE: 4}
HOPS = {Kind.HUBERT: Fraction(640), Kind.PITCH: Fraction(1_280), Kind.STYLE: Fraction(16_000)}
KEEPS = {Kind.HUBERT: 0.3, Kind.PITCH: 0.4, Kind.STYLE: 0.0}
"""How often a unit is that of the frame before: about the shares in the release's golden units."""
WORDS_A_SECOND = 2.7


def byte_codec(folder: Path, *special: str) -> Codec:
    """Text in bytes, with `special` tokens besides, and units as many as `COUNTS` says."""
    path = folder / "text.json"
    byte_tokenizer(path)
    if special:
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.add_special_tokens([AddedToken(name, special=True) for name in special])
        tokenizer.save(str(path))
    text = HFText.load(path)
    return Codec(text, Vocab.build(text.size, text.bos, text.eos, COUNTS, special=text.special))


def take(rows: Iterator[Mapping[str, Tensor]], steps: int) -> list[dict[str, np.ndarray]]:
    """The next batches of a loader."""
    return [{name: tensor.numpy() for name, tensor in next(rows).items()} for _ in range(steps)]


def same(
    left: Sequence[Mapping[str, np.ndarray]], right: Sequence[Mapping[str, np.ndarray]]
) -> bool:
    """Whether batches are equal."""
    return all(
        np.array_equal(a[name], b[name]) for a, b in zip(left, right, strict=True) for name in a
    )


def utterance(name: str, seconds: float, rng: np.random.Generator, vocab: Vocab) -> Row:
    """Random units for so many seconds, and words of one to nine letters at a speaker's pace."""
    frames = max(2, int(seconds * 25))
    tracks = {}
    for kind in vocab.kinds:
        count = -(-frames * HOPS[Kind.HUBERT] // HOPS[kind])
        units = rng.integers(0, vocab.count[kind], count)
        kept = rng.random(count) < KEEPS[kind]
        kept[0] = False
        source = np.maximum.accumulate(np.where(kept, 0, np.arange(count)))
        tracks[kind] = Track(kind, units[source], HOPS[kind])
    samples = frames * 640
    count = max(1, round(samples / SAMPLE_RATE * WORDS_A_SECOND))
    cuts = np.sort(rng.integers(0, samples, count - 1)).tolist()
    letters = rng.integers(97, 123, (count, 9), np.uint8)
    lengths = rng.integers(1, 10, count).tolist()
    words = tuple(
        Word(bytes(letters[i, : lengths[i]]).decode(), start, stop)
        for i, (start, stop) in enumerate(pairwise([0, *cuts, samples]))
    )
    return Row(
        id=name,
        audio=f"{name}.flac",
        seconds=samples / SAMPLE_RATE,
        text=" ".join(word.text for word in words),
        words=words,
        speaker="nobody",
        language="en",
        style="",
        tracks=Tracks(tracks),
    )


def write_corpus(
    folder: Path,
    vocab: Vocab,
    count: int,
    *,
    seconds: tuple[float, float] = (5.0, 20.0),
    seed: int = 0,
    rows_per_part: int = 1_000,
) -> None:
    """Write shards of `count` utterances, their lengths uniform."""
    rng = np.random.default_rng(seed)
    rows = [utterance(f"u{n}", rng.uniform(*seconds), rng, vocab) for n in range(count)]
    write_shards(folder, rows, vocab, tokenizer="synthetic", rows_per_part=rows_per_part)
