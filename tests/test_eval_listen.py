"""The ear: hears a real recording, the same whatever came before; spelling is no error."""

from pathlib import Path

import numpy as np
import pytest

from spirit.audio import read_audio
from spirit.eval.figures import word_errors
from spirit.eval.listen import Listener, normalize
from spirit.units import SAMPLE_RATE

WAVE = read_audio(Path(__file__).parent / "data" / "jfk.flac")
SAID = "and so my fellow americans"


@pytest.fixture(scope="module")
def ear() -> Listener:
    return Listener()


def test_a_recording_is_heard_the_same_after_any_other(ear):
    fresh = ear(WAVE)
    assert word_errors(SAID, fresh).errors <= 2
    ear(0.1 * np.random.default_rng(0).normal(size=SAMPLE_RATE).astype(np.float32))
    assert ear(WAVE) == fresh


def test_nothing_has_no_words(ear):
    assert ear(np.zeros(1, np.float32)) == ""
    assert ear(np.zeros(0, np.float32)) == ""


def test_a_recording_backwards_is_not_understood(ear):
    assert word_errors(SAID, ear(WAVE[::-1].copy())).errors >= 4


@pytest.mark.parametrize(
    ("written", "counted"),
    [
        ("The(2) Weather, in PARIS!", "the weather in paris"),
        ("it’s 'fine' o'clock", "it's fine o'clock"),
        ("an ice-cream", "an ice cream"),
        ("the neighbour's grey cat", "the neighbor's gray cat"),
        ("", ""),
    ],
)
def test_normal_form(written, counted):
    assert normalize(written) == counted
    assert normalize(counted) == counted


def test_a_spelling_is_no_error():
    counts = word_errors(normalize("my favourite colour"), normalize("my favorite color"))
    assert counts.errors == 0
    assert word_errors(normalize(SAID), normalize(SAID.upper())).errors == 0
