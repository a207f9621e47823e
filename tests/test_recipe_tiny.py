"""The tiny recipe: every TOML is understood in every preset, and the whole of it runs."""

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from spirit.config import load
from spirit.fit import HubertFitConfig, PitchConfig, StyleConfig, TokenizerConfig, UnitsFitConfig
from spirit.lm.train import LMRecipe
from spirit.vocoder.recipe import VocoderRecipe

ROOT = Path(__file__).parents[1]
TINY = ROOT / "recipes" / "tiny"
STAGES = {
    "pitch": ("pitch.toml", PitchConfig),
    "hubert1": ("hubert1.toml", HubertFitConfig),
    "hubert2": ("hubert2.toml", HubertFitConfig),
    "units": ("units.toml", UnitsFitConfig),
    "style": ("style.toml", StyleConfig),
    "tokenizer": ("tokenizer.toml", TokenizerConfig),
    "lm1": ("lm1.toml", LMRecipe),
    "lm2": ("lm2.toml", LMRecipe),
    "lm3": ("lm3.toml", LMRecipe),
    "lm4": ("lm.toml", LMRecipe),
    "lm": ("lm.toml", LMRecipe),
    "vocoder1": ("vocoder1.toml", VocoderRecipe),
    "vocoder2": ("vocoder.toml", VocoderRecipe),
    "vocoder3": ("vocoder.toml", VocoderRecipe),
    "vocoder4": ("vocoder.toml", VocoderRecipe),
}
PRESETS = ("quick", "full", "best", "smoke")


def changes(preset: str) -> dict[str, list[str]]:
    """What a preset changes, stage by stage."""
    lines = (TINY / f"{preset}.sets").read_text().splitlines()
    words = [line.split() for line in lines if line and not line.startswith("#")]
    return {first: rest for first, *rest in words}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("stage", STAGES)
def test_every_recipe_is_understood_in_every_preset(stage, preset):
    name, config = STAGES[stage]
    load(TINY / name, config, changes(preset).get(stage, []))


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_changes_only_stages_that_exist(preset):
    assert set(changes(preset)) <= {*STAGES, "corpus", "eval"}


def test_every_toml_belongs_to_a_stage():
    assert {path.name for path in TINY.glob("*.toml")} == {name for name, _ in STAGES.values()}


def test_an_unknown_preset_is_one_line(tmp_path):
    done = subprocess.run(
        [TINY / "run.sh"],
        env=os.environ | {"PRESET": "huge", "WORK": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "PRESET=quick" in done.stderr


def needs_its_packages() -> None:
    """The recipe installs them where it may; elsewhere it cannot run."""
    packages = ["flite", "asterisk-core-sounds-en-g722"]
    try:
        found = subprocess.run(["dpkg-query", "-W", *packages], capture_output=True).returncode == 0
    except FileNotFoundError:
        pytest.skip("not Debian")
    if not found and os.geteuid() != 0:
        pytest.skip("flite and asterisk-core-sounds-en-g722 are not installed")


def test_the_mean_of_models_lies_between_them_and_is_whole(tmp_path):
    sys.path.insert(0, str(TINY))
    from average import average

    first, second, third = shares = {tmp_path / name / "model": 0.25 for name in "abc"}
    shares[third] = 0.5
    for value, folder in enumerate(shares):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(folder.parent.name)
        (folder / "recipe.toml").write_text("seed = 1\n")
        rows = {
            "a": torch.full((2, 3), value, dtype=torch.bfloat16),
            "b": torch.full((4,), float(value)),
        }
        save_file(rows, folder / "model.safetensors")
    average(shares, tmp_path / "mean")
    mixed = load_file(tmp_path / "mean/model.safetensors")
    assert mixed["a"].dtype == torch.bfloat16
    assert torch.equal(mixed["a"].float(), torch.full((2, 3), 1.25))
    assert torch.equal(mixed["b"].float(), torch.full((4,), 1.25).to(mixed["b"].dtype).float())
    assert (tmp_path / "mean/config.json").read_text() == "c"
    recipe = (tmp_path / "mean/recipe.toml").read_text()
    assert recipe.splitlines()[0].startswith("# The weights are the mean 0.25 a + 0.25 b + 0.5 c;")
    assert tomllib.loads(recipe) == {"seed": 1}
    with pytest.raises(ValueError, match=r"add up to 0\.5, not to 1"):
        average({first: 0.25, second: 0.25}, tmp_path / "other")
    save_file({"a": torch.zeros(1)}, first / "model.safetensors")
    with pytest.raises(ValueError, match="are not the same network"):
        average(shares, tmp_path / "other")
    assert not (tmp_path / "other").exists()


STOPS = {"hubert1": (signal.SIGTERM, 143), "lm": (signal.SIGINT, 130), "eval": (signal.SIGKILL, -9)}
"""At which stage the recipe is stopped, how, and what it then ends with."""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_recipe_runs_and_goes_on_after_every_kind_of_stop(tmp_path):
    needs_its_packages()
    work, out = tmp_path / "work", tmp_path / "out"
    settings = {"SMOKE": "1", "WORK": str(work), "OUT": str(out), "PYTHON": sys.executable}
    with (tmp_path / "log").open("w+") as log:
        for stage, (number, status) in STOPS.items():
            run = subprocess.Popen([TINY / "run.sh"], env=os.environ | settings, stderr=log)
            until = time.monotonic() + 300
            while not (work / f"log/{stage}.log").is_file() and time.monotonic() < until:
                assert run.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.2)
            run.send_signal(number)
            assert run.wait(90) == status
            assert not out.joinpath("checkpoints").exists()
        last = subprocess.run(
            [TINY / "run.sh"],
            env=os.environ | settings,
            stderr=log,
            stdout=subprocess.PIPE,
            text=True,
        )
    told = (tmp_path / "log").read_text()
    assert last.returncode == 0, told
    assert "-- corpus: done before" in told
    assert "-- vocoder: done before" in told
    assert "heard: speech to text" in last.stdout
    _check_bundle(out, work)


def _check_bundle(out: Path, work: Path) -> None:
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    assert 1e6 < size <= 40e6
    from spirit.pipeline import Spirit

    spirit = Spirit.load(out / "checkpoints/tiny", device="cpu")
    assert "allison" in spirit.vocoder.speakers
    card = (out / "checkpoints/tiny/README.md").read_text()
    figures = json.loads((work / "eval/figures.json").read_text())
    assert f"{100 * figures['figures']['heard']['value']:.1f} %" in card
    assert "Preset `smoke`" in card
