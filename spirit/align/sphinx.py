"""English words in sound, offline: forced alignment by pocketsphinx with the models inside it."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from spirit.align.aligner import Unaligned, Wave
from spirit.align.pronounce import pronounce
from spirit.units import SAMPLE_RATE, Word

LONGEST = 1_200
"""Seconds of the longest recording: each second takes longer, the more words there are to find (75
times real time for 2.5 s, 45 for 180 s)."""
FRAME = SAMPLE_RATE // 100
BEAM = 1e-48
"""Of states, phones and words alike; with the decoder's own beams right words are lost."""
SCALE = 4.0
"""Nats a frame, below the best sound of the moment, at which a score falls to 1/e. The words of 39
right transcripts had 1.1 on average (95 of 100: below 2.4), words put in the place of others 5.6
(95 of 100: above 2.4)."""
_SHIFT = 1 << 10
"""The decoder's acoustic scores are scaled down by this (SENSCR_SHIFT in its sources)."""
_FILLERS = tuple("<[(+")


class Pocketsphinx:
    """Aligns English with pocketsphinx 5: optional silence between words, every pronunciation
    that its dictionary lists, and letters read by rule where it lists none.

    The score of a word is `exp(-n / SCALE)`, `n` the nats a frame by which its sounds are less
    likely than the best ones that were tried at the time: 0.75 on average for words that are
    there, 0.25 for others.

    Times are those of the first pass over words. The second pass over phones in version 5.1.1
    crashes on some sentences (cmusphinx/pocketsphinx, pull requests 468 and 500).
    """

    gate = 0.3

    def __init__(self) -> None:
        from pocketsphinx import Decoder

        beams = {"beam": BEAM, "pbeam": BEAM, "wbeam": BEAM}
        # A lattice's best path gives words fewer frames than their phones need.
        self._decoder: Any = Decoder(lm=None, bestpath=False, loglevel="FATAL", **beams)

    @cached_property
    def settings(self) -> Mapping[str, str]:
        from pocketsphinx import get_model_path

        digest = hashlib.sha256()
        for path in sorted(Path(get_model_path("en-us")).rglob("*")):
            if path.is_file() and "lm" not in path.name:
                digest.update(path.name.encode() + path.read_bytes())
        return {
            "aligner": "pocketsphinx",
            "version": version("pocketsphinx"),
            "model": digest.hexdigest()[:16],
            "rules": "1",  # of pronunciation and score; changes with them
        }

    def __call__(self, id: str, words: Sequence[str], hear: Callable[[], Wave]) -> list[Word]:
        keys = [pronounce(word, self._decoder) for word in words]
        wave = hear()
        if len(wave) > LONGEST * SAMPLE_RATE:
            detail = f"{len(wave) / SAMPLE_RATE:.0f} s; cut it into at most {LONGEST} s"
            raise Unaligned("too long", detail)
        found = self._align(" ".join(keys), wave)
        if len(found) != len(words):
            raise Unaligned("not found", "the words do not fit the sound")
        return [
            Word(word, start, min(stop, len(wave)), score)
            for word, (start, stop, score) in zip(words, found, strict=True)
        ]

    def _align(self, text: str, wave: Wave) -> list[tuple[int, int, float]]:
        """Start, stop and score of each word; fewer where the search ended early."""
        sound = (np.clip(wave, -1.0, 1.0) * 32_767).astype("<i2")
        self._decoder.set_align_text(text)
        self._decoder.reinit_feat()  # its idea of the channel would come from what it heard before
        self._decoder.start_utt()
        self._decoder.process_raw(sound.tobytes(), no_search=False, full_utt=True)
        self._decoder.end_utt()
        if self._decoder.hyp() is None:
            return []
        return [
            (segment.start_frame * FRAME, (segment.end_frame + 1) * FRAME, _score(segment))
            for segment in self._decoder.seg()
            if not segment.word.startswith(_FILLERS)
        ]


def _score(segment: Any) -> float:
    frames = segment.end_frame + 1 - segment.start_frame
    if segment.ascore <= 0 or frames <= 0:
        return 0.0
    return min(1.0, math.exp(math.log(segment.ascore) * _SHIFT / frames / SCALE))
