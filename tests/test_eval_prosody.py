"""Prosody: a melody that is kept correlates, a monotone does not, and voicing is counted apart."""

import numpy as np
import pytest

from spirit.eval.prosody import compare, follow
from spirit.units import SAMPLE_RATE


def voice(f0: np.ndarray) -> np.ndarray:
    """A buzz with the harmonics of a voice, at an F0 in Hz per sample."""
    phase = 2 * np.pi * np.cumsum(f0) / SAMPLE_RATE
    sound = sum(np.sin(k * phase) / k for k in range(1, 20))
    return (0.1 * sound).astype(np.float32)


TIME = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
RISING = 120 * 2 ** (0.5 * TIME)
WAVING = 150 * 2 ** (0.3 * np.sin(4 * TIME))


def test_the_same_melody_an_octave_higher_correlates_fully():
    found = compare(voice(RISING), voice(2 * RISING))
    assert found.correlation == pytest.approx(1.0, abs=0.02)
    assert found.voicing_error < 0.05


def test_another_melody_does_not_correlate():
    found = compare(voice(RISING), voice(WAVING))
    assert found.correlation is not None
    assert found.correlation < 0.5


def test_a_copy_without_voice_is_zero_and_all_wrong_in_voicing():
    found = compare(voice(RISING), np.zeros(len(RISING), dtype=np.float32))
    assert found.correlation == 0.0
    assert found.voicing_error > 0.9


def test_an_original_without_voice_has_no_correlation():
    silence = np.zeros(SAMPLE_RATE, dtype=np.float32)
    assert compare(silence, voice(RISING)[:SAMPLE_RATE]).correlation is None


def test_voicing_error_counts_frames_voiced_on_one_side_only():
    theirs = np.array([100.0] * 50 + [0.0] * 50)
    ours = np.array([100.0] * 40 + [0.0] * 40 + [100.0] * 20)
    assert follow(theirs, ours).voicing_error == pytest.approx(0.3)


def test_a_monotone_copy_does_not_follow():
    theirs = np.linspace(100, 200, 100)
    assert follow(theirs, np.full(100, 150.0)).correlation == 0.0
    assert follow(theirs, theirs[:60]).voicing_error == pytest.approx(0.4)


def test_gross_errors_are_over_a_fifth_and_counted_where_both_are_voiced():
    theirs = np.array([100.0] * 60 + [0.0] * 40)
    ours = np.array([110.0] * 30 + [150.0] * 20 + [0.0] * 10 + [100.0] * 10 + [0.0] * 30)
    found = follow(theirs, ours)
    assert (found.frames, found.voiced_in_both, found.gross_errors) == (100, 50, 20)
    assert found.voicing_error == pytest.approx(0.2)
    wanted = 30 * (12 * np.log2(1.1)) ** 2 + 20 * (12 * np.log2(1.5)) ** 2
    assert found.squared_semitones == pytest.approx(wanted)
