"""The ablations: models that differ in one thing, pairs that cannot be guessed, honest tables."""

import importlib
import json
import os
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from spirit.audio import read_audio
from spirit.config import load
from spirit.data.shards import read_shards
from spirit.eval.compare import save_values
from spirit.eval.stsp_data import read_manifest
from spirit.eval.suites import read
from spirit.lm.train import LMRecipe, train
from spirit.tokenizer import Tokenizer
from spirit.units import Kind
from spirit.vocoder import Vocoder
from tests.stand_ins import RECIPES, data, stand_in

pytest_plugins = "tests.fixtures"

HERE = RECIPES / "ablations"
sys.path[:0] = [str(HERE), str(RECIPES / "tiny")]
base, moods, pairs, table = map(importlib.import_module, ("base", "moods", "pairs", "table"))

RECORDER = """#!{python}
import json, sys
with open({log!r}, "a") as log:
    print(json.dumps(sys.argv[1:]), file=log)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return data(tmp_path_factory.mktemp("ablations"))


def commands(tmp_path: Path) -> list[list[str]]:
    """The words of every program that run.sh starts, with a recorder in place of Python."""
    shutil.copytree(RECIPES, tmp_path / "recipes", ignore=shutil.ignore_patterns("work*"))
    record = tmp_path / "record"
    record.write_text(RECORDER.format(python=sys.executable, log=str(tmp_path / "log")))
    record.chmod(0o755)
    for name in ("tokenizer", "shards-train", "shards-heldout", "corpus", "vocoder/vocoder"):
        (tmp_path / "from" / name).mkdir(parents=True)
    for name in ("base", "separate", "expressive"):
        (tmp_path / "made" / name / "model").mkdir(parents=True)
    (tmp_path / "made/vocoder").mkdir()
    settings = {"PYTHON": str(record), "FROM": "from", "WORK": "made", "DEVICE": "cpu"}
    done = subprocess.run(
        [tmp_path / "recipes/ablations/run.sh"],
        env=os.environ | settings,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]


def sets(command: list[str]) -> list[str]:
    return [word for before, word in pairwise(command) if before == "--set"]


@pytest.fixture(scope="module")
def typed(tmp_path_factory) -> list[list[str]]:
    return commands(tmp_path_factory.mktemp("typed"))


def test_the_models_differ_in_what_is_tried_and_in_nothing_else(typed):
    trainings = [sets(words) for words in typed if "train" in words[:3]]
    reference, separate, expressive = (
        load(HERE / "train.toml", LMRecipe, changes) for changes in trainings
    )
    mixture = reference.mixture
    assert mixture.weights["interleaved"] > 0.5
    assert not {"transcribe", "speak"} & set(mixture.weights), "alignment would be taught by these"
    shares = {name: getattr(separate.mixture, name) for name in ("interleaved", "speech", "text")}
    assert shares["interleaved"] == 0
    assert min(shares["speech"] - mixture.speech, shares["text"] - mixture.text) > 0
    assert separate == replace(reference, out=separate.out, mixture=replace(mixture, **shares))
    assert expressive == replace(
        reference,
        out=expressive.out,
        tokenizer=expressive.tokenizer,
        heldout=expressive.heldout,
        mixture=replace(mixture, shards=expressive.mixture.shards),
    )


def test_every_model_is_asked_the_same(typed):
    asked = {}
    for words in typed:
        for suite in ("storycloze", "salmon", "moods.py"):
            if any(word.endswith(suite) for word in words[:4]):
                data = words[words.index("--data") + 1]
                asked.setdefault((suite, data), []).append(words[words.index("--model") + 1])
    names = ("base", "separate", "expressive")
    models, voiced = ([f"made/{name}/{kind}" for name in names] for kind in ("model", "voiced"))
    assert list(asked.values()) == [models, models, voiced]
    assert typed[-1][0].endswith("table.py")


@pytest.mark.parametrize("changes", [[], ["interleaved=0.0", "speech=0.75", "text=0.25"]])
def test_three_steps_of_a_stand_in(home, tmp_path, changes):
    given = stand_in(home, "expressive-7b/train.toml", tmp_path / "out")
    small = [change for change in given if not change.startswith(("init", "retention"))]
    small += ["size.hidden=32", "size.ffn=64", *(f"mixture.{change}" for change in changes)]
    recipe = load(HERE / "train.toml", LMRecipe, small)
    assert (train(recipe) / "model.safetensors").is_file()
    losses = EventAccumulator(str(recipe.out / "logs")).Reload().Scalars("loss")
    assert len(losses) == 3
    assert np.isfinite([point.value for point in losses]).all()


# ------------------------------------------------------------------- the same without pitch, style


def test_a_base_tokenizer_hears_the_same_units_and_reads_the_same_text(tokenizer, tmp_path):
    base.tokenizer(tokenizer, tmp_path / "base")
    ours, theirs = Tokenizer.load(tmp_path / "base"), Tokenizer.load(tokenizer)
    wave = read_audio(Path(__file__).parent / "data/jfk.flac")
    heard, known = ours.encoder.encode(wave), theirs.encoder.encode(wave)
    assert set(heard.by_kind) == {Kind.HUBERT} < set(known.by_kind)
    assert np.array_equal(heard.by_kind[Kind.HUBERT].unit, known.by_kind[Kind.HUBERT].unit)
    text = "what is said twice is said once more"
    assert ours.codec.text.encode(text) == theirs.codec.text.encode(text)


def test_base_shards_hold_the_same_units_words_and_texts(home, tokenizer, tmp_path):
    base.tokenizer(tokenizer, tmp_path / "base")
    source = home / "expressive/shards"
    base.shards(source, tmp_path / "shards", tmp_path / "base")
    vocabulary = Tokenizer.load(tmp_path / "base").vocab.fingerprint
    found = read_shards(tmp_path / "shards", fingerprint=vocabulary)
    for ours, theirs in zip(found, read_shards(source), strict=True):
        assert (ours.id, ours.text, ours.words) == (theirs.id, theirs.text, theirs.words)
        assert set(ours.tracks.by_kind) == {Kind.HUBERT}
        units = (row.tracks.by_kind[Kind.HUBERT].unit for row in (ours, theirs))
        assert np.array_equal(*units)


def test_what_was_made_from_something_else_is_not_taken_for_it(
    tokenizer, tmp_path, monkeypatch, capsys
):
    source = tmp_path / "source"
    shutil.copytree(tokenizer, source)
    monkeypatch.setattr("sys.argv", ["base.py", "tokenizer", str(source), str(tmp_path / "base")])
    assert base.main() == 0
    made = (tmp_path / "base/tokenizer.toml").stat().st_mtime_ns
    assert base.main() == 0
    assert (tmp_path / "base/tokenizer.toml").stat().st_mtime_ns == made
    about = source / "tokenizer.toml"
    about.write_text(about.read_text() + "# made again\n")
    assert base.main() == 1
    assert f"{tmp_path / 'base'} was made from another {source}" in capsys.readouterr().err
    (tmp_path / "base.from").unlink()
    assert base.main() == 1
    assert f"does not say that it was made from the {source}" in capsys.readouterr().err


def test_a_base_vocoder_says_units_alone_as_the_whole_one_does(bundle, spirit, tmp_path):
    base.vocoder(bundle / "vocoder", tmp_path / "vocoder")
    ours = Vocoder.load(tmp_path / "vocoder")
    assert ours.alphabet == {"unit": 12}
    units = spirit.hear(read_audio(Path(__file__).parent / "data/jfk.flac"))
    alone = units[units.kind == Kind.HUBERT]
    assert np.array_equal(ours.speak(alone, "slt"), spirit.vocoder.speak(alone, "slt"))


# ------------------------------------------------------------------------------------------- pairs


class Flute:
    """Says every word as a tone of its length, as high as the settings say."""

    def __call__(self, text: str, voice: str, settings) -> "pairs.Said":
        words = tuple(text.split())
        ends = np.cumsum([800 * len(word) for word in words])
        tone = np.sin(2 * np.pi * settings.f0_mean * np.arange(ends[-1]) / 16_000)
        return pairs.Said(words, 0.3 * tone.astype(np.float32), int(ends[len(words) // 2 - 1]))


def test_stories_come_in_twins_with_ends_that_no_sentence_has():
    told = list(pairs.stories(Flute(), 6, 0))
    assert [name for name, *_ in told] == [f"{n:03d}{side}" for n in range(6) for side in "ab"]
    judge = pairs.language.automaton()
    for (_, one, other), (_, again, back) in zip(told[::2], told[1::2], strict=True):
        assert (one.words, other.words) == (back.words, again.words)
        for said, wrong in ((one, other), (other, one)):
            right = " ".join(said.words)
            assert right == " ".join(said.texts)
            assert judge.accepts(right)
            assert pairs.language.heldout(right)
            assert not judge.accepts(f"{said.texts[0]} {wrong.texts[1]}")


@pytest.mark.parametrize("part", ["sentiment_consistency", "speaker_consistency"])
def test_changes_share_their_beginning_and_swap_their_ends(part):
    told = list(pairs.changes(Flute(), part, 3, 0))
    assert len(told) == 6
    for (same, changed), (same_too, changed_too) in zip(told[::2], told[1::2], strict=True):
        common = [
            int(np.argmin(right[: len(wrong)] == wrong[: len(right)]))
            for right, wrong in ((same, changed), (same_too, changed_too))
        ]
        assert min(common) > 1_600
        ends = {w[-1_600:].tobytes() for w in (same, changed)}
        assert len(ends) == 2
        assert ends == {w[-1_600:].tobytes() for w in (same_too, changed_too)}


def test_what_is_written_is_read_by_the_suites(tmp_path, monkeypatch):
    class Speaker:
        def __init__(self, scratch: Path) -> None:
            self.say = Flute()

    monkeypatch.setattr(pairs, "Speaker", Speaker)
    out = tmp_path / "pairs"
    pairs.write(out, pairs=4, seed=0, voice="slt")
    stories = read("storycloze", out / "storycloze", "dev")
    ways = [choice.groups["direction"] for choice in stories.choices]
    assert {way: ways.count(way) for way in ways} == dict.fromkeys(("S", "T", "S->T", "T->S"), 8)
    assert not stories.skipped
    changes = read("salmon", out / "salmon", "dev")
    assert len(changes.choices) == 8
    for choice in changes.choices:
        assert [reading.judged[0].stem[-10:] for reading in choice.readings] == [
            "consistent",
            "_1_changed",
        ]
    samples = read_manifest(out / "stsp/manifest/flite/flite.test.jsonl", out / "stsp")
    assert [sample.sentiment for sample in samples[:3]] == ["positive", "negative", "neutral"]
    assert {row["speaker"] for row in map(json.loads, _lines(out))} == {"slt"}


def _lines(out: Path) -> list[str]:
    return (out / "stsp/manifest/flite/flite.test.jsonl").read_text().splitlines()


@pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
def test_a_sentence_is_cut_between_the_words_in_its_middle(tmp_path):
    say = pairs.Speaker(tmp_path).say
    settings = pairs.voices.draw_settings("slt", "neutral", True, random.Random(0))
    said = say("the weather in paris is cold today", "slt", settings)
    assert said.texts == ("the weather in", "paris is cold today")
    assert sum(map(len, said.waves)) == len(said.wave)
    assert 0.25 < said.cut / len(said.wave) < 0.6


# ---------------------------------------------------------------------------------------- measures


def glide(start: float, stop: float, seed: int) -> np.ndarray:
    """A buzz between two pitches, with pauses."""
    rng = np.random.default_rng(seed)
    f0 = np.linspace(start, stop, 16_000) * rng.uniform(0.97, 1.03)
    phase = 2 * np.pi * np.cumsum(f0) / 16_000
    wave = sum(np.sin(k * phase) / k for k in range(1, 12))
    return (0.1 * wave * (np.arange(16_000) % 4_000 < 3_000)).astype(np.float32)


SHAPES = {"excited": (180.0, 320.0), "sad": (130.0, 125.0), "neutral": (190.0, 165.0)}


def test_the_judge_tells_moods_by_their_melody(tmp_path):
    pytest.importorskip("torchfcpe")
    pytest.importorskip("sklearn")
    soundfile = pytest.importorskip("soundfile")
    lines = []
    for number in range(18):
        style = list(SHAPES)[number % 3]
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, np.tile(glide(*SHAPES[style], number), 2), 16_000)
        words = [{"text": "la", "start": n * 8_000, "stop": n * 8_000 + 7_000} for n in range(4)]
        lines.append(
            {"id": str(number), "audio": path.name, "text": "la la la la", "words": words}
            | {"speaker": "slt", "style": style}
        )
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(line) + "\n" for line in lines))
    judge = moods.fit(corpus, "slt")
    for style, sentiment in (("excited", "positive"), ("sad", "negative"), ("neutral", "neutral")):
        assert [judge(glide(*SHAPES[style], seed)) for seed in (50, 51)] == [sentiment] * 2
    assert judge(np.zeros(16_000, np.float32)) == ""
    told = {**moods.asdict(judge), "on_recordings": {}}
    (tmp_path / "judge.json").write_text(json.dumps(told))
    assert moods.load(tmp_path / "judge.json") == judge
    with pytest.raises(ValueError, match=r"has too little of rms in the style excited"):
        moods.fit(corpus, "rms")


def test_tables_pair_the_items_of_both_models_and_mark_what_is_sure(tmp_path, capsys, monkeypatch):
    for name, right in (("base", 1.0), ("separate", 0.5), ("expressive", 1.0)):
        folder = tmp_path / "report" / name
        stories = {f"{n:03d}a {way}": (right, 1.0) for n in range(20) for way in ("S->T", "T->S")}
        save_values(folder / "storycloze", "storycloze", {"mean": stories, "sum": {}})
        changes = {f"speaker_consistency/sample_{n}": (float(n % 2), 1.0) for n in range(20)}
        save_values(folder / "salmon", "salmon", {"mean": changes, "sum": {}})
    monkeypatch.setattr(sys, "argv", ["table.py", str(tmp_path / "report")])
    assert table.main() == 0
    said = capsys.readouterr().out
    assert said == (tmp_path / "report/README.md").read_text()
    wanted = "| S->T | 50.0 % (50.0 to 50.0) | 100.0 % (100.0 to 100.0) "
    assert f"{wanted}| **+50.0 points (+50.0 to +50.0)** | 20 |" in said
    assert "| +0.0 points (+0.0 to +0.0) | 20 |" in said
    assert "mood kept" not in said, "nothing was spoken"
    monkeypatch.setattr(sys, "argv", ["table.py", str(tmp_path)])
    assert table.main() == 1
    assert "holds no figures" in capsys.readouterr().err
