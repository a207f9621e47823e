"""The independent ear: pocketsphinx with its own en-us models, no grammar, equal for all sides."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

SPELLINGS = {
    "alright": "all right",
    "centre": "center",
    "colour": "color",
    "favourite": "favorite",
    "grey": "gray",
    "harbour": "harbor",
    "jewellery": "jewelry",
    "neighbour": "neighbor",
    "ok": "okay",
    "theatre": "theater",
    "travelling": "traveling",
}
"""One word in two spellings: the ear writes whichever its dictionary lists, so both sides are
written in the American way. Applied to references and to what was heard alike."""


class Listener:
    """Writes down what it hears in a recording, in lower case.

    pocketsphinx 5, acoustic model, dictionary and trigram model as installed, every option at its
    default. The front end is started afresh for every recording: its running estimate of the
    channel would otherwise make a result depend on the recordings before.
    """

    def __init__(self, lm: Path | None = None) -> None:
        """`lm`, an ARPA file, takes the place of the language model."""
        from pocketsphinx import Decoder

        told = {} if lm is None else {"lm": str(lm)}
        self._decoder: Any = Decoder(loglevel="FATAL", **told)

    def __call__(self, wave: Float[np.ndarray, " samples"]) -> str:
        """The words in a 16 kHz recording; "" where there are none."""
        sound = (np.clip(wave, -1.0, 1.0) * 32_767).astype("<i2")
        if not len(sound):
            return ""
        self._decoder.reinit_feat()
        self._decoder.start_utt()
        self._decoder.process_raw(sound.tobytes(), no_search=False, full_utt=True)
        self._decoder.end_utt()
        found = self._decoder.hyp()
        return normalize(found.hypstr) if found else ""


@cache
def listener(lm: Path | None = None) -> Listener:
    """The one ear of this process, by its language model; to load them takes half a second."""
    return Listener(lm)


def normalize(text: str) -> str:
    """Text as word errors are counted on it: lower case, no punctuation but inner apostrophes.

    The mark of a second pronunciation ("the(2)") goes, a hyphen parts words, one spelling counts.
    Numbers must be written as words.
    """
    text = re.sub(r"\(\d+\)", "", text.lower()).replace("’", "'")
    words = (word.strip("'") for word in re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)*'?", text))
    return " ".join(_spell(word) for word in words if word)


def _spell(word: str) -> str:
    stem, apostrophe, ending = word.partition("'")
    return SPELLINGS.get(stem, stem) + apostrophe + ending
