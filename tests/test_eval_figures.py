"""Figures: word errors as defined, intervals that behave like intervals."""

import numpy as np
import pytest

from spirit.eval.figures import (
    WordErrors,
    mean,
    word_error_difference,
    word_error_rate,
    word_errors,
)


def test_word_errors_count_substitutions_deletions_and_insertions():
    assert word_errors("the cat sat here", "the cat sat here") == WordErrors(0, 4)
    assert word_errors("the cat sat here", "the hat sat") == WordErrors(2, 4)
    assert word_errors("the cat", "oh the big fat cat") == WordErrors(3, 2)
    assert word_errors("the cat sat", "") == WordErrors(3, 3)


def test_a_reference_without_words_is_refused():
    with pytest.raises(ValueError, match="no words"):
        word_errors(" ", "anything")


def test_word_error_rate_is_total_errors_over_total_words():
    # The mean of the two utterances' rates would be 50 %.
    assert word_error_rate([WordErrors(1, 1), WordErrors(0, 9)]).value == pytest.approx(0.1)


def test_the_interval_holds_the_truth_about_19_times_in_20():
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(200):
        figure = mean(rng.normal(3.0, 1.0, 60).tolist())
        held += figure.low <= 3.0 <= figure.high
    assert 180 <= held <= 198


def test_the_same_data_give_the_same_interval():
    values = np.random.default_rng(0).random(50).tolist()
    assert mean(values) == mean(values)
    assert mean(values).low < mean(values).value < mean(values).high


def test_pairing_takes_out_what_both_sides_share():
    rng = np.random.default_rng(1)
    theirs = [WordErrors(int(n), 10) for n in rng.integers(0, 10, 80)]
    ours = [WordErrors(count.errors + 1, 10) for count in theirs]
    difference = word_error_difference(ours, theirs)
    assert difference.value == pytest.approx(0.1)
    assert difference.high - difference.low < 1e-9
    apart = word_error_rate(ours)
    assert apart.high - apart.low > 0.05


def test_no_utterances_are_no_figure():
    with pytest.raises(ValueError, match="no utterances"):
        word_error_rate([])
    with pytest.raises(ValueError, match="paired"):
        word_error_difference([WordErrors(0, 1)], [])


def test_people_read_percent_points_and_plain_numbers():
    figure = mean([1.0, 1.0, 1.0])
    assert figure.percent() == "100.0 % (100.0 to 100.0)"
    assert figure.points() == "+100.0 points (+100.0 to +100.0)"
    assert figure.plain() == "1.00 (1.00 to 1.00)"
