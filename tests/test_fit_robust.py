"""Units that withstand noise, rooms and tempo; and k-means units of a stream, from a corpus."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from spirit.cli import main
from spirit.config import load
from spirit.engine import TrainingConfig
from spirit.fit import (
    RobustFitConfig,
    TokenizerConfig,
    UnitsFitConfig,
    fit_robust,
    fit_tokenizer,
    fit_units,
)
from spirit.formats.quantizers import read_quantizer
from spirit.speech import listen
from spirit.speech.crops import Crops
from spirit.speech.distillation import layer_sizes
from spirit.speech.distort import WAYS, distort
from spirit.speech.hubert import Hubert
from spirit.speech.quantizer import CTCLinear, KMeans
from spirit.speech.robustness import edits, unit_edit_distance
from spirit.tokenizer import Tokenizer
from spirit.units import Kind
from tests.noises import make_noises


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Recordings of "phones" that are noise around four frequencies."""
    return make_noises(tmp_path_factory.mktemp("corpus"), 60, 12)


@pytest.fixture(scope="module")
def hubert(tmp_path_factory) -> Path:
    """Ears without training: filters on the mel scale, and a layer that mixes what they hear."""
    torch.manual_seed(0)
    out = tmp_path_factory.mktemp("hubert")
    Hubert.new(
        hidden=32,
        layers=1,
        heads=2,
        ffn=48,
        conv_dim=(32, 32, 32),
        conv_kernel=(400, 4, 4),
        conv_stride=(160, 2, 2),
        position_kernel=8,
        position_groups=4,
    ).save(out)
    return out


@pytest.fixture(scope="module")
def units(corpus, hubert, tmp_path_factory) -> UnitsFitConfig:
    out = tmp_path_factory.mktemp("units") / "held"
    config = UnitsFitConfig(
        corpus=corpus, out=out, hubert=hubert, units=6, layer=1, phones=True, device="cpu"
    )
    fit_units(config)
    return config


def recipe(corpus: Path, units: Path, out: Path, steps: int = 6, **changes) -> RobustFitConfig:
    training = TrainingConfig(steps=steps, lr=1e-2, warmup=5, device="cpu", dtype="fp32")
    return RobustFitConfig(
        corpus=corpus, units=units, out=out, frames=25, batch=16, training=training, **changes
    )


@pytest.fixture(scope="module")
def taught(corpus, units, tmp_path_factory) -> tuple[RobustFitConfig, dict[str, float]]:
    """A quantizer after a few seconds of training."""
    out = tmp_path_factory.mktemp("robust") / "1"
    config = recipe(corpus, units.out, out, steps=200, ways=("noise", "band"))
    return config, fit_robust(config)


def test_a_taught_quantizer_changes_less_under_noise_than_its_teacher(taught):
    _, figures = taught
    assert figures["teacher_ued_noise"] > 20
    assert figures["ued_noise"] < 0.9 * figures["teacher_ued_noise"]
    # It would also be steady if it said nothing.
    assert figures["pnmi"] > 0.9 * figures["teacher_pnmi"]
    assert set(figures) >= {"used", "bitrate", "speaker", "phone_purity", "ued_band"}


def test_it_leaves_what_fit_units_leaves(taught):
    config, figures = taught
    quantizer = read_quantizer(config.out / "units.safetensors")
    assert isinstance(quantizer, CTCLinear)
    assert (quantizer.channels, quantizer.classes) == (32, 7)
    assert Hubert.load(config.out).layer == 1
    report = json.loads((config.out / "units.json").read_text())
    assert report["figures"] == figures
    assert load(config.out / "recipe.toml", RobustFitConfig) == config


def test_a_tokenizer_takes_it(taught, tmp_path):
    folder = taught[0].out
    made = fit_tokenizer(TokenizerConfig(out=tmp_path / "t", hubert=folder, units=folder))
    assert made["hubert"] == 7
    wave = np.random.default_rng(0).standard_normal(16_000).astype(np.float32) * 0.1
    tracks = Tokenizer.load(tmp_path / "t").encoder.encode(wave)
    assert len(tracks.by_kind[Kind.HUBERT].unit) == 25


def test_a_finished_one_is_not_made_again(taught):
    config, figures = taught
    before = {path: path.stat().st_mtime_ns for path in config.out.rglob("*")}
    assert fit_robust(config) == figures
    assert {path: path.stat().st_mtime_ns for path in config.out.rglob("*")} == before


def test_a_stopped_training_ends_as_if_it_had_run_through(corpus, units, tmp_path, monkeypatch):
    draw = Crops.draw

    def draw_and_stop(self, step):
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return draw(self, step)

    whole, stopped = (recipe(corpus, units.out, tmp_path / name) for name in ("a", "b"))
    figures = fit_robust(whole)
    with monkeypatch.context() as patch:
        patch.setattr(Crops, "draw", draw_and_stop)
        with pytest.raises(KeyboardInterrupt):
            fit_robust(stopped)
    assert not (stopped.out / "units.json").exists()
    assert fit_robust(stopped) == figures
    files = [config.out / "units.safetensors" for config in (whole, stopped)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_quantizer_teaches_the_next_iteration(taught, corpus, tmp_path):
    figures = fit_robust(recipe(corpus, taught[0].out, tmp_path / "2", steps=2, ways=("noise",)))
    assert figures["teacher_ued_noise"] == taught[1]["ued_noise"]
    assert len(read_quantizer(tmp_path / "2" / "units.safetensors")) == 7


def test_mistakes_are_one_line(corpus, units, tmp_path):
    path = tmp_path / "robust.toml"
    path.write_text(
        f'corpus = "{corpus}"\nunits = "{units.out}"\nout = "{units.out}"\n'
        '[training]\nsteps = 2\nlr = 1e-3\ndevice = "cpu"\n'
    )

    def line(*arguments: str) -> str:
        done = CliRunner().invoke(main, ["fit", "robust", str(path), *arguments])
        assert done.exit_code == 1
        assert done.stderr.startswith("spirit: ")
        assert done.stderr.count("\n") == 1
        return done.stderr

    assert "is the folder of the teacher" in line()
    assert "'hiss' is none of stretch, reverb" in line("--set", 'ways=["hiss"]')
    assert "holds no hubert.json" in line(
        "--set", f"out={tmp_path / 'o'}", "--set", "units=nowhere"
    )


@pytest.mark.parametrize("phones", [False, True])
def test_a_stream_of_a_corpus_is_clustered_as_well(
    corpus, hubert, units, tmp_path, monkeypatch, phones
):
    """With room for a quarter of the frames, in blocks of three seconds; killed in between."""
    monkeypatch.setattr("spirit.fit.stream.BLOCK_SECONDS", 3.0)
    memory = 600 * 32 * 4 / 1e6 * (2 if phones else 1)
    config = replace(
        units, out=tmp_path / "units", memory=memory, passes=3, phones=phones, report_seconds=3
    )
    heard = listen.load_waves
    calls = 0

    def load_and_die(utterances, told="reading"):
        nonlocal calls
        calls += told == ""
        if calls == 70:
            raise KeyboardInterrupt
        return heard(utterances, told)

    with monkeypatch.context() as patch:
        patch.setattr("spirit.fit.stream.load_waves", load_and_die)
        with pytest.raises(KeyboardInterrupt):
            fit_units(config)
    assert [path.name for path in config.out.iterdir()] == ["passes.safetensors"]
    figures = fit_units(config)
    through = replace(config, out=tmp_path / "through")
    assert fit_units(through) == figures
    kept, other = (KMeans.load(c.out / "units.safetensors") for c in (config, through))
    assert torch.equal(kept.centroids, other.centroids)
    assert (kept.projection is not None) == phones
    assert not (config.out / "passes.safetensors").exists()
    report = json.loads((config.out / "units.json").read_text())
    errors = report["error_by_pass"]
    assert len(errors) > 1
    assert errors == sorted(errors, reverse=True)
    assert figures["pnmi"] > 0.5
    assert figures["ued_noise"] > 0


def test_too_little_memory_is_named(corpus, units, tmp_path):
    config = replace(units, out=tmp_path / "units", memory=1e-4, phones=False)
    with pytest.raises(ValueError, match=r"too few for 6 units; .*more than 0\.0001 MB"):
        fit_units(config)
    with pytest.raises(ValueError, match="passes at least 1"):
        replace(units, passes=0)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("samples", [1, 700, 16_000])
def test_every_way_keeps_speech_finite_and_in_time(way, samples):
    """A burst stays where it was (stretched: in proportion), and any length is taken."""
    wave = np.zeros(samples, np.float32)
    at = samples * 3 // 4
    wave[at - samples // 16 : at + samples // 16 + 1] = np.sin(
        np.arange(samples // 16 * 2 + 1) * 0.6
    )
    worse = WAYS[way](wave, np.random.default_rng(1))
    assert worse.dtype == np.float32
    assert np.isfinite(worse).all()
    if way != "stretch":
        assert len(worse) == samples
    if samples == 16_000:
        energy = np.convolve(worse**2, np.ones(400), "same")
        assert abs(energy.argmax() / len(worse) - 0.75) < 0.06
        assert not np.array_equal(worse, wave)
        again = WAYS[way](wave, np.random.default_rng(1))
        np.testing.assert_array_equal(worse, again)


def test_only_the_ways_that_are_named_happen_and_as_often_as_is_said():
    wave = np.sin(np.arange(800) * 0.3).astype(np.float32)
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(distort(wave, rng, (), 1.0), wave)
    changed = [not np.array_equal(distort(wave, rng, ("level",), 0.3), wave) for _ in range(400)]
    assert 0.2 < np.mean(changed) < 0.4


def test_edits_are_those_of_levenshtein():
    def row(text: str) -> np.ndarray:
        return np.array([ord(letter) for letter in text], np.int32)

    for before, after, count in (
        ("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("abc", "abc", 0),
        ("flaw", "lawn", 2), ("ab", "ba", 2), ("intention", "execution", 5),
    ):  # fmt: skip
        assert edits(row(before), row(after)) == edits(row(after), row(before)) == count
    # aabb -> ab, abbb -> ab: no edits; cc -> c, dd -> d: one; of three units in all.
    clean, worse = [row("aabb"), row("cc")], [row("abbb"), row("dd")]
    assert unit_edit_distance(clean, worse) == pytest.approx(100 / 3)


def test_layers_are_as_wide_as_in_the_release():
    assert layer_sizes(768, 500) == (768, 702, 635, 501)
    assert layer_sizes(256, 500) == (256, 318, 379, 501)
