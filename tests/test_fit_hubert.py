"""HuBERT and its units from a corpus: both iterations, stopped, resumed, never done twice."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from spirit.config import load
from spirit.data.corpus import read_corpus
from spirit.engine import TrainingConfig
from spirit.fit import HubertFitConfig, HubertShape, UnitsFitConfig, fit_hubert, fit_units
from spirit.speech.augment import augment
from spirit.speech.crops import Crops
from spirit.speech.hubert import Hubert
from spirit.speech.listen import from_16_bit, load_waves
from spirit.speech.mfcc import mfcc
from spirit.speech.purity import information, joint_counts, phone_labels
from spirit.speech.quantizer import KMeans
from tests.noises import make_noises

RECIPES = Path(__file__).parents[1] / "recipes" / "tiny"
SHAPE = HubertShape(
    hidden=32,
    layers=2,
    heads=2,
    ffn=48,
    conv_dim=(32, 32, 32),
    position_kernel=8,
    position_groups=4,
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Twelve recordings of "phones" that are noise around four frequencies, by two "speakers"."""
    return make_noises(
        tmp_path_factory.mktemp("corpus"),
        12,
        8,
        gain=lambda number: 0.1 * (1 + number % 2),
        about=lambda number: {"speaker": f"voice {number % 2}"},
    )


def recipe(corpus: Path, out: Path, steps: int = 6, **changes) -> HubertFitConfig:
    training = TrainingConfig(steps=steps, lr=1e-3, warmup=2, device="cpu", dtype="fp32")
    values = {"network": SHAPE, "clusters": 8, "frames": 20, "batch": 4, "training": training}
    return HubertFitConfig(corpus=corpus, out=out, **{**values, **changes})


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return Hubert.load(folder).state_dict()


@pytest.fixture(scope="module")
def first(corpus, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("hubert") / "1"
    fit_hubert(recipe(corpus, out))
    return out


def test_a_finished_run_does_nothing_again(first, corpus):
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    fit_hubert(recipe(corpus, first))
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == before


def test_the_recipe_as_run_is_kept(first, corpus):
    assert load(first / "recipe.toml", HubertFitConfig) == recipe(corpus, first)


def test_a_stopped_training_ends_as_if_it_had_run_through(first, corpus, tmp_path, monkeypatch):
    draw = Crops.draw

    def draw_and_stop(self, step):
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return draw(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Crops, "draw", draw_and_stop)
        with pytest.raises(KeyboardInterrupt):
            fit_hubert(recipe(corpus, tmp_path))
    assert not (tmp_path / "hubert.json").exists()
    fit_hubert(recipe(corpus, tmp_path))
    whole = weights(first)
    for name, value in weights(tmp_path).items():
        assert torch.equal(value, whole[name]), name


def test_the_second_iteration_learns_from_the_first(first, corpus, tmp_path):
    fit_hubert(recipe(corpus, tmp_path, teacher=first, teacher_layer=1, level=True))
    assert Hubert.load(tmp_path).channels == 32
    with pytest.raises(ValueError, match=r"holds no hubert\.json"):
        fit_hubert(recipe(corpus, tmp_path / "b", teacher=tmp_path / "nowhere"))


def test_targets_along_discriminants_tell_more_about_phones(first, corpus, tmp_path):
    told = {}
    for phones in (False, True):
        config = recipe(corpus, tmp_path / str(phones), teacher=first, phones=phones)
        fit_hubert(config)
        targets = load_file(config.out / "targets.safetensors")
        labels = np.split(targets["labels"], np.cumsum(targets["counts"])[:-1])
        names: dict[str, int] = {}
        spoken = [
            phone_labels(utterance.phones, names, len(row), 640)
            for utterance, row in zip(read_corpus(corpus), labels, strict=True)
        ]
        table = joint_counts(np.concatenate(labels).astype(np.int32), np.concatenate(spoken))
        told[phones] = information(table)
    assert told[True] > told[False]


def test_a_hubert_that_is_taught_the_phones_learns_to_name_them(corpus, tmp_path):
    accuracy = {}
    for steps in (2, 60):
        config = recipe(corpus, tmp_path / str(steps), steps, supervised=True)
        fit_hubert(config)
        assert not (config.out / "targets.safetensors").exists(), "nothing is clustered"
        hubert = Hubert.load(config.out)
        utterances = list(read_corpus(corpus))
        waves = [from_16_bit(wave) for wave in load_waves(utterances)]
        rows = [row.numpy() for row in hubert.features(waves)]
        names: dict[str, int] = {}
        spoken = [
            phone_labels(utterance.phones, names, len(row), 640)
            for utterance, row in zip(utterances, rows, strict=True)
        ]
        units = KMeans.fit(np.concatenate(rows), 4, seed=0).units
        table = joint_counts(
            np.concatenate([units(torch.from_numpy(row)) for row in rows]), np.concatenate(spoken)
        )
        accuracy[steps] = information(table)
    assert accuracy[60] > max(0.5, accuracy[2])


def test_a_corpus_without_phones_cannot_supervise(corpus, tmp_path):
    lines = [json.loads(line) for line in corpus.read_text().splitlines()]
    for line in lines:
        line["audio"] = str(corpus.parent / line["audio"])
        del line["phones"]
    silent = tmp_path / "silent.jsonl"
    silent.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ValueError, match="does not say which phones"):
        fit_hubert(recipe(silent, tmp_path / "out", supervised=True))


def test_kept_targets_change_nothing(first, corpus, tmp_path):
    fit_hubert(recipe(corpus, tmp_path / "a", teacher=first))
    again = tmp_path / "b"
    again.mkdir()
    (again / "targets.safetensors").write_bytes((tmp_path / "a/targets.safetensors").read_bytes())
    fit_hubert(recipe(corpus, again, teacher=first))  # killed once the targets were there
    for name, value in weights(tmp_path / "a").items():
        assert torch.equal(weights(again)[name], value), name


def test_a_warm_iteration_goes_on_from_the_weights_of_the_first(first, corpus, tmp_path):
    still = replace(recipe(corpus, tmp_path).training, lr=1e-12, weight_decay=0.0)
    fit_hubert(recipe(corpus, tmp_path, teacher=first, warm=True, training=still))
    for name, value in weights(first).items():
        assert torch.allclose(weights(tmp_path)[name], value, atol=1e-6), name
    with pytest.raises(ValueError, match="`teacher` is not set"):
        fit_hubert(recipe(corpus, tmp_path / "b", warm=True))


def test_a_teacher_on_another_clock_is_refused(first, corpus, tmp_path):
    faster = replace(SHAPE, conv_stride=(*SHAPE.conv_stride[:-1], 1))
    with pytest.raises(ValueError, match="must keep the time of its pupil"):
        fit_hubert(recipe(corpus, tmp_path, teacher=first, network=faster))


def test_units_never_take_the_place_of_other_files(first, corpus, tmp_path):
    (tmp_path / "diary.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds something else"):
        fit_units(UnitsFitConfig(corpus=corpus, out=tmp_path, hubert=first, units=8))
    assert (tmp_path / "diary.txt").read_text() == "mine"


def test_units_come_with_their_network_and_with_figures(first, corpus, tmp_path):
    config = UnitsFitConfig(
        corpus=corpus, out=tmp_path / "units", hubert=first, units=12, device="cpu"
    )
    figures = fit_units(config)
    assert set(figures) >= {"pnmi", "mfcc_pnmi", "phone_purity", "speaker", "used", "bitrate"}
    assert all(0 <= figures[key] <= 1 for key in figures if key not in ("bitrate", "ued_noise"))
    assert figures["mfcc_pnmi"] > 0.4  # four noises that differ this much are easy to tell apart
    hubert = Hubert.load(config.out)
    quantizer = KMeans.load(config.out / "units.safetensors")
    report = json.loads((config.out / "units.json").read_text())
    assert report["figures"] == figures
    assert len(report["pnmi_by_layer"]) == 2
    assert hubert.layer == len(hubert.network.encoder.layers) == report["layer"]
    wave = np.zeros(16_000, np.float32)
    assert quantizer.units(hubert.features([wave])[0]).shape == (25,)
    before = (config.out / "units.safetensors").stat().st_mtime_ns
    assert fit_units(config) == figures
    assert (config.out / "units.safetensors").stat().st_mtime_ns == before


def test_units_along_discriminants_tell_more_about_phones(first, corpus, tmp_path):
    config = UnitsFitConfig(
        corpus=corpus, out=tmp_path / "plain", hubert=first, units=6, layer=2, device="cpu"
    )
    plain = fit_units(config)
    turned = fit_units(replace(config, out=tmp_path / "turned", phones=True))
    assert turned["pnmi"] > plain["pnmi"]
    assert turned["mfcc_pnmi"] == plain["mfcc_pnmi"]


def test_mfcc_frames_lie_on_the_clock_of_hubert():
    """A click in the middle of frame 5 is loudest there, and every length has its frames."""
    wave = np.random.default_rng(0).standard_normal(20 * 640).astype(np.float32) * 1e-3
    wave[5 * 640 + 300 : 5 * 640 + 340] += 0.5
    level = mfcc(wave, 640).reshape(20, 4, 39)[:, :, 0].mean(1)
    assert level.argmax() == 5
    for samples in (1, 639, 640, 1_279, 1_280, 16_001):
        assert mfcc(np.resize(wave, samples), 640).shape == (max(1, samples // 640), 156)
    with pytest.raises(ValueError, match="not a multiple"):
        mfcc(wave, 100)


@pytest.mark.parametrize("stretch", [0.0, 0.2])
def test_crops_keep_every_target_on_its_sound(stretch):
    """Every sample holds the number of its frame, so that a crop can be checked by itself."""
    frames = [7, 10, 31]
    waves = [np.repeat(np.arange(count) + 1, 640).astype(np.int16) for count in frames]
    targets = [np.arange(count, dtype=np.int16) + 1 for count in frames]
    crops = Crops(waves, targets, hop=640, frames=10, batch=6, seed=0, stretch=stretch)
    for step in range(20):
        sound, wanted, _ = crops.draw(step)
        heard = sound.reshape(6, 10, 640)[:, :, 320] * 32_768
        middles = np.rint(heard)
        known = wanted >= 0
        # Where a stretched crop falls between two samples of two frames, either is right.
        sure = known & (np.abs(heard - middles) < 1e-3)
        np.testing.assert_array_equal(middles[sure], wanted[sure])
        assert (known.sum(axis=1) >= 5).all()
        again = crops.draw(step)
        np.testing.assert_array_equal(again[0], sound)


def test_an_epoch_of_crops_visits_everything_by_its_length():
    waves = [np.full(640 * count, index, np.int16) for index, count in enumerate([10, 30, 5], 1)]
    targets = [np.full(count, index, np.int16) for index, count in enumerate([10, 30, 5], 1)]
    crops = [
        Crops(waves, targets, hop=640, frames=10, batch=1, seed=0, rank=rank, world=2)
        for rank in range(2)
    ]
    heard = sorted(int(crop.draw(step)[1].max()) for step in range(5) for crop in crops)
    assert heard == sorted([1, 2, 2, 2, 3] * 2)


def test_augmentation_changes_level_noise_and_band_but_keeps_the_speech():
    wave = torch.from_numpy(np.sin(np.arange(16_000) * 0.4).astype(np.float32) * 0.1)[None]
    wave = wave.expand(40, -1)
    worse = augment(wave.clone(), np.random.default_rng(0), 1.0)
    assert worse.shape == wave.shape
    alike = torch.nn.functional.cosine_similarity(worse, wave)
    assert alike.min() > 0.85
    assert alike.max() < 0.99999
    level = worse.std(dim=1) / wave.std(dim=1)
    assert level.max() / level.min() > 4
    louder = augment(wave.clone(), np.random.default_rng(0), 0.0)
    torch.testing.assert_close(torch.nn.functional.cosine_similarity(louder, wave), torch.ones(40))


@pytest.mark.parametrize("name", ["hubert1", "hubert2"])
def test_recipes_are_valid(name):
    config = load(RECIPES / f"{name}.toml", HubertFitConfig)
    assert Hubert.new(**vars(config.network)).hop == 640
    assert (config.teacher is None) == (name == "hubert1")


def test_units_recipes_are_valid():
    assert load(RECIPES / "units.toml", UnitsFitConfig).units == 500
