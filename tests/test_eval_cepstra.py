"""Mel cepstral distortion: decibels of a difference that are known, along a warping."""

import numpy as np
import pytest

from spirit.audio import read_audio
from spirit.eval import cepstra as module
from spirit.eval.cepstra import align, cepstra, distortion, spoken_seconds
from spirit.units import SAMPLE_RATE
from tests.bundle import JFK


def test_a_copy_is_no_distortion_nor_is_loudness():
    wave = read_audio(JFK)
    frames = cepstra(wave)
    path = align(frames, frames)
    assert np.array_equal(path, np.repeat(np.arange(len(frames))[:, None], 2, axis=1))
    assert distortion(frames, frames, path) == 0
    # White noise has no band near the floor, so that a level is a level.
    noise = np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE).astype(np.float32)
    plain, loud = cepstra(noise), cepstra(2 * noise)
    same = np.repeat(np.arange(len(plain))[:, None], 2, axis=1)
    assert distortion(plain, loud, same) < 0.01
    assert (loud - plain)[:, 0] == pytest.approx(20 * np.log10(2), abs=0.01)


def test_distortion_is_the_difference_of_spectra_in_decibels():
    """A tilt of the cosine of the first coefficient, 6 dB at its ends: 6 / sqrt 2 dB on average."""
    noise = np.random.default_rng(0).normal(0, 0.1, 2 * SAMPLE_RATE)
    hertz = np.fft.rfftfreq(len(noise), 1 / SAMPLE_RATE)
    mel = 2595 * np.log10(1 + hertz / 700)
    gain = 10 ** (6 * np.cos(np.pi * mel / mel[-1]) / 20)
    tilted = np.fft.irfft(np.fft.rfft(noise) * gain, len(noise))
    frames = [cepstra(side.astype(np.float32)) for side in (noise, tilted)]
    same = np.repeat(np.arange(len(frames[0]))[:, None], 2, axis=1)
    assert distortion(*frames, same) == pytest.approx(6 / np.sqrt(2), rel=0.1)


def test_a_slower_copy_is_near_along_the_warping_and_pieces_meet(monkeypatch):
    wave = read_audio(JFK)[: 2 * SAMPLE_RATE]
    frames = cepstra(wave)
    slow = np.repeat(frames, 2, axis=0)
    assert distortion(frames, slow, align(frames, slow)) < 0.01
    monkeypatch.setattr(module, "LONGEST", 150)
    path = align(frames, slow)
    assert distortion(frames, slow, path) < 0.5
    assert (np.diff(path, axis=0) >= 0).all()
    assert path[0].tolist() == [0, 0]
    assert path[-1].tolist() == [len(frames) - 1, len(slow) - 1]


def test_silence_around_speech_is_not_spoken():
    noise = np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE)
    wave = np.pad(noise, (SAMPLE_RATE, SAMPLE_RATE // 2)).astype(np.float32)
    assert spoken_seconds(cepstra(wave)) == pytest.approx(1, abs=0.05)
