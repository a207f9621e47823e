"""Training the vocoder: both phases run, it learns, resumes exactly, and the voice speaks."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from spirit.audio import write_audio
from spirit.data.shards import Row, write_shards
from spirit.engine import TrainingConfig
from spirit.units import SAMPLE_RATE, Kind, Track, Tracks
from spirit.vocab import Vocab
from spirit.vocoder import Vocoder
from spirit.vocoder.discriminator import Discriminators
from spirit.vocoder.losses import (
    SpectralLoss,
    discriminator_loss,
    feature_loss,
    generator_loss,
    mel_filters,
)
from spirit.vocoder.recipe import JudgesConfig, NetworkConfig, VocoderRecipe
from spirit.vocoder.segments import Draw, draw_batch, read_clips
from spirit.vocoder.train import fit

VOCAB = Vocab.build(256, 256, 257, units={Kind.HUBERT: 6, Kind.PITCH: 3, Kind.STYLE: 2})
"""Each unit is a tone of its own, so that there is something to learn."""


def hear_f0(waves: list[torch.Tensor]) -> list[torch.Tensor]:
    """A stand-in for an extractor: the first half of every wave is voiced at 120 Hz."""
    heard = []
    for wave in waves:
        f0 = torch.zeros(len(wave) // 80 + 1)
        f0[: len(f0) // 2] = 120.0
        heard.append(f0)
    return heard


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six recordings of tones with their unit shards."""
    folder, rng = tmp_path_factory.mktemp("corpus"), np.random.default_rng(0)
    rows = []
    for index in range(6):
        frames = 14 + index
        unit = np.repeat(rng.integers(0, 6, frames), 3)[:frames]
        pitch, style = rng.integers(0, 3, -(-frames // 2)), np.array([index % 2])
        hertz = np.repeat(200.0 * (unit + 1), 640)
        wave = 0.3 * np.sin(2 * np.pi * np.cumsum(hertz) / SAMPLE_RATE).astype(np.float32)
        name = f"clip{index}.wav"
        write_audio(folder / name, wave)
        hops = {Kind.HUBERT: 640, Kind.PITCH: 1280, Kind.STYLE: 16_000}
        of = {Kind.HUBERT: unit, Kind.PITCH: pitch, Kind.STYLE: style}
        tracks = Tracks({kind: Track(kind, of[kind], Fraction(hop)) for kind, hop in hops.items()})
        speaker = "ann" if index % 2 else "bob"
        seconds = len(wave) / SAMPLE_RATE
        rows.append(Row(f"id{index}", name, seconds, "", (), speaker, "en", "flat", tracks))
    write_shards(folder / "units", rows, VOCAB, tokenizer="none")
    return folder


def recipe(corpus: Path, out: Path, steps: int = 8) -> VocoderRecipe:
    return VocoderRecipe(
        units=corpus / "units",
        audio=corpus,
        out=out,
        without="5$",
        batch=3,
        frames=8,
        before=4,
        sizes=(512, 256),
        network=NetworkConfig(
            unit_width=16,
            pitch_width=4,
            style_width=4,
            speaker_width=4,
            channels=(24, 16),
            rates=(5,),
            kernels=(10,),
            block_kernels=(3,),
            block_dilations=((1,),),
            block_pairs=False,
            post_kernel=3,
            head="istft",
            hop=128,
            n_fft=512,
            source=True,
            right=(2, 0),
            duration_hidden=16,
            contour_hidden=16,
        ),
        judges=JudgesConfig(
            start=4,
            every=2,
            batch=2,
            frames=6,
            periods=(2, 3),
            period_channels=(4, 8),
            sizes=(256,),
            size_channels=(4, 4),
        ),
        training=TrainingConfig(steps=steps, lr=2e-3, warmup=2, dtype="fp32", log_every=1),
        validate_every=4,
        validate_clips=2,
    )


def scalars(logs: Path) -> dict[str, list[float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(logs)).Reload()
    return {tag: [e.value for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_both_phases_run_and_the_voice_speaks(corpus: Path, tmp_path: Path) -> None:
    fit(recipe(corpus, tmp_path / "run"), hear_f0)
    voice = Vocoder.load(tmp_path / "run/vocoder")
    assert voice.speakers == ("ann", "bob")
    assert voice.alphabet == {"unit": 6, "pitch": 3, "style": 2}
    assert 0.2 < voice.pace < 5
    units = Track(Kind.HUBERT, np.array([1, 1, 2]), Fraction(640))
    assert voice.synthesize(Tracks({Kind.HUBERT: units}), "bob").shape == (1920,)
    logged = scalars(tmp_path / "run/logs")
    assert len(logged["spectral"]) == 8
    assert len(logged["fooling"]) == len(logged["discriminators"]) == 2  # steps 4 and 6
    assert len(logged["held_out"]) == 2
    assert all(np.isfinite(values).all() for values in logged.values())
    before = (tmp_path / "run/vocoder/model.safetensors").stat()
    fit(recipe(corpus, tmp_path / "run"), hear_f0)  # finished: nothing happens again
    assert (tmp_path / "run/vocoder/model.safetensors").stat() == before


def test_a_stopped_training_ends_like_one_that_ran_through(corpus: Path, tmp_path: Path) -> None:
    whole = recipe(corpus, tmp_path / "whole", steps=7)
    fit(whole, hear_f0)
    halves = replace(whole, out=tmp_path / "halves")
    calls = []

    def interrupted(waves: list[torch.Tensor]) -> list[torch.Tensor]:
        calls.append(len(waves))
        return hear_f0(waves)

    class Stop(Exception):
        pass

    from spirit.vocoder import train as module

    original = module.Step.__call__

    def step(self: module.Step, i: int) -> dict[str, float | torch.Tensor]:
        if i == 5 and not (tmp_path / "stopped").exists():
            (tmp_path / "stopped").touch()
            raise Stop
        return original(self, i)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.Step, "__call__", step)
        saving = replace(halves, training=replace(halves.training, save_seconds=0.0))
        with pytest.raises(Stop):
            fit(saving, interrupted)
        fit(saving, interrupted)
    assert len(calls) == 1  # F0 was heard once
    ends = [(tmp_path / name / "vocoder/model.safetensors") for name in ("whole", "halves")]
    assert ends[0].read_bytes() == ends[1].read_bytes()


def test_spectra_come_nearer(corpus: Path, tmp_path: Path) -> None:
    long = recipe(corpus, tmp_path / "run", steps=60)
    never = replace(long.judges, start=1_000)
    fit(replace(long, judges=never, validate_every=30), hear_f0)
    losses = scalars(tmp_path / "run/logs")["spectral"]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:3])


def test_batches_are_drawn_from_the_generator_alone(corpus: Path, tmp_path: Path) -> None:
    from spirit.data.shards import read_shards

    clips, speakers = read_clips(
        read_shards(corpus / "units"),
        corpus,
        frame=640,
        hop=160,
        without="",
        hear_f0=hear_f0,
        cache=tmp_path,
    )
    assert speakers == ["ann", "bob"]
    draw = Draw(batch=5, frames=8, before=4, after=2, written=0.5, drop=0.5)
    absent = {"pitch": 3, "style": 2}
    one, two = (draw_batch(clips, draw, absent, 160, np.random.default_rng(3)) for _ in range(2))
    assert torch.equal(one.wave, two.wave)
    assert torch.equal(one.frames["unit"], two.frames["unit"])
    assert one.frames["unit"].shape == (5, 14)
    assert one.wave.shape == (5, 8 * 640)
    assert one.log_f0.shape == one.voiced.shape == (5, 32)
    assert {0, 1} >= set(one.voiced.unique().tolist())
    torch.testing.assert_close(one.log_f0, torch.full((5, 32), float(np.log(120.0))))
    # A tone's unit tells its frequency: units and sound belong to the same frames.
    for row in range(5):
        for frame in range(8):
            sound = one.wave[row, frame * 640 : (frame + 1) * 640]
            peak = int(torch.fft.rfft(sound).abs().argmax()) * 25
            assert abs(peak - 200 * (1 + int(one.frames["unit"][row, 4 + frame]))) <= 25
    assert (one.frames["pitch"] == 3).all(dim=1).any()  # some segments lack pitch
    assert not (one.frames["pitch"] == 3).all()


def test_a_corpus_that_does_not_fit_is_refused_in_one_line(corpus: Path, tmp_path: Path) -> None:
    good = recipe(corpus, tmp_path / "run")
    wrong = [
        (replace(good, without="."), "without"),
        (replace(good, frames=100), "frames long"),
        (replace(good, audio=tmp_path), "no such file"),
        (replace(good, units=tmp_path / "none"), "no such folder"),
        (replace(good, network=replace(good.network, rates=(4,))), "samples"),
    ]
    for bad, words in wrong:
        with pytest.raises(ValueError, match=words) as caught:
            fit(bad, hear_f0)
        assert "\n" not in str(caught.value)


def test_a_wave_is_nearest_to_itself() -> None:
    distance, wave = SpectralLoss((512, 256)), torch.randn(2, 4_000)
    assert float(distance(wave, wave)) == 0
    assert float(distance(wave * 0.5, wave)) < float(distance(wave * 0.1, wave))


def test_mel_filters_cover_the_band_once() -> None:
    filters = mel_filters(513, 80)
    assert filters.shape == (80, 513)
    np.testing.assert_allclose(filters.sum(1), 1, rtol=1e-5)
    assert (np.diff((filters * np.arange(513)).sum(1)) > 0).all()


def test_least_squares_losses_want_what_they_should() -> None:
    yes, no = [(torch.ones(4), [torch.ones(3)])], [(torch.zeros(4), [torch.zeros(3)])]
    assert float(discriminator_loss(yes, no)) == 0
    assert float(discriminator_loss(no, yes)) == 2
    assert float(generator_loss(yes)) == 0
    assert float(generator_loss(no)) == 1
    assert float(feature_loss(yes, no)) == 1


def test_discriminators_judge_every_period_and_size() -> None:
    judges = Discriminators(
        periods=(2, 3), period_channels=(4, 4), sizes=(128, 64), size_channels=(2, 2)
    )
    opinions = judges(torch.randn(3, 1_000))
    assert len(opinions) == 4
    assert all(len(features) == 2 and len(score) % 3 == 0 for score, features in opinions)
