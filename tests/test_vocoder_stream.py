"""Speech as it comes: the sound of a stream is that of the whole, in chunks, batches and hours."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spirit.units import Kind, Units
from spirit.vocoder import Vocoder
from spirit.vocoder.flow import Flow
from spirit.vocoder.frames import lengths, runs, stretched
from spirit.vocoder.kernels import Convolution, Transposed
from spirit.vocoder.recipe import NetworkConfig, parts
from spirit.vocoder.source import excite, noise
from spirit.vocoder.stream import LONGEST
from spirit.vocoder.timeline import PATIENCE, Timeline, rounded
from spirit.vocoder.voice import Voice, fold
from tests.test_vocoder import ALPHABET, HEADS, SMALL, SPOKEN, tracks, vocoder

RELEASED = Path(__file__).parent / "golden" / "spiritlm" / "speech_tokenizer"
MANY = {
    **HEADS,
    "pairs": {"channels": (12, 8, 6), "rates": (5, 4), "kernels": (11, 7), "right": (1, 2, 1)},
    "one block": {"channels": (12, 8), "rates": (5,), "kernels": (5,), "block_kernels": (3,)}
    | {"block_dilations": ((1,),), "block_pairs": False, "head": "istft", "hop": 4, "n_fft": 8},
}
"""Further shapes: look-ahead in fast layers, kernels as long as the rate, one block."""


def build(head: str) -> Vocoder:
    torch.manual_seed(0)
    network = NetworkConfig(**{**SMALL, **MANY[head]})  # type: ignore[arg-type]
    voice = Voice(**parts(network, ALPHABET, 2)).eval()
    with torch.no_grad():
        voice.durations.proj.bias.add_(1.3)  # some frames for each unit
        for name, weight in voice.named_parameters():
            if name.endswith("original1"):
                weight.mul_(1.5)  # as loud as speech
    fold(voice)
    absent = {name: ALPHABET[name] for name in ("pitch", "style")}
    return Vocoder(voice, ["ann", "bob"], ALPHABET, absent=absent)


def written(runs: int, seed: int = 0) -> Units:
    """A stream as a model writes it."""
    rng = np.random.default_rng(seed)
    pairs = [(Kind.STYLE, 1), (Kind.PITCH, int(rng.integers(5)))]
    for _ in range(runs):
        pairs.append((Kind.HUBERT, int(rng.integers(12))))
        pairs += [(Kind.PITCH, int(rng.integers(5))) for _ in range(rng.integers(3))]
        if rng.random() < 0.1:
            pairs.append((Kind.STYLE, int(rng.integers(3))))
    return Units.build(pairs)


def said(voice: Vocoder, units: Units, *speaker: Any, sizes: Any = 1, **settings: Any) -> Any:
    """The pieces of a stream that is given so many units at a time."""
    stream, at, pieces = voice.stream(*speaker, **settings), 0, []
    rng = np.random.default_rng(0)
    while at < len(units):
        count = sizes if isinstance(sizes, int) else int(rng.integers(1, 9))
        pieces.append(stream.push(units[at : at + count]))
        at += count
    return [piece for piece in [*pieces, stream.finish()] if len(piece)]


def reference(voice: Vocoder, units: Units, speaker: int) -> np.ndarray:
    """What the network gives in one go, as it is trained."""
    frames = voice._lay_out(units, speaker, None, 1.0)
    inputs = voice._ids(frames.unit, frames.pitch, frames.style, speaker)
    real = torch.ones_like(inputs["unit"], dtype=torch.bool)
    sound = None
    if voice.voice.contour is not None:
        contour = voice.voice.contour.double()
        log_f0, voiced = contour(voice.voice.generator.join(inputs).double(), real)
        contour.float()
        pulses, _ = excite(log_f0.double().exp(), voiced.sigmoid(), voice.voice.hop)
        sound = torch.stack([pulses, noise(pulses.shape[1]).expand_as(pulses)], 1)
    return voice.voice.generator(inputs, sound, real)[0].clamp(-1, 1).detach().numpy()


@pytest.mark.parametrize("head", MANY)
def test_whole_speech_is_what_the_network_gives_in_one_go(head: str) -> None:
    voice, units = build(head), written(60)
    whole = voice.speak(units, "bob")
    assert np.abs(whole).max() > 0.01
    np.testing.assert_allclose(whole, reference(voice, units, 1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("sizes", [1, 7, "random"])
@pytest.mark.parametrize("head", MANY)
def test_streamed_and_whole_speech_are_the_same(head: str, sizes: Any) -> None:
    voice, units = build(head), written(90)
    pieces = said(voice, units, "ann", sizes=sizes, chunk=0.02)
    assert len(pieces) > 3
    np.testing.assert_allclose(np.concatenate(pieces), voice.speak(units, "ann"), rtol=0, atol=1e-5)


@pytest.mark.parametrize("head", MANY)
def test_a_sample_comes_as_soon_as_its_reach_is_there(head: str) -> None:
    voice = build(head)
    ahead, frame = voice.voice.reach()[1], voice.voice.generator.frame
    flow = Flow(voice.kernels())
    vectors = torch.randn(
        1, 200, sum(w for _, w in voice.voice.config["generator"]["inputs"].values())
    )
    for frames in range(10):
        flow.feed(vectors[:, frames : frames + 1])
    flow.feed(vectors[:, 10:])
    late = 200 * frame - flow.ready()
    assert ahead - frame < late <= ahead + frame


def test_what_is_kept_does_not_grow_with_what_was_said() -> None:
    voice = build("source")
    stream, sizes = voice.stream("ann", chunk=0.01), []
    for seed in range(16):
        stream.push(written(40, seed))
        rows = [*stream.flow.rows, stream.flow.input, *stream.flow.pulses.rows]  # type: ignore[union-attr]
        kept = [row.kept for row in rows if row.kept is not None]
        sizes.append(sum(tensor.untyped_storage().nbytes() for tensor in kept))
    assert max(sizes[8:]) <= 1.2 * max(sizes[2:8])


def test_a_shorter_look_ahead_says_as_much_sooner_and_goes_on_smoothly() -> None:
    voice, units = build("source"), written(90)
    whole = voice.speak(units, "ann")
    reach = voice.voice.reach()[1] / 16_000
    errors, firsts = [], []
    for share in (0.0, 0.5, 1.0):
        pieces = said(voice, units, "ann", look_ahead=reach * share, chunk=0.01)
        made = np.concatenate(pieces)
        assert made.shape == whole.shape
        errors.append(float(np.square(made - whole).mean()))
        # The noise is that of the position, and no piece jumps where it begins.
        seams = np.cumsum([len(piece) for piece in pieces])[:-1]
        assert np.abs(np.diff(made))[seams - 1].max() <= np.abs(np.diff(whole)).max() * 1.5
        flow = Flow(voice.kernels())
        flow.feed(torch.zeros(1, 30, 20))
        firsts.append(flow.ready(round(reach * share * 16_000)))
    assert errors[0] > errors[2]
    assert errors[2] < 1e-10
    assert firsts[0] == 600 > firsts[1] > firsts[2] == flow.ready()


@settings(deadline=None, max_examples=40)
@given(
    tracks(),
    st.sampled_from([(1.0, 1.0), (0.7, 1.0), (1.9, 1.0), (1.0, 0.5), (1.0, 2.5), (1.2, 9.0)]),
    st.integers(0, 3),
)
def test_a_growing_timeline_lays_units_out_as_the_whole(spoken, speed, right) -> None:  # type: ignore[no-untyped-def]
    units = spoken.merge()
    long = lengths(spoken)

    def predict(heads):  # type: ignore[no-untyped-def]
        """Depends on two neighbours on each side, and on the pitches between."""
        row = heads.unit + 3.0 * heads.changes + heads.pitch
        around = np.pad(row, 2)
        return sum(around[i : i + len(row)] * w for i, w in enumerate((1, 2, 4, 2, 1))) / 20

    pace, rate = speed
    asked = {"pace": pace, "rate": rate, "awaited": {Kind.PITCH, Kind.STYLE}}
    whole = Timeline(predict, (2, 3), **asked)
    parts = [whole.push(units), whole.finish()]
    piecewise = Timeline(predict, (2, 3), **asked)
    some = [piecewise.push(units[i : i + 1]) for i in range(len(units))] + [piecewise.finish()]
    for name in ("unit", "pitch", "style"):
        one, two = (np.concatenate([getattr(f, name) for f in rows]) for rows in (parts, some))
        assert np.array_equal(one, two)
    assert piecewise.frames == len(np.concatenate([f.unit for f in parts]))
    assert rate > 1 or piecewise.frames >= len(long)


def test_durations_of_a_growing_stream_are_those_of_the_whole() -> None:
    voice, units = build("source"), written(70)
    for rate in (1.0, 1.3):
        stream = voice.stream("bob", rate=rate)
        settled = [len(stream.timeline.push(units[i : i + 1])) for i in range(len(units))]
        assert sum(settled) > 0.8 * stream.timeline.total()
        assert stream.timeline.total() == voice.durations(units, "bob", rate=rate).sum()


def test_a_first_style_is_in_force_before_and_is_not_waited_for_forever() -> None:
    voice = build("hifigan")
    rng = np.random.default_rng(1)
    late = [(Kind.PITCH, 1), *((Kind.HUBERT, int(u)) for u in rng.integers(0, 12, 9))]
    late = Units.build([*late, (Kind.STYLE, 2), *late[1:]])
    np.testing.assert_allclose(
        np.concatenate(said(voice, late, "ann")), voice.speak(late, "ann"), rtol=0, atol=1e-5
    )
    never = Units.build((Kind.HUBERT, int(unit)) for unit in rng.integers(0, 12, 3 * PATIENCE))
    stream = voice.stream("ann", chunk=0.01)
    heard = [len(stream.push(never[i : i + 1])) for i in range(len(never))]
    assert not any(heard[: PATIENCE - 1])
    assert any(heard[PATIENCE - 1 : PATIENCE + 10])
    bare = voice.stream("ann", chunk=0.01, kinds=[Kind.HUBERT])
    assert any(len(bare.push(never[i : i + 1])) for i in range(PATIENCE - 5))
    np.testing.assert_allclose(
        np.concatenate(said(voice, never, "ann")), voice.speak(never, "ann"), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("head", ["source", "hifigan"])
@pytest.mark.parametrize("manner", [{"rate": 1.4}, {"pitch": 4.0}, {"pitch": -3.0, "style": 2}])
def test_prosody_is_streamed_as_it_is_spoken(head: str, manner: dict[str, Any]) -> None:
    voice, units = build(head), written(60)
    whole = voice.speak(units, "ann", **manner)
    made = np.concatenate(said(voice, units, "ann", **manner))
    np.testing.assert_allclose(made, whole, rtol=0, atol=1e-5)
    plain = voice.speak(units, "ann")
    near = min(len(whole), len(plain))
    assert np.abs(whole[:near] - plain[:near]).max() > 1e-3


def test_pitch_is_raised_by_semitones_and_the_tempo_stays() -> None:
    def melody(wave: np.ndarray) -> float:
        return float(np.abs(np.fft.rfft(wave * np.hanning(len(wave)))).argmax()) / len(wave)

    # A voice without a source that says a tone of 40 samples a period, whatever it is given.
    voice = build("hifigan")
    units = written(200)
    tone = np.sin(np.arange(640 * 40) * 2 * np.pi / 40).astype(np.float32)
    from spirit.vocoder.stream import Played

    for semitones in (-5.0, 7.0):
        shift, factor = voice._shift(semitones)
        assert shift == 1.0
        higher = Played(factor)(tone, last=True)
        assert melody(higher) / melody(tone) == pytest.approx(2 ** (semitones / 12), rel=0.01)
        spoken = voice.speak(units, "ann", pitch=semitones)
        assert abs(len(spoken) - len(voice.speak(units, "ann"))) <= 2 * 20
    # With a source the pulses move, and nothing is played faster.
    sung = build("source")
    assert sung._shift(12.0) == (2.0, 1.0)
    flows = [Flow(sung.kernels(), shift=shift) for shift in (1.0, 2.0)]
    for flow in flows:
        flow.feed(torch.zeros(1, 400, 20), [400])
    low, high = (flow.pulses.take(0, 8_000)[0, 0].numpy() for flow in flows)  # type: ignore[union-attr]
    peaks = [int((np.diff(np.sign(np.diff(w))) < 0).sum()) for w in (low, high)]
    spacing = [np.diff(np.flatnonzero(w > 0.6 * w.max())) for w in (low, high)]
    periods = [gaps[gaps > 4].mean() for gaps in spacing]
    assert periods[0] / periods[1] == pytest.approx(2, rel=0.05), peaks


def test_pitch_that_is_not_spread_changes_with_units_as_in_the_release() -> None:
    class Held(Vocoder):
        spread = False

    voice, units = build("hifigan"), written(40)
    held = Held(voice.voice, voice.speakers, ALPHABET, absent=voice.absent)
    assert (
        held._lay_out(units, 0, None, 1.0).pitch.tolist()
        == np.repeat(runs(units).pitch, held.durations(units, 0)).tolist()
    )
    whole = held.speak(units, "ann")
    assert np.abs(whole - voice.speak(units, "ann")).max() > 1e-4
    np.testing.assert_allclose(np.concatenate(said(held, units, "ann")), whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["hifigan_spiritlm_base", "hifigan_spiritlm_expressive_w2v2"])
def test_a_released_vocoder_speaks_as_units_come(name: str) -> None:
    from spirit.formats.spiritlm_vocoder import ReleasedVocoder

    if not issubclass(ReleasedVocoder, Vocoder):
        pytest.skip("it is read into a network of its own")
    voice = ReleasedVocoder.load(RELEASED / name)
    assert voice.voice.reach()[1] == 12_800
    units, kinds = written(60), [Kind.HUBERT]
    if "pitch" in voice.voice.generator.embed:
        kinds = list(Kind)
    pieces = said(voice, units, 1, kinds=kinds)
    assert len(pieces) > 2
    np.testing.assert_allclose(np.concatenate(pieces), voice.speak(units, 1), rtol=0, atol=1e-5)


def test_frames_are_stretched_in_parts_as_in_one() -> None:
    frames = build("hifigan")._lay_out(written(40), 0, None, 1.0)
    for factor in (0.5, 1.3, 2.0):
        whole = stretched(frames, factor)
        assert len(whole) == int(np.ceil(len(frames) * factor))
        cuts = [0, 1, 2, 9, 30, len(frames)]
        some = [stretched(frames.clip(a, b), factor, a) for a, b in pairwise(cuts)]
        assert np.array_equal(np.concatenate([part.unit for part in some]), whole.unit)
    assert stretched(frames, 1.0) is frames


def test_resynthesis_has_a_rate_a_style_and_a_pitch() -> None:
    voice = vocoder("source")
    plain = voice.synthesize(SPOKEN, "ann")
    assert len(voice.synthesize(SPOKEN, "ann", rate=0.5)) == 2 * len(plain)
    assert np.abs(voice.synthesize(SPOKEN, "ann", style=0) - plain).max() > 1e-4
    assert np.abs(voice.synthesize(SPOKEN, "ann", pitch=5.0) - plain).max() > 1e-4


@pytest.mark.parametrize("head", MANY)
def test_several_at_once_are_each_as_alone(head: str) -> None:
    voice = build(head)
    several = [written(runs, runs) for runs in (1, 40, 7, 23, 0, 60, 2, 3, 4, 5, 6)]
    several[4] = several[4][:0]
    speakers = ["ann", "bob", None, 1, 0, "ann", "bob", 0, 1, 0, None]
    together = voice.speak_many(several, speakers)
    assert len(together[4]) == 0
    for units, speaker, made in zip(several, speakers, together, strict=True):
        np.testing.assert_allclose(made, voice.speak(units, speaker), rtol=0, atol=1e-5)
    for units, made in zip(several, voice.speak_many(several), strict=True):
        np.testing.assert_allclose(made, voice.speak(units), rtol=0, atol=1e-5)


def test_long_speech_is_made_in_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    voice, units = build("source"), written(700)
    sizes: list[int] = []
    read = Flow.read

    def watched(self: Flow, stop: int) -> torch.Tensor:
        sizes.append(stop - self.said)
        return read(self, stop)

    monkeypatch.setattr(Flow, "read", watched)
    whole = voice.speak(units, "ann")
    assert len(whole) > 3 * 250 * 20
    assert max(sizes) <= 250 * 20
    np.testing.assert_allclose(whole, reference(voice, units, 0), rtol=0, atol=1e-5)
    sizes.clear()
    assert len(said(voice, units, "ann", sizes=len(units))) <= 2
    assert sum(sizes) == len(whole)


def test_a_limit_is_asked_for_only_where_it_is_near(monkeypatch: pytest.MonkeyPatch) -> None:
    voice = build("source")
    stream = voice.stream("ann")
    stream.push(written(4))
    exact = stream.seconds()
    assert stream.fits(exact)
    assert not stream.fits(exact - 1e-6)
    monkeypatch.setattr(stream, "seconds", lambda: pytest.fail("there is room enough"))
    assert stream.fits((stream.timeline.frames + LONGEST * 5) * 20 / 16_000)
    assert stream.timeline.drop()


def test_kernels_are_the_layers_they_come_from() -> None:
    for head in MANY:
        generator = build(head).voice.generator
        conv, up = generator.conv_pre, next(generator.stages())[0]
        width = conv.conv.in_channels
        hidden = torch.randn(2, width, 30)
        made = Convolution(conv)(torch.nn.functional.pad(hidden, (conv.left, conv.right)).mT)
        torch.testing.assert_close(made.mT, conv(hidden), rtol=0, atol=1e-5)
        narrow = torch.randn(2, up.conv.in_channels, 9)
        spread = Transposed(up)(narrow.mT)[:, up.skip : up.skip + 9 * up.rate]
        torch.testing.assert_close(spread.mT, up(narrow), rtol=0, atol=1e-5)


def test_without_packed_weights_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    voice, units = build("hifigan"), written(20)
    packed = voice.speak(units, "ann")
    monkeypatch.setattr("spirit.vocoder.kernels._packs", lambda: False)
    voice._kernels = None
    assert voice.kernels().pre.packed is None
    np.testing.assert_allclose(voice.speak(units, "ann"), packed, rtol=0, atol=1e-5)


def test_rounding_keeps_the_length_of_the_whole() -> None:
    exact = np.random.default_rng(0).uniform(0.5, 4, 300)
    durations, owed = rounded(exact, 1.37)
    assert abs(durations.sum() + owed - 1.37 * exact.sum()) < 1e-6
    first, carried = rounded(exact[:100], 1.37)
    rest, _ = rounded(exact[100:], 1.37, owed=carried)
    assert np.array_equal(np.concatenate([first, rest]), durations)


def test_what_has_one_frame_each_is_twice_as_fast_all_the_same() -> None:
    exact = np.full(301, 0.8)
    assert rounded(exact, 1.0)[0].tolist() == [1] * 301
    assert rounded(exact, 1.0, 2.0)[0].sum() == 150
    assert rounded(exact, 1.0, 2.0)[0][:6].tolist() in ([1, 0, 1, 0, 1, 0], [0, 1, 0, 1, 0, 1])
    voice, units = build("source"), written(70)
    with torch.no_grad():
        voice.voice.durations.proj.bias.sub_(9)  # less than a frame each
    waves = [voice.speak(units, "bob", rate=rate) for rate in (1.0, 2.0, 1000.0)]
    assert abs(len(waves[0]) - 2 * len(waves[1])) <= 2 * voice.voice.generator.frame
    assert len(waves[2]) == 0
    stream = voice.stream("bob", rate=2.0)
    parts = [stream.push(units[i : i + 7]) for i in range(0, len(units), 7)]
    streamed = np.concatenate([*parts, stream.finish()])
    np.testing.assert_allclose(streamed, waves[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"speaker": "eve"}, "ann, bob"),
        ({"rate": 0.0}, "rate"),
        ({"pitch": 40.0}, "octaves"),
        ({"pitch": float("nan")}, "octaves"),
        ({"chunk": 0.0}, "chunk"),
        ({"look_ahead": -0.1}, "look-ahead"),
        ({"style": -1}, "style -1"),
    ],
)
def test_what_cannot_be_streamed_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        vocoder().stream(**{"speaker": "ann", **settings})
    assert "\n" not in str(caught.value)


def test_units_beyond_the_alphabet_are_refused_in_a_stream() -> None:
    stream = vocoder().stream("ann", kinds=[Kind.HUBERT])
    with pytest.raises(ValueError, match=r"unit 12 is outside .* alphabet of 12"):
        stream.push(Units.build([(Kind.HUBERT, unit) for unit in (1, 12, 2, 3, 4, 5)]))


def test_a_voice_that_is_trained_is_heard_as_it_is_now() -> None:
    voice = vocoder("hifigan")
    before = voice.synthesize(SPOKEN, "ann")
    with torch.no_grad():
        voice.voice.generator.conv_post.conv.bias.add_(0.1)
    assert np.abs(voice.synthesize(SPOKEN, "ann") - before).max() > 0.01
