"""The vocoder as a network and as a voice: shapes, look-ahead, pitch, durations, refusals."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spirit import config
from spirit.units import Kind, Track, Tracks, Units
from spirit.vocoder import Vocoder
from spirit.vocoder.frames import NONE, hold, lay_out, lengths, runs
from spirit.vocoder.generator import Generator
from spirit.vocoder.recipe import NetworkConfig, VocoderRecipe, parts
from spirit.vocoder.source import excite, noise, overlap_add, spectra
from spirit.vocoder.voice import Voice

RECIPES = Path(__file__).parent.parent / "recipes"
ALPHABET = {"unit": 12, "pitch": 5, "style": 3}
SMALL = {
    "unit_width": 8,
    "pitch_width": 4,
    "style_width": 4,
    "speaker_width": 4,
    "block_kernels": (3, 5),
    "block_dilations": ((1, 2), (1, 2)),
    "duration_hidden": 8,
    "contour_hidden": 8,
}
HEADS = {
    "hifigan": {"channels": (16, 8, 8), "rates": (5, 4), "kernels": (11, 8), "pre_kernel": 7},
    "spectra": {"channels": (16, 8), "rates": (5,), "kernels": (10,), "head": "istft"}
    | {"hop": 4, "n_fft": 16, "block_pairs": False, "right": (2, 0), "pre_dilations": (1, 2)},
    "source": {"channels": (16, 8), "rates": (5,), "kernels": (10,), "head": "istft"}
    | {"hop": 4, "n_fft": 16, "block_pairs": False, "right": (2, 0), "source": True},
}
"""20 samples a frame instead of 640: the same networks, 32 times faster."""


def build(head: str, speakers: int = 2) -> Voice:
    torch.manual_seed(0)
    network = NetworkConfig(**SMALL, **HEADS[head])  # type: ignore[arg-type]
    return Voice(**parts(network, ALPHABET, speakers)).eval()


def vocoder(head: str = "source") -> Vocoder:
    absent = {"pitch": ALPHABET["pitch"], "style": ALPHABET["style"]}
    return Vocoder(build(head), ["ann", "bob"], ALPHABET, absent=absent)


@st.composite
def tracks(draw: st.DrawFn) -> Tracks:
    """Tracks of one stretch as an encoder makes them, 20 samples per frame."""
    frames = draw(st.integers(1, 60))
    rows = {
        Kind.HUBERT: (12, 20, frames),
        Kind.PITCH: (5, 40, -(-frames // 2)),
        Kind.STYLE: (3, 500, -(-frames // 25)),
    }
    return Tracks(
        {
            kind: Track(
                kind,
                np.array(draw(st.lists(st.integers(0, top - 1), min_size=n, max_size=n))),
                Fraction(hop),
            )
            for kind, (top, hop, n) in rows.items()
        }
    )


SPOKEN = Tracks(
    {
        Kind.HUBERT: Track(Kind.HUBERT, np.array([1, 1, 1, 4, 4, 7, 2, 2, 2, 2]), Fraction(20)),
        Kind.PITCH: Track(Kind.PITCH, np.array([0, 0, 3, 3, 1]), Fraction(40)),
        Kind.STYLE: Track(Kind.STYLE, np.array([2]), Fraction(500)),
    }
)


def ids(frames: int, batch: int = 1) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(0)
    tops = {**ALPHABET, "speaker": 2}
    return {k: torch.from_numpy(rng.integers(0, top, (batch, frames))) for k, top in tops.items()}


def speak(voice: Voice, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    real = torch.ones_like(inputs["unit"], dtype=torch.bool)
    sound = None
    if voice.contour is not None:
        log_f0, voiced = voice.contour(voice.generator.join(inputs), real)
        pulses, _ = excite(torch.exp(log_f0), torch.sigmoid(voiced), voice.hop)
        sound = torch.stack([pulses, noise(pulses.shape[1]).expand_as(pulses)], dim=1)
    return voice.generator(inputs, sound, real).detach()


@pytest.mark.parametrize("head", HEADS)
def test_reach_is_the_true_reach(head: str) -> None:
    voice = build(head)
    back, ahead = voice.reach()
    frame, place, size = voice.generator.frame, 60, 120
    before = ids(size)
    after = {**before, "unit": before["unit"].clone()}
    after["unit"][0, place] = (after["unit"][0, place] + 1) % 12
    # In double precision a change anywhere within reach shows, and none beyond it.
    voice.double()
    changed = np.flatnonzero((speak(voice, before) != speak(voice, after))[0].numpy())
    assert changed[0] >= place * frame - ahead
    assert changed[0] < place * frame - ahead + frame  # and it does look so far
    if head != "source":  # a changed pitch moves the phase of all later pulses
        assert changed[-1] < (place + 1) * frame + back


def test_bundled_voice_looks_ahead_a_tenth_of_a_second_at_most() -> None:
    recipe = config.load(RECIPES / "tiny/vocoder.toml", VocoderRecipe)
    first = config.load(RECIPES / "tiny/vocoder1.toml", VocoderRecipe)
    assert recipe.network == first.network  # from which it goes on
    voice = Voice(**parts(recipe.network, {"unit": 200, "pitch": 64, "style": 6}, 5))
    assert voice.generator.frame == 640
    assert voice.reach()[1] <= 1_600
    assert recipe.judges.start < recipe.training.steps


def test_default_network_has_the_released_size() -> None:
    """The model card says 15 M parameters, with 100 styles and 200 speakers."""
    inputs = parts(NetworkConfig(), {"unit": 501, "pitch": 64, "style": 100}, 200)["generator"]
    generator = Generator(**inputs)
    assert generator.frame == 640
    assert 14.0e6 < sum(weight.numel() for weight in generator.parameters()) < 15.0e6
    assert 0.3 * 16_000 < generator.reach()[1] < 0.9 * 16_000


@pytest.mark.parametrize("head", ["spectra", "source"])
def test_a_voice_that_looks_ahead_only_in_its_slow_layers_ignores_padding(head: str) -> None:
    voice = build(head)
    alone, padded = ids(7), ids(7)
    padded = {name: torch.cat([row, row[:, :3]], dim=1) for name, row in alone.items()}
    real = torch.arange(10)[None] < 7
    sound = None if head == "spectra" else torch.randn(1, 2, 200)
    want = voice.generator(alone, None if sound is None else sound[:, :, :140])
    got = voice.generator(padded, sound, real)
    late = voice.generator.n_fft - voice.generator.hop  # later spectra sound into these
    torch.testing.assert_close(got[:, : 140 - late], want[:, : 140 - late], rtol=0, atol=1e-6)


def test_pulses_follow_the_pitch_and_go_on_where_they_stopped() -> None:
    f0 = torch.linspace(100, 300, 200)[None].repeat(2, 1)
    voiced = torch.ones_like(f0)
    whole, end = excite(f0, voiced, 160)
    first, phase = excite(f0[:, :100], voiced[:, :100], 160)
    assert whole.shape == (2, 32_000)
    torch.testing.assert_close(whole[:, :16_000], first)
    steady, _ = excite(torch.full((1, 100), 200.0), torch.ones(1, 100), 160)
    power = torch.fft.rfft(steady[0]).abs()
    assert set(torch.topk(power, 38).indices.tolist()) == {200 * n for n in range(1, 39)}
    assert abs(float(steady.square().mean()) - 1) < 0.05
    again, _ = excite(torch.full((1, 50), 200.0), torch.ones(1, 50), 160, torch.tensor([0.25]))
    later, _ = excite(torch.full((1, 50), 200.0), torch.ones(1, 50), 160, torch.tensor([1.25]))
    torch.testing.assert_close(again, later, rtol=0, atol=1e-3)
    assert phase.shape == end.shape == (2,)


def test_noise_depends_on_the_position_alone() -> None:
    assert torch.equal(noise(300)[100:], noise(200, start=100))
    assert abs(float(noise(60_000).std()) - 1) < 0.02


def test_overlap_add_inverts_spectra() -> None:
    wave, window = torch.randn(2, 640), torch.hann_window(64)
    again = overlap_add(spectra(wave, 16, window), 16, window)
    torch.testing.assert_close(again[:, : 640 - 48], wave[:, : 640 - 48], rtol=0, atol=1e-5)


@settings(deadline=None, max_examples=60)
@given(tracks())
def test_true_durations_lay_a_stream_out_as_it_was(spoken: Tracks) -> None:
    units, long = spoken.merge(), lengths(spoken)
    laid, held = lay_out(units, long), hold(spoken)
    assert np.array_equal(laid.unit, held.unit)
    onsets = np.cumsum(long) - long
    assert np.array_equal(laid.pitch[onsets], held.pitch[onsets])
    assert np.array_equal(laid.style[onsets], held.style[onsets])
    assert runs(units).changes.max() <= 4


def test_first_pitch_and_style_are_in_force_from_the_beginning() -> None:
    pairs = [(0, 81), (2, 78), (1, 13), (2, 42), (2, 81), (2, 159), (2, 316), (1, 3), (2, 259)]
    heads = runs(Units.build((Kind(kind), unit) for kind, unit in pairs))
    assert heads.unit.tolist() == [78, 42, 81, 159, 316, 259]
    assert heads.pitch.tolist() == [13, 13, 13, 13, 13, 3]
    assert heads.style.tolist() == [81] * 6
    assert heads.changes.tolist() == [1, 0, 0, 0, 1, 0]


def test_pitches_within_a_run_spread_over_it() -> None:
    pairs = [(Kind.PITCH, 1), (Kind.HUBERT, 5), (Kind.PITCH, 2), (Kind.PITCH, 3), (Kind.HUBERT, 6)]
    laid = lay_out(Units.build(pairs), np.array([6, 1]))
    assert laid.pitch.tolist() == [1, 1, 2, 2, 3, 3, 3]
    assert laid.style.tolist() == [NONE] * 7


@pytest.mark.parametrize("head", HEADS)
def test_resynthesis_keeps_every_frame(head: str) -> None:
    wave = vocoder(head).synthesize(SPOKEN, "bob")
    assert wave.dtype == np.float32
    assert wave.shape == (200,)
    assert np.isfinite(wave).all()
    assert np.abs(wave).max() > 0


@pytest.mark.parametrize("head", HEADS)
def test_saved_voice_is_the_same_voice(head: str, tmp_path: Path) -> None:
    before = vocoder(head)
    before.pace = 1.25
    before.save(tmp_path / "voice")
    after = Vocoder.load(tmp_path / "voice")
    assert after.speakers == ("ann", "bob")
    assert after.pace == 1.25
    want, got = before.synthesize(SPOKEN, "bob"), after.synthesize(SPOKEN, 1)
    np.testing.assert_allclose(got, want, atol=2e-3)
    assert before.durations(SPOKEN.merge()).tolist() == after.durations(SPOKEN.merge()).tolist()


def test_units_are_said_by_the_speaker_they_are_likeliest_of(tmp_path: Path) -> None:
    voice, units = vocoder(), SPOKEN.merge()
    own = units.of(Kind.HUBERT)
    usage = torch.ones(2, ALPHABET["unit"], dtype=torch.int32)
    for likely in (0, 1):
        voice.usage = usage.clone()
        voice.usage[likely, own] += 100
        voice.save(tmp_path / str(likely))
        for one in (voice, Vocoder.load(tmp_path / str(likely))):
            assert one.likeliest(own) == likely
            np.testing.assert_array_equal(one.speak(units), one.speak(units, likely))
            np.testing.assert_array_equal(one.synthesize(SPOKEN), one.synthesize(SPOKEN, likely))
        assert not np.array_equal(voice.speak(units), voice.speak(units, 1 - likely))


def test_speaking_lays_out_predicted_durations() -> None:
    voice, units = vocoder(), SPOKEN.merge()
    durations = voice.durations(units, "ann")
    assert durations.shape == (4,)
    assert durations.min() >= 1
    assert voice.speak(units, "ann").shape == (durations.sum() * 20,)
    assert voice.predict_tracks(units).samples == durations.sum() * 20


def test_rate_and_pace_scale_the_whole() -> None:
    voice = vocoder()
    rng = np.random.default_rng(0)
    units = Units.build((Kind.HUBERT, int(unit)) for unit in rng.integers(0, 12, 400))
    with torch.no_grad():
        voice.voice.durations.proj.bias.add_(1.8)  # about five frames each
    natural = voice.durations(units).sum()
    assert abs(voice.durations(units, rate=2.0).sum() / natural - 0.5) < 0.05
    assert abs(voice.durations(units, rate=0.5).sum() / natural - 2.0) < 0.1
    voice.pace = 1.5
    assert abs(voice.durations(units).sum() / natural - 1.5) < 0.1


def test_streams_without_pitch_or_style_are_spoken() -> None:
    voice = vocoder()
    bare = Units.build([(Kind.HUBERT, 3), (Kind.HUBERT, 9)])
    assert np.isfinite(voice.speak(bare, style=None)).all()
    assert Kind.PITCH not in voice.predict_tracks(bare).by_kind
    only = Tracks({Kind.HUBERT: SPOKEN.by_kind[Kind.HUBERT]})
    assert voice.synthesize(only).shape == (200,)


def test_style_and_speaker_change_the_sound() -> None:
    voice, units = vocoder(), SPOKEN.merge()
    first = voice.speak(units, "ann", style=0)
    tracks = voice.predict_tracks(units, "ann", style=1)
    assert (tracks.by_kind[Kind.STYLE].unit == 1).all()
    other = voice.synthesize(voice.predict_tracks(units, "ann", style=0), "bob")
    assert first.shape != other.shape or not np.allclose(first, other)


def test_nothing_to_say_is_silence() -> None:
    voice = vocoder()
    assert voice.speak(SPOKEN.merge()[:0]).shape == (0,)
    assert voice.speak(Units.build([(Kind.STYLE, 1), (Kind.PITCH, 2)])).shape == (0,)
    assert voice.synthesize(Tracks({})).shape == (0,)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda v: v.synthesize(SPOKEN, "eve"), "ann, bob"),
        (lambda v: v.synthesize(SPOKEN, 2), "ann, bob"),
        (lambda v: v.synthesize(SPOKEN, -1), "ann, bob"),
        (lambda v: v.speak(Units.build([(Kind.HUBERT, 12)])), "unit 12 is outside"),
        (lambda v: v.speak(Units.build([(Kind.PITCH, 5), (Kind.HUBERT, 1)])), "pitch 5"),
        (lambda v: v.speak(SPOKEN.merge(), style=3), "style 3"),
        (lambda v: v.speak(SPOKEN.merge(), style=-1), "style -1"),
        (lambda v: v.speak(SPOKEN.merge(), rate=0.0), "rate"),
        (lambda v: v.speak(SPOKEN.merge(), rate=float("nan")), "rate"),
    ],
)
def test_what_it_cannot_say_is_refused_in_one_line(call, words) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=words) as caught:
        call(vocoder())
    assert "\n" not in str(caught.value)


def test_damaged_folders_are_refused_in_one_line(tmp_path: Path) -> None:
    whole = tmp_path / "voice"
    vocoder().save(whole)
    with pytest.raises(ValueError, match=r"config\.json is missing"):
        Vocoder.load(tmp_path / "nothing")
    weights = (whole / "model.safetensors").read_bytes()
    (whole / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ValueError, match="no whole vocoder"):
        Vocoder.load(whole)
    (whole / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="format"):
        Vocoder.load(whole)
    (whole / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors is missing"):
        Vocoder.load(whole)
