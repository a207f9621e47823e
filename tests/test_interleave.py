from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spirit.interleave import Switches, draw_switch, draw_switches, interleave
from spirit.units import Kind, Units, Word
from tests.drills import interleaving
from tests.drills.interleaving import drill, faults
from tests.strategies import speech


@st.composite
def utterances(draw):
    tracks = draw(speech(max_frames=150))
    count = draw(st.integers(1, 8))
    cuts = sorted(
        draw(st.lists(st.integers(0, tracks.samples), min_size=2 * count, max_size=2 * count))
    )
    words = [Word(f"w{i}", cuts[2 * i], cuts[2 * i + 1]) for i in range(count)]
    switches = draw_switches(
        count, np.random.default_rng(draw(st.integers(0, 99))), text=(1, 3), speech=(1, 3)
    )
    return words, tracks, switches


@given(utterances())
def test_every_word_is_either_written_or_spoken_and_none_is_lost(utterance):
    words, tracks, switches = utterance
    segments = interleave(words, tracks, switches)
    bounds = [0, *switches.at, len(words)]
    assert len(segments) == len(bounds) - 1
    spoken = switches.speech_first
    for segment, first, last in zip(segments, bounds, bounds[1:], strict=False):
        assert isinstance(segment, Units) == spoken
        if not spoken:
            assert segment == " ".join(word.text for word in words[first:last])
        spoken = not spoken


@given(utterances())
def test_complementary_documents_hold_every_frame_of_the_recording(utterance):
    words, tracks, switches = utterance
    other = Switches(not switches.speech_first, switches.at)
    parts = [s for s in interleave(words, tracks, switches) if isinstance(s, Units)]
    parts += [s for s in interleave(words, tracks, other) if isinstance(s, Units)]
    heard = Counter(unit for part in parts for unit in part.of(Kind.HUBERT).tolist())
    whole = Counter(tracks.merge().of(Kind.HUBERT).tolist())
    # Cutting inside a run doubles its unit: never fewer, and at most one more for each cut.
    assert not whole - heard
    assert sum((heard - whole).values()) <= len(switches.at)


@given(utterances())
def test_interleaving_draws_nothing(utterance):
    assert [str(s) for s in interleave(*utterance)] == [str(s) for s in interleave(*utterance)]


def test_span_lengths_are_uniform_in_their_ranges():
    rng = np.random.default_rng(0)
    spans: dict[bool, list[int]] = {True: [], False: []}
    firsts = 0
    for _ in range(400):
        switches = draw_switches(200, rng, text=(10, 30), speech=(5, 15))
        firsts += switches.speech_first
        spoken = switches.speech_first
        for length in np.diff([0, *switches.at]).tolist():
            spans[spoken].append(length)
            spoken = not spoken
    assert set(spans[True]) == set(range(5, 16))
    assert set(spans[False]) == set(range(10, 31))
    for lengths, count in ((spans[True], 11), (spans[False], 21)):
        observed = np.bincount(np.array(lengths) - min(lengths), minlength=count)
        expected = len(lengths) / count
        chi_square = float(((observed - expected) ** 2 / expected).sum())
        assert chi_square < 2.5 * count, (
            observed
        )  # the mean of chi-square is its degrees of freedom
    assert 160 < firsts < 240


def test_a_document_may_open_with_a_span_of_another_length():
    rng = np.random.default_rng(0)
    opened = Counter()
    for _ in range(400):
        switches = draw_switches(9, rng, text=(1, 2), speech=(1, 2), opening=(3, 4))
        first, *later = np.diff([0, *switches.at]).tolist()
        opened[first] += 1
        assert set(later) <= {1, 2}
    assert set(opened) == {3, 4}
    assert min(opened.values()) > 150


def test_a_range_that_holds_nothing_is_refused():
    with pytest.raises(ValueError, match="span of speech"):
        draw_switches(5, np.random.default_rng(0), speech=(3, 2))
    with pytest.raises(ValueError, match="span of text"):
        draw_switches(5, np.random.default_rng(0), text=(0, 2))
    with pytest.raises(ValueError, match="span of opening"):
        draw_switches(5, np.random.default_rng(0), opening=(2, 1))


@given(speech())
def test_an_utterance_without_words_asks_for_alignment(tracks):
    with pytest.raises(ValueError, match="spirit align"):
        interleave([], tracks, Switches(True, ()))


def test_what_the_loader_draws_is_what_the_recipe_says(tmp_path):
    # Smaller than tests/drills/interleaving.py, which takes 10,000 documents.
    figures = drill(tmp_path, 600, 30)
    assert not faults(figures), figures
    assert figures["lengths of speech spans"]["degrees"] == 10
    assert figures["switches in a document"]["degrees"] >= 4


def test_the_drill_notices_other_spans(tmp_path, monkeypatch):
    monkeypatch.setattr(interleaving, "SPEECH", (5, 16))  # what it expects, not what is drawn
    assert "lengths of speech spans" in faults(drill(tmp_path, 300, 30))


def test_a_document_that_switches_once_does_so_anywhere_and_both_ways():
    rng = np.random.default_rng(0)
    drawn = Counter(draw_switch(4, rng) for _ in range(1_200))
    assert set(drawn) == {Switches(first, (at,)) for first in (True, False) for at in (1, 2, 3)}
    assert min(drawn.values()) > 140  # of 200 expected
    with pytest.raises(ValueError, match="between two words; here is 1"):
        draw_switch(1, rng)
