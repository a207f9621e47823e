"""Two models compared on the items of both, pair by pair."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from spirit.cli import main
from spirit.eval.compare import compare, markdown, save_values
from spirit.eval.figures import WordErrors, rate, rate_difference, word_error_difference


def test_a_paired_difference_is_surer_than_two_intervals(tmp_path):
    """Items differ much, models little: only pairs show it."""
    rng = np.random.default_rng(0)
    hard = rng.uniform(0, 1, 200)
    ours = {f"i{n}": (float(value), 1.0) for n, value in enumerate(hard)}
    theirs = {f"i{n}": (float(value + 0.05), 1.0) for n, value in enumerate(hard)}
    save_values(tmp_path / "a", "some", {"score": ours})
    save_values(tmp_path / "b", "some", {"score": theirs | {"more": (1.0, 1.0)}})
    (found,) = compare(tmp_path / "a", tmp_path / "b")
    assert found.difference.value == pytest.approx(0.05)
    assert found.difference.low > 0.04
    assert found.first.high > found.second.low
    assert found.alone == 1
    assert "**+5.0 points" in markdown([found], "a", "b")


def test_a_rate_is_the_sum_above_over_the_sum_below():
    assert rate([(1, 10), (1, 2)]).value == pytest.approx(2 / 12)
    ours, theirs = [(1, 10), (3, 5)], [(2, 10), (1, 5)]
    counts = [[WordErrors(int(a), int(b)) for a, b in side] for side in (ours, theirs)]
    assert rate_difference(ours, theirs) == word_error_difference(*counts)


def test_reports_of_many_suites_are_compared_by_name(tmp_path):
    for name, value in (("a", 0.0), ("b", 1.0)):
        save_values(tmp_path / name / "one", "one", {"x": {"i": (value, 1.0)}})
        save_values(tmp_path / name / "two", f"two {name}", {"x": {"i": (value, 1.0)}})
    asked = ["eval", "compare", str(tmp_path / "a"), str(tmp_path / "b")]
    said = CliRunner().invoke(main, [*asked, "--json"])
    assert said.exit_code == 0, said.output
    (found,) = json.loads(said.stdout)
    assert f"Only in {tmp_path / 'b'}, not compared: two b: x." in said.stderr
    assert (found["suite"], found["difference"]["value"]) == ("one", 1.0)


def test_what_cannot_be_compared_is_told(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(ValueError, match=r"holds no values\.json; make it with `spirit eval`"):
        compare(tmp_path / "a", tmp_path / "a")
    save_values(tmp_path / "a", "one", {"x": {"i": (1.0, 1.0)}})
    save_values(tmp_path / "b", "two", {"x": {"i": (1.0, 1.0)}})
    with pytest.raises(ValueError, match="have no item of one suite in common"):
        compare(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / "values.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be used"):
        compare(tmp_path / "a", tmp_path / "b")


def test_what_two_judges_say_is_not_compared(tmp_path):
    values = {"wer": {"i": (1.0, 2.0)}, "rate": {"i": (1.0, 1.0)}}
    save_values(tmp_path / "a", "resynth", values, {"wer": "pocketsphinx"})
    save_values(tmp_path / "b", "resynth", values, {"wer": "whisper 1234"})
    save_values(tmp_path / "old", "resynth", values)
    said = CliRunner().invoke(main, ["eval", "compare", str(tmp_path / "a"), str(tmp_path / "b")])
    assert said.exit_code == 0, said.output
    assert "| resynth | rate |" in said.stdout
    assert "wer" not in said.stdout
    told = "Judged by pocketsphinx and by whisper 1234, not compared: resynth: wer."
    assert told in said.stderr
    assert len(compare(tmp_path / "a", tmp_path / "a")) == 2
    assert len(compare(tmp_path / "a", tmp_path / "old")) == 2  # it does not say who judged
    for name, judge in (("a", "one"), ("b", "another")):
        save_values(tmp_path / name, "stsp", {"accuracy": {"i": (1.0, 1.0)}}, {"accuracy": judge})
    with pytest.raises(ValueError, match="that the same judge has judged"):
        compare(tmp_path / "a", tmp_path / "b")
