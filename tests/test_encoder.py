"""Waves to tracks, one by one and in batches, short and long."""

import weakref
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import HubertConfig, HubertModel, WavLMConfig, WavLMModel

from spirit.audio import read_audio
from spirit.speech.encoder import BEYOND, SECTION, SpeechEncoder, Window, hear, windows
from spirit.speech.hubert import Hubert
from spirit.speech.pitch import PitchFormat, PitchTokenizer
from spirit.speech.pretrained import Pretrained
from spirit.speech.quantizer import CTCLinear, KMeans
from spirit.speech.style import StyleFormat, StyleTokenizer
from spirit.tokenizer import Tokenizer
from spirit.units import SAMPLE_RATE, Kind, Tracks

ROOT = Path(__file__).parent.parent
SPEECH = read_audio(ROOT / "tests" / "data" / "jfk.flac")
Network = Callable[[], tuple[Hubert | Pretrained, KMeans | CTCLinear]]
PITCH = PitchFormat(width=8, depth=1, channels=16, codes=16)
STYLE = StyleFormat(names=("a", "b", "c"), channels=32, hidden=8, context=1)


SHAPE = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 96,
    "conv_dim": (32,) * 4,
    "conv_kernel": (20, 16, 4, 2),
    "conv_stride": (10, 8, 4, 2),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}


def small_hubert(hidden: int = 32) -> Hubert:
    return Hubert.new(
        hidden=hidden,
        layers=2,
        heads=2,
        ffn=32,
        conv_dim=(16, 16, 16, 16),
        conv_kernel=(20, 16, 4, 2),
        conv_stride=(10, 8, 4, 2),
    )


@pytest.fixture(scope="module")
def encoder() -> SpeechEncoder:
    torch.manual_seed(0)
    hubert = small_hubert().eval()
    # Centroids that lie where features do, so that many units occur.
    (features,) = hubert.features([SPEECH])
    centroids = features[torch.linspace(0, len(features) - 1, 40).long()].clone()
    vq = PITCH.network()
    vq.codebook.vectors.normal_(std=0.1)
    return SpeechEncoder(
        hubert,
        KMeans(centroids),
        PitchTokenizer(PITCH, vq, PITCH.hear("cpu")),
        StyleTokenizer(STYLE, STYLE.network()),
    )


def rows(tracks: Tracks) -> dict[str, list[int]]:
    return {kind.key: track.unit.tolist() for kind, track in tracks.by_kind.items()}


@pytest.mark.parametrize(
    ("samples", "counts"),
    [
        (0, (1, 1, 1)),
        (1, (1, 1, 1)),
        (160, (1, 1, 1)),
        (639, (1, 1, 1)),
        (1_279, (1, 1, 1)),
        (1_280, (2, 1, 1)),
        (1_920, (3, 2, 1)),
        (16_000, (25, 13, 1)),
        (16_640, (26, 13, 2)),
        (146_160, (228, 114, 10)),
    ],
)
def test_tracks_of_every_length_cover_each_other(
    encoder: SpeechEncoder, samples: int, counts: tuple[int, int, int]
) -> None:
    tracks = encoder.encode(np.resize(SPEECH, samples))
    by_kind = tracks.by_kind
    order = (Kind.HUBERT, Kind.PITCH, Kind.STYLE)
    assert tuple(len(by_kind[kind]) for kind in order) == counts
    assert [by_kind[kind].hop for kind in order] == [640, 1_280, 16_000]
    covered = len(by_kind[Kind.HUBERT]) * 640
    assert all(len(track) * track.hop >= covered for track in by_kind.values())
    assert str(tracks.merge()).startswith("[St")


def test_units_differ_where_sounds_do(encoder: SpeechEncoder) -> None:
    tracks = encoder.encode(SPEECH)
    assert len(set(tracks.by_kind[Kind.HUBERT].unit.tolist())) > 10
    for kind, track in tracks.by_kind.items():
        assert track.unit.min() >= 0
        assert track.unit.max() < encoder.counts[kind]


def test_silence_is_speech_that_says_nothing(encoder: SpeechEncoder) -> None:
    tracks = encoder.encode(np.zeros(5 * SAMPLE_RATE, np.float32))
    assert {kind: len(track) for kind, track in tracks.by_kind.items()} == {
        Kind.HUBERT: 125,
        Kind.PITCH: 63,
        Kind.STYLE: 5,
    }


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(0, 40_000), min_size=2, max_size=6), st.integers(0, 30_000))
def test_a_wave_has_the_same_units_in_every_batch(lengths: list[int], offset: int) -> None:
    torch.manual_seed(0)
    hubert = small_hubert().eval()
    (features,) = hubert.features([SPEECH])
    encoder = SpeechEncoder(hubert, KMeans(features[::7].clone()))
    waves = [SPEECH[offset : offset + n] for n in lengths]
    together = encoder.encode_batch(waves)
    assert [rows(t) for t in together] == [rows(encoder.encode(wave)) for wave in waves]


def test_all_kinds_are_the_same_in_a_batch(encoder: SpeechEncoder) -> None:
    waves = [SPEECH, SPEECH[5_000:9_000], np.zeros(30_000, np.float32), SPEECH[-600:]]
    together = encoder.encode_batch(waves)
    assert [rows(t) for t in together] == [rows(encoder.encode(wave)) for wave in waves]
    tensors = encoder.encode_batch([torch.from_numpy(wave.copy()) for wave in waves])
    assert [rows(t) for t in tensors] == [rows(t) for t in together]


def apart(hubert: Hubert | Pretrained, units: int = 24) -> KMeans:
    """Centroids where features lie, each as far as can be from those before it: what random weights
    make of silence differs by less than floats are rounded."""
    (features,) = hubert.features([SPEECH])
    chosen = [0]
    distance = (features - features[0]).square().sum(1)
    while len(chosen) < units:
        chosen.append(int(distance.argmax()))
        distance = distance.minimum((features - features[chosen[-1]]).square().sum(1))
    return KMeans(features[chosen].clone())


def bundled() -> tuple[Hubert | Pretrained, KMeans | CTCLinear]:
    """What was trained on speech."""
    encoder = Tokenizer.load(ROOT / "tokenizers" / "tiny").encoder
    return encoder.hubert, encoder.quantizer


def of_ours() -> tuple[Hubert | Pretrained, KMeans | CTCLinear]:
    """Random weights."""
    torch.manual_seed(0)
    hubert = small_hubert().eval()
    return hubert, apart(hubert)


def of_others() -> tuple[Hubert | Pretrained, KMeans | CTCLinear]:
    """The same of a network that is normalized over time, as base models are."""
    torch.manual_seed(0)
    hubert = Pretrained(HubertModel(HubertConfig(**SHAPE)), 2, padded=True)
    return hubert, apart(hubert)


def of_padded() -> tuple[Hubert | Pretrained, KMeans | CTCLinear]:
    """One of those that hear clips side by side, with padding and masks, on a CPU too."""
    torch.manual_seed(0)
    hubert = Pretrained(WavLMModel(WavLMConfig(**SHAPE)), 2, padded=True)
    return hubert, apart(hubert)


@pytest.mark.parametrize(("bf16", "least"), [(False, 1.0), (True, 0.995)])
@pytest.mark.parametrize("network", [bundled, of_ours, of_others, of_padded])
def test_units_do_not_depend_on_neighbours(network: Network, bf16: bool, least: float) -> None:
    """Random stretches of speech in batches against each alone, in the same precision."""
    encoder = SpeechEncoder(*network(), bf16=bf16)
    same: list[np.ndarray] = []

    def heard(waves: list[np.ndarray]) -> np.ndarray:
        tracks = encoder.encode_batch(waves)
        return np.concatenate([one.by_kind[Kind.HUBERT].unit for one in tracks])

    speech = np.resize(SPEECH, 160_000)
    stretch = st.tuples(st.integers(0, 80_000), st.integers(1, 80_000))

    @settings(max_examples=20, deadline=None)
    @given(st.lists(stretch, min_size=3, max_size=6))
    def compare(stretches: list[tuple[int, int]]) -> None:
        waves = [speech[start : start + length] for start, length in stretches]
        together = heard(waves)
        same.append(together == np.concatenate([heard([wave]) for wave in waves]))

    compare()
    assert len(np.concatenate(same)) > 1_000
    assert np.concatenate(same).mean() >= least
    assert len(set(heard([SPEECH]).tolist())) > 10


@pytest.mark.parametrize("network", [bundled, of_ours, of_others, of_padded])
def test_bf16_changes_few_units_and_no_network(
    network: Network,
) -> None:
    hubert, quantizer = network()
    half = SpeechEncoder(hubert, quantizer, bf16=True)
    assert next(hubert.parameters()).dtype == torch.float32
    assert next(half.hubert.parameters()).dtype == torch.bfloat16
    features = half.hubert.features([SPEECH])[0]
    assert features.dtype == torch.float32
    units = half.encode(SPEECH).by_kind[Kind.HUBERT].unit
    exact = SpeechEncoder(hubert, quantizer).encode(SPEECH).by_kind[Kind.HUBERT].unit
    assert 0.9 < (units == exact).mean() <= 1
    assert not torch.equal(features, hubert.features([SPEECH])[0])


def test_the_base_variant_has_hubert_units_alone(encoder: SpeechEncoder) -> None:
    base = encoder.encode(SPEECH, [Kind.HUBERT])
    assert set(base.by_kind) == {Kind.HUBERT}
    assert rows(base)["hubert"] == rows(encoder.encode(SPEECH))["hubert"]
    alone = SpeechEncoder(encoder.hubert, encoder.quantizer)
    assert rows(alone.encode(SPEECH)) == rows(base)
    assert alone.counts == {Kind.HUBERT: 40}
    with pytest.raises(ValueError, match="makes no units of the kind style, pitch"):
        alone.encode(SPEECH, [Kind.PITCH, Kind.STYLE])


@given(st.integers(1, 5_000))
def test_windows_give_every_frame_once_from_the_nearest_middle(frames: int) -> None:
    cuts = list(windows(0, frames, 25))
    assert cuts[0].first == 0
    assert cuts[-1].last == frames
    assert all(a.last == b.first for a, b in pairwise(cuts))
    assert all(w.start % 800 == 0 and w.stop - w.start <= 1_000 for w in cuts)
    assert all(w.start <= w.first < w.last <= w.stop for w in cuts)
    assert all(w.first % 25 == 0 for w in cuts)
    for a, b in pairwise(cuts):
        middles = [cut.start + 500 for cut in (a, b)]
        assert abs(a.last - 1 - middles[0]) <= abs(a.last - 1 - middles[1])
        assert abs(b.first - middles[1]) <= abs(b.first - middles[0])
    assert (len(cuts) == 1) == (frames <= 1_000)


def test_long_speech_is_cut_at_fixed_places(encoder: SpeechEncoder) -> None:
    long = np.resize(SPEECH, 90 * SAMPLE_RATE)
    tracks = encoder.encode(long)
    assert {kind: len(track) for kind, track in tracks.by_kind.items()} == {
        Kind.HUBERT: 2_250,
        Kind.PITCH: 1_125,
        Kind.STYLE: 90,
    }
    units = tracks.by_kind[Kind.HUBERT].unit
    # The first 36 s depend on the first 40 s alone, whatever follows.
    first = encoder.encode(long[: 40 * SAMPLE_RATE]).by_kind[Kind.HUBERT].unit
    assert (units[:900] == first[:900]).mean() > 0.99
    # And the rest is heard from second 32 on, as if that were the beginning.
    second = encoder.encode(long[32 * SAMPLE_RATE : 72 * SAMPLE_RATE]).by_kind[Kind.HUBERT].unit
    assert (units[900:1_700] == second[100:900]).mean() > 0.99
    assert rows(encoder.encode_batch([SPEECH, long])[1]) == rows(tracks)


@given(st.integers(1, 3_000), st.integers(0, 2))
def test_windows_of_sections_are_those_of_the_whole(extra: int, before: int) -> None:
    """`before` whole sections, and one that is followed by so many frames."""
    size, beyond = SECTION * 25, BEYOND * 25
    frames = (before + 1) * size + beyond + extra
    found = []
    for number in range(before + 2):
        more = number <= before
        own = size + beyond if more else frames - number * size
        for w in windows(0, own, 25, begun=number > 0, more=more):
            at = number * size
            found.append(Window(0, *(at + k for k in (w.start, w.stop, w.first, w.last))))
    assert found == list(windows(0, frames, 25))


def test_a_long_recording_in_sections_has_the_tracks_of_the_whole(encoder: SpeechEncoder) -> None:
    long = np.resize(SPEECH, int((SECTION + BEYOND + 0.5) * SAMPLE_RATE))
    size, reach = SECTION * SAMPLE_RATE, (SECTION + BEYOND) * SAMPLE_RATE
    starts = [0, *range(size, len(long) - (reach - size), size)]
    sections = [
        (long[s : s + reach], True) if s != starts[-1] else (long[s:], False) for s in starts
    ]
    assert len(sections) == 2
    assert rows(encoder.encode_long(sections)) == rows(encoder.encode(long))


def test_features_are_digested_and_let_go(encoder: SpeechEncoder) -> None:
    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    most = 0

    def digest(features: torch.Tensor) -> int:
        nonlocal most
        alive.add(features)
        most = max(most, len(alive))
        return len(features)

    (counts,) = hear(encoder.hubert, [np.resize(SPEECH, 300 * SAMPLE_RATE)], digest)
    assert len(counts) == 10
    assert sum(counts) == 7_500
    assert most <= 4  # what one batch of windows holds


def test_what_is_no_sound_is_refused(encoder: SpeechEncoder) -> None:
    wave = SPEECH[:5_000].copy()
    wave[7] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        encoder.encode(wave)


def test_parts_that_do_not_fit_are_refused(encoder: SpeechEncoder) -> None:
    other = small_hubert(48)
    with pytest.raises(ValueError, match="32 channels but this HuBERT has 48"):
        SpeechEncoder(other, encoder.quantizer)
    with pytest.raises(ValueError, match="style tokenizer was fitted on 32 channels"):
        SpeechEncoder(other, KMeans(torch.zeros(4, 48)), encoder.pitch, encoder.style)
    with pytest.raises(ValueError, match="style tokens need F0"):
        SpeechEncoder(encoder.hubert, encoder.quantizer, None, encoder.style)
