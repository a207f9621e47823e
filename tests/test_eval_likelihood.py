"""Likelihood suites: read as downloaded, paired as their scorers do, told with what is left out."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from spirit import commit
from spirit.audio import read_audio
from spirit.cli import main
from spirit.codec import Document
from spirit.eval import suites
from spirit.eval.likelihood import _judge, lay_out
from spirit.eval.suites import Choice, Reading, Suite
from tests import suites as miniatures

pytest_plugins = "tests.fixtures"

CHOICES = {
    "swuggy": 4,
    "sblimp": 4,
    "prosaudit": 2,
    "storycloze": 2,
    "stories_in_parts": 4,
    "salmon": 16,
    "mmlu": 2,
}


def reader(title: str) -> str:
    return "storycloze" if title.startswith("stor") else title


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("suites")
    return {name: make(folder / name) for name, make in miniatures.MINIATURES.items()}


@pytest.fixture
def run():
    def call(*arguments: object, code: int = 0) -> str:
        result = CliRunner().invoke(main, [str(a) for a in arguments])
        assert result.exit_code == code, result.output
        return result.output

    return call


@pytest.mark.parametrize("title", CHOICES)
def test_every_suite_is_read_in_its_own_layout(data, title):
    suite = suites.read(reader(title), data[title], "dev")
    assert len(suite.choices) == CHOICES[title]
    assert not suite.skipped
    for choice in suite.choices:
        assert len(set(choice.readings)) == (4 if title == "mmlu" else 2)


def test_pairs_are_of_one_voice_and_the_first_is_right(data):
    suite = suites.read("swuggy", data["swuggy"], "dev")
    for choice in suite.choices:
        right, wrong = (str(reading.judged[0]) for reading in choice.readings)
        assert right.endswith(f"{choice.voice}1.wav")
        assert wrong.endswith(f"{choice.voice}0.wav")
    assert {(c.groups["frequency"], c.groups["vocabulary"]) for c in suite.choices} == {
        ("oov", "out of vocabulary"),
        ("6-20", "in vocabulary"),
    }
    assert {c.item for c in suites.read("prosaudit", data["prosaudit"], "dev").choices} == {
        "protosyntax/0",
        "lexical/0",
    }


def test_stories_in_parts_are_asked_in_four_directions(data):
    suite = suites.read("storycloze", data["stories_in_parts"], "")
    found = {choice.groups["direction"]: choice.readings[0] for choice in suite.choices}
    assert set(found) == {"S", "T", "S->T", "T->S"}
    assert found["T"] == Reading(("we took an umbrella",), ("the rain began at noon",))
    assert isinstance(found["T->S"].judged[0], Path)
    assert isinstance(found["T->S"].given[0], str)


def test_stories_counted_from_1_are_paired_in_order(tmp_path):
    miniatures.stories(tmp_path)
    for number in (3, 2, 1, 0):
        (path,) = tmp_path.glob(f"{number}_*.wav")
        path.rename(tmp_path / f"{number + 1}_{path.name[2:]}")
    suite = suites.read("storycloze", tmp_path, "")
    pairs = [[reading.judged[0].name for reading in c.readings] for c in suite.choices]
    assert pairs == [["1_right.wav", "2_wrong.wav"], ["3_right.wav", "4_wrong.wav"]]


def test_a_story_that_lacks_a_part_is_missed_in_the_directions_that_need_it(tmp_path):
    for name in ("a", "b"):
        miniatures.stories_in_parts(tmp_path / name)
    (tmp_path / "b/7_correct.txt").unlink()
    (tmp_path / "b/7_mutual.txt").unlink()
    suite = suites.read("storycloze", tmp_path, "")
    assert [c.item for c in suite.choices if c.item.startswith("b")] == ["b/7 S"]
    assert [reason for name, reason in suite.skipped if name == "b/7"] == [
        f"no {way}: a part is not there" for way in ("T", "S->T", "T->S")
    ]


def scored(choices, told):
    suite = Suite("x", Path(), choices)
    keys = {Reading((name,)).key: {"sum": s, "tokens": n} for name, (s, n) in told.items()}
    return _judge(suite, choices, keys, "m")


def test_an_item_counts_by_the_mean_of_its_voices_and_a_tie_by_half():
    def choice(item, voice, right, wrong):
        return Choice(item, (Reading((right,)), Reading((wrong,))), voice, {"kind": item})

    choices = [choice("one", "a", "w", "x"), choice("one", "b", "x", "w")]
    choices += [choice("two", "a", "w", "y")]
    verdict = scored(choices, {"w": (-2.0, 2), "x": (-4.0, 2), "y": (-2.0, 2)})
    assert verdict.items == 2
    assert verdict.figures["sum"].value == pytest.approx((0.5 + 0.5) / 2)
    assert verdict.figures["sum/kind/two"].value == pytest.approx(0.5)
    # By the sum the short one wins, by the mean the long one.
    verdict = scored([choice("one", "a", "w", "x")], {"w": (-3.0, 1), "x": (-4.0, 4)})
    assert verdict.figures["sum"].value == 1.0
    assert verdict.figures["mean"].value == 0.0


def test_what_is_judged_begins_behind_what_is_given(spirit, data):
    folder = data["stories_in_parts"]
    mutual, ending = folder / "7_mutual.wav", folder / "7_correct.wav"
    codec = spirit.tokenizer.codec
    ids, start = lay_out(spirit, Reading((ending,), (mutual,)))
    joined = np.concatenate([read_audio(mutual), read_audio(ending)])
    tracks = spirit.tokenizer.encoder.encode(joined)
    assert np.array_equal(ids, codec.encode(Document((tracks.merge(),))))
    _, onsets = tracks.timed()
    assert len(ids) - start == int((onsets >= len(read_audio(mutual))).sum()) > 0
    ids, start = lay_out(spirit, Reading(("we took it",), ("the rain began",)))
    assert codec.text.decode(ids[start:].tolist()) == " we took it"
    ids, start = lay_out(spirit, Reading(("we took it",), (mutual,)))
    assert codec.text.decode(ids[start:].tolist()).strip() == "we took it"
    ids, start = lay_out(spirit, Reading((ending,), ("the rain began",)))
    assert spirit.tokenizer.vocab.is_unit(ids[start:]).all()
    assert not spirit.tokenizer.vocab.is_unit(ids[:start]).any()


def test_a_suite_is_scored_from_the_command_line(run, data, bundle, spirit, tmp_path):
    out = tmp_path / "out"
    asked = ("eval", "swuggy", "--model", bundle, "--data", data["swuggy"], "--out", out)
    table = run(*asked, "--jobs", 1, "--device", "cpu")
    assert "| all |" in table
    assert "Left out: nothing" in table
    rows = list(csv.DictReader((out / "items.csv").read_text().splitlines()))
    assert len(rows) == 4
    path = Path(rows[0]["right"])
    units = spirit.hear(read_audio(path))
    ids = torch.from_numpy(spirit.tokenizer.codec.encode(Document((units,))))[None]
    with torch.no_grad():
        told = spirit.model(ids[:, :-1]).logits.log_softmax(-1)[0]
    wanted = told.gather(-1, ids[0, 1:, None])[1:].sum()  # not the marker
    assert float(rows[0]["right_sum"]) == pytest.approx(float(wanted), abs=1e-3)
    assert int(rows[0]["right_tokens"]) == len(units)
    lines = (out / "lexical/dev.txt").read_text().splitlines()
    assert len(lines) == 8
    share = float(dict(line.split() for line in lines)[path.stem])
    assert share == pytest.approx(float(wanted) / len(units), abs=1e-3)
    figures = json.loads((out / "figures.json").read_text())
    assert figures["items"] == 2
    assert set(figures["figures"]["mean"]) == {"value", "low", "high", "count"}
    run(*asked, "--split", "test", "--jobs", 1)
    assert len((out / "lexical/test.txt").read_text().splitlines()) == 2
    shutil.copytree(data["swuggy"], tmp_path / "torn")
    next((tmp_path / "torn/lexical/test").glob("*.wav")).write_bytes(b"")
    torn = ("eval", "swuggy", "--model", bundle, "--data", tmp_path / "torn", "--split", "test")
    told = run(*torn, "--out", tmp_path / "told", "--jobs", 1, "--device", "cpu")
    assert "Left out: 1 x recording for the submission not scored (swuggy.jsonl says why)" in told


def test_a_folder_of_wav_files_alone_is_no_suite(data, tmp_path):
    shutil.copytree(data["swuggy"] / "lexical/dev", tmp_path / "mine")
    (tmp_path / "mine/gold.csv").unlink()
    with pytest.raises(ValueError, match=r"mine: expected gold\.csv beside the wav files"):
        suites.read("swuggy", tmp_path / "mine", "dev")


def test_what_cannot_be_read_is_left_out_and_said(run, bundle, tmp_path):
    folder = miniatures.swuggy(tmp_path / "data")
    lost, torn = sorted((folder / "lexical/dev").glob("aAbBaud*.wav"))[:2]
    lost.unlink()
    lost, torn = sorted((folder / "lexical/dev").glob("*aud1?.wav"))[:2]
    torn.write_bytes(b"RIFF....")
    commit.text(folder / "lexical/dev/more.wav", "not sound")
    asked = ("eval", "swuggy", "--model", bundle, "--data", folder, "--out", tmp_path / "out")
    table = run(*asked, "--jobs", 1, "--device", "cpu")
    assert "1 x no such wav file" in table
    assert "1 x no partner" in table
    assert "1 x not in gold.csv" in table
    assert "1 x not scored (items.csv says why)" in table
    assert "cannot be read as audio" in (tmp_path / "out/items.csv").read_text()


def test_a_recording_that_was_mended_is_judged_anew(run, bundle, tmp_path):
    folder = miniatures.swuggy(tmp_path / "data")
    some = min((folder / "lexical/dev").glob("*.wav"))
    whole = some.read_bytes()
    some.write_bytes(b"RIFF....")
    asked = ("eval", "swuggy", "--model", bundle, "--data", folder, "--out", tmp_path / "out")
    asked = (*asked, "--jobs", 1, "--device", "cpu", "--limit", 1)
    assert (
        "cannot be read as audio" in run(*asked, code=1) + (tmp_path / "out/items.csv").read_text()
    )
    some.write_bytes(whole)
    assert "Left out: 3 x beyond --limit." in run(*asked)


def test_an_answer_that_is_no_letter_is_left_out(tmp_path):
    folder = miniatures.mmlu(tmp_path)
    write(folder, "test/numbers_test.csv", "q,a,b,c,d,\nq,a,b,c,d,BC\nq,a,b,c,d,C\n")
    suite = suites.read("mmlu", folder, "dev")
    (choice,) = suite.choices
    assert choice.readings[0].judged == ("C",)
    assert suite.told() == "1 x the answer is '', 1 x the answer is 'BC'"
    assert suite.split == "test"  # the questions of dev are the examples


def rename(folder, old, new):
    (folder / old).rename(folder / new)


def write(folder, name, text):
    (folder / name).write_text(text)


def rename_all(folder):
    for path in folder.iterdir():
        path.rename(folder / f"x{path.name}")


GOLD = "id,filename,type,correct\n1,a,b,2\n"


@pytest.mark.parametrize(
    ("suite", "spoil", "complaint"),
    [
        ("swuggy", lambda f: rename(f, "lexical", "words"), "expected lexical/dev with wav"),
        (
            "sblimp",
            lambda f: write(f, "syntactic/dev/gold.csv", "id,filename\n1,a\n"),
            "expected the columns id, filename, voice, type, subtype, correct, found id, filename",
        ),
        (
            "prosaudit",
            lambda f: write(f, "english/dev/gold.csv", GOLD),
            "line 2: correct is '2', expected 0 or 1",
        ),
        ("salmon", rename_all, "expected the folders bg_alignment"),
        ("storycloze", rename_all, "expected <n>_*.wav, or <id>_mutual"),
        ("mmlu", lambda f: rename(f, "dev", "shots"), "expected dev/ and test/"),
    ],
)
def test_another_layout_is_told_in_one_line(run, tmp_path, suite, spoil, complaint):
    folder = miniatures.MINIATURES[suite](tmp_path / "data")
    spoil(folder)
    told = run("eval", suite, "--data", folder, "--out", tmp_path / "out", code=1)
    assert complaint in told
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()
