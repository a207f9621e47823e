"""The recipes beside `tiny`: all are understood, and each trains a stand-in for its model."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, Qwen2Config

from spirit import fit
from spirit.cli import main
from spirit.config import load
from spirit.lm import model as llama
from spirit.lm.train import LMRecipe, train
from spirit.vocab import Vocab
from spirit.vocoder.recipe import VocoderRecipe
from tests.stand_ins import RECIPES, ROOT, data, program, stand_in

NAMES = ("base-7b", "expressive-7b", "single-gpu", "asr-tts", "new-language")
TOMLS = [
    path.relative_to(RECIPES).as_posix() for n in NAMES for path in RECIPES.glob(f"{n}/*.toml")
]
TRAININGS = [name for name in TOMLS if "train" in name]
KINDS = {
    "units": fit.UnitsFitConfig,
    "robust": fit.RobustFitConfig,
    "pitch": fit.PitchConfig,
    "style": fit.StyleConfig,
    "tokenizer": fit.TokenizerConfig,
    "vocoder": VocoderRecipe,
    "train": LMRecipe,
    "train-lora": LMRecipe,
}
LLAMA_2_7B = {"hidden_size": 4096, "intermediate_size": 11008, "vocab_size": 32000}
SMOLLM2_360M = {
    "hidden_size": 960,
    "num_attention_heads": 15,
    "num_key_value_heads": 5,
    "intermediate_size": 2560,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}
QWEN25_05B = {
    "hidden_size": 896,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "intermediate_size": 4864,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}
MODELS = {
    "base-7b/train.toml": LlamaConfig(**LLAMA_2_7B),
    "expressive-7b/train.toml": LlamaConfig(**LLAMA_2_7B),
    "single-gpu/train.toml": LlamaConfig(**SMOLLM2_360M),
    "asr-tts/train.toml": LlamaConfig(**SMOLLM2_360M),
    "asr-tts/train-lora.toml": LlamaConfig(**LLAMA_2_7B),
    "new-language/train.toml": Qwen2Config(**QWEN25_05B),
}
"""What each training starts from, as published."""


@pytest.mark.parametrize("name", TOMLS)
def test_every_toml_is_understood(name):
    load(RECIPES / name, KINDS[Path(name).stem])


def test_every_recipe_has_what_a_user_looks_for():
    assert {path.parent.name for path in RECIPES.glob("*/run.sh")} == {*NAMES, "tiny", "ablations"}
    for name in NAMES:
        assert os.access(RECIPES / name / "run.sh", os.X_OK)
        told = (RECIPES / name / "README.md").read_text(encoding="utf-8")
        for heading in ("## Data", "## Hardware and hours", "## What was run"):
            assert heading in told
    for file in ("README.md", "recipes/README.md"):
        assert all(f"recipes/{name}" in (ROOT / file).read_text(encoding="utf-8") for name in NAMES)


@pytest.mark.parametrize("name", ["base-7b", "expressive-7b"])
def test_the_7b_recipes_have_the_figures_of_the_paper(name):
    recipe = load(RECIPES / name / "train.toml", LMRecipe)
    mixture, training = recipe.mixture, recipe.training
    assert (recipe.rope_theta, recipe.new_rows) == (100_000, "random")
    assert mixture.span_style == ("slice" if name == "expressive-7b" else "in-force")
    assert (training.lr, training.schedule, training.steps) == (3e-5, "constant", 100_000)
    assert mixture.row == 4_096
    assert mixture.rows == 64 * 4  # GPUs, rows each: a million tokens
    assert set(mixture.weights) == {"interleaved", "speech", "text"}
    assert list(mixture.weights.values()) == pytest.approx([1 / 3] * 3)
    assert (mixture.text_span, mixture.speech_span) == ((10, 30), (5, 15))


@pytest.mark.parametrize("name", TRAININGS)
def test_the_hours_in_the_readme_are_those_of_the_formula(name, tmp_path, monkeypatch, capsys):
    readme = (RECIPES / name).with_name("README.md").read_text(encoding="utf-8")
    MODELS[name].save_pretrained(tmp_path)
    blocks = re.findall(r"    python recipes/hours\.py (\S+)(.*)\n\n((?:    .*\n)+)", readme)
    told = [(rest, block) for recipe, rest, block in blocks if recipe == f"recipes/{name}"]
    assert told
    monkeypatch.chdir(ROOT)
    for rest, block in told:
        words = [f"recipes/{name}", *shlex.split(rest), "--model", str(tmp_path)]
        assert program("hours.py").main(words) == 0
        assert "".join(f"    {row}\n" for row in capsys.readouterr().out.splitlines()) == block


def test_hours_of_a_model_that_is_not_there_are_one_line(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = ["recipes/base-7b/train.toml", "--model", "nowhere"]
    assert program("hours.py").main(words) == 1
    told = capsys.readouterr().err
    assert told.startswith("hours.py: nowhere: no such model")
    assert told.count("\n") == 1


# ------------------------------------------------------------------------------- what run.sh does

RECORDER = """#!{python}
import json, sys
with open({log!r}, "a") as log:
    print(json.dumps(sys.argv[1:]), file=log)
"""


@pytest.fixture
def tree(tmp_path) -> Path:
    """The recipes in a folder of their own, where `record` in place of Python notes its words."""
    shutil.copytree(RECIPES, tmp_path / "recipes", ignore=shutil.ignore_patterns("work*"))
    record = tmp_path / "record"
    record.write_text(RECORDER.format(python=sys.executable, log=str(tmp_path / "log")))
    record.chmod(0o755)
    return tmp_path


def inputs(script: Path) -> dict[str, str]:
    """What a run.sh needs by default: variable to path."""
    text, shared = script.read_text(), (script.parents[1] / "stages.sh").read_text()
    said = r"^([A-Z_]+)=\$\{\1:-([^}\"]+)\}"
    defaults = dict(re.findall(said, shared, re.MULTILINE) + re.findall(said, text, re.MULTILINE))
    (needed,) = re.findall(r"^need ((?:[A-Z_]+|\s|\\\n)+)\n", text, re.MULTILINE)
    return {name: defaults[name] for name in needed.replace("\\", "").split()}


def recorded(tree: Path, name: str, **settings: str) -> list[list[str]]:
    """The commands of `spirit` that a run.sh gives, as lists of words."""
    for model in ("single-gpu", "base-7b", "asr-tts", "asr-tts-lora", name):
        (tree / "work" / model / "lm/model").mkdir(parents=True, exist_ok=True)
        (tree / "work" / model / "vocoder/vocoder").mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"PYTHON": str(tree / "record"), "LAUNCH": str(tree / "record")}
    command = [tree / "recipes" / name / "run.sh"]
    done = subprocess.run(command, env=environment | settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tree / "log").read_text().splitlines()]
    return [words[words.index("spirit") + 1 :] for words in lines if "spirit" in words]


@pytest.mark.parametrize("name", [*NAMES, "asr-tts LORA"])
def test_run_sh_types_what_the_command_line_knows_and_its_recipes_say(tree, name):
    name, *lora = name.split()
    script = tree / "recipes" / name / "run.sh"
    defaults = dict.fromkeys(inputs(script).values())
    for path in defaults:
        place = tree / path.replace("$from", "base-7b" if lora else "single-gpu")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch() if place.suffix else place.mkdir(exist_ok=True)
    commands = recorded(tree, name, **({"LORA": "1"} if lora else {}))
    trained = []
    for command in commands:
        verb: click.Command = main
        while isinstance(verb, click.Group):
            verb = verb.commands[command.pop(0)]
        said = verb.make_context(str(verb.name), command).params
        if "recipe" in said:
            path = tree / said["recipe"]
            form = KINDS[path.stem]
            # Called by hand or by sbatch, a recipe means what it means in run.sh.
            changed, plain = load(path, form, said["sets"]), load(path, form)
            assert changed == plain or path.parent.name != name
            trained.append(path.stem)
    assert trained[-1] in ("vocoder", "train", "train-lora")
    assert any(stem.startswith("train") for stem in trained)
    own = {path.stem for path in script.parent.glob("*.toml")}
    assert own - set(trained) <= {"train", "train-lora"}, "a TOML that no stage reads"


@pytest.mark.parametrize("name", NAMES)
def test_run_sh_says_what_is_missing(tree, name):
    first, path = next(iter(inputs(tree / "recipes" / name / "run.sh").items()))
    done = subprocess.run(
        [tree / "recipes" / name / "run.sh"], capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"{first}={path.replace('$from', 'single-gpu')} is not there" in done.stderr


# ---------------------------------------------------------------- three steps with stand-in models


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return data(tmp_path_factory.mktemp("recipes"))


@pytest.mark.parametrize("name", TRAININGS)
def test_three_steps_of_every_training(home, tmp_path, monkeypatch, name):
    if "lora" in name:
        pytest.importorskip("peft")
    monkeypatch.chdir(ROOT)  # where the paths of DeepSpeed's settings start
    sets = stand_in(home, name, tmp_path / "out")
    recipe = load(RECIPES / name, LMRecipe, sets)
    target = train(recipe)
    events = EventAccumulator(str(recipe.out / "logs")).Reload()
    losses = [point.value for point in events.Scalars("loss")]
    assert len(losses) == 3
    assert np.isfinite(losses).all()
    made, begun = AutoConfig.from_pretrained(target), AutoConfig.from_pretrained(recipe.init)
    assert made.model_type == begun.model_type
    assert made.vocab_size == Vocab.load(recipe.tokenizer / "vocab.json").size
    theta = recipe.rope_theta or begun.rope_parameters["rope_theta"]
    assert made.rope_parameters["rope_theta"] == theta


def test_another_rope_theta_is_as_if_the_text_model_had_it(home):
    shape = AutoConfig.from_pretrained(home / "llama")
    shape.rope_parameters = {**shape.rope_parameters, "rope_theta": 100_000.0}
    wanted = AutoModelForCausalLM.from_pretrained(home / "llama", config=shape)
    found = AutoModelForCausalLM.from_pretrained(home / "llama")
    ids = torch.arange(200)[None] % shape.vocab_size
    with torch.no_grad():
        before = found(ids).logits
        llama.set_rope_theta(found, 100_000.0)
        assert torch.equal(found(ids).logits, wanted(ids).logits)
        assert not torch.allclose(before, wanted(ids).logits)


def test_rope_theta_without_a_text_model_is_refused():
    with pytest.raises(ValueError, match=r"a new model has size\.rope_theta"):
        load(RECIPES / "tiny/lm1.toml", LMRecipe, ["rope_theta=100000.0"])
