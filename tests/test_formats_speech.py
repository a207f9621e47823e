"""The released speech tokenizer files: golden facts G6 to G11 and G23, and what is refused."""

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spirit.audio import read_audio
from spirit.formats.fairseq import parse_convolutions, read_hubert
from spirit.formats.quantizers import read_quantizer
from spirit.formats.spiritlm_pitch import F0Encoder, ReleasedPitch
from spirit.formats.spiritlm_speech import CHUNK, HUBERT, QUANTIZER, STYLE, ReleasedEncoder
from spirit.formats.spiritlm_style import ReleasedStyle
from spirit.speech.fcpe import Fcpe
from spirit.speech.quantizer import CTCLinear, KMeans, fill_blanks
from spirit.units import Kind

GOLDEN = Path(__file__).parent / "golden" / "spiritlm"
TREE = GOLDEN / "speech_tokenizer"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())
ARRAYS = np.load(GOLDEN / "expected.npz")
NAMES = ("jfk", "slt")


@pytest.fixture(scope="module")
def released():
    return ReleasedEncoder.load(TREE)


@pytest.fixture(scope="module")
def waves():
    return {name: read_audio(GOLDEN / "audio" / f"{name}.flac") for name in NAMES}


@pytest.fixture
def tree(tmp_path):
    return Path(shutil.copytree(TREE, tmp_path / "speech_tokenizer"))


def _resave(path, change):
    content = torch.load(path, weights_only=True)
    torch.save(change(content), path)


@pytest.mark.parametrize("name", NAMES)
def test_units_and_strings_are_those_of_the_release(released, waves, name):
    tracks = released.encode(waves[name])
    for kind in Kind:
        assert tracks.by_kind[kind].unit.tolist() == EXPECTED[name]["units"][kind.key]
    assert str(tracks.merge()) == EXPECTED[name]["expressive_string"]
    base = released.encode(waves[name], [Kind.HUBERT])
    assert str(base.merge()) == EXPECTED[name]["base_string"]


@pytest.mark.parametrize("name", NAMES)
def test_g7_hubert_gives_layer_11_at_a_hop_of_640_and_needs_720_samples(released, waves, name):
    features = released.hubert.features([waves[name]])[0].numpy()
    wanted = ARRAYS[f"{name}.hubert_features"]
    np.testing.assert_allclose(features, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())
    hubert = released.hubert
    assert (hubert.layer, hubert.hop, hubert.reach) == (11, 640, 720)
    assert len(hubert.features([waves[name][:720]])[0]) == 1
    with pytest.raises(ValueError, match="a wave of 719 samples is too short"):
        hubert.features([waves[name][:719]])


def test_g7_the_quantizer_has_three_layers_of_the_released_sizes(tmp_path):
    # 768 channels and 500 units: the layers between are 702 and 635 wide.
    sizes = (768, 702, 635, 501)
    weights = {}
    for place, (wide, narrow) in zip((0, 2, 4), pairwise(sizes), strict=True):
        weights |= {
            f"{place}.weight": torch.randn(narrow, wide) / wide**0.5,
            f"{place}.bias": torch.zeros(narrow),
        }
    settings = {"vocab_size": 500, "dim": 768, "upstream_dim": 768}
    torch.save({"model_cfg": settings, "model_weight": weights}, tmp_path / "q.pt")
    quantizer = read_quantizer(tmp_path / "q.pt")
    assert isinstance(quantizer, CTCLinear)
    assert (quantizer.channels, len(quantizer)) == (768, 501)
    hidden = features = torch.randn(40, 768)
    for place in (0, 2, 4):
        hidden = hidden @ weights[f"{place}.weight"].T + weights[f"{place}.bias"]
        hidden = torch.nn.functional.leaky_relu(hidden) if place < 4 else hidden
    assert (quantizer.units(features) == fill_blanks(hidden.argmax(1).int().numpy(), 500)).all()


@pytest.mark.parametrize(
    ("samples", "counts"),
    [
        (1_280, (1, 1, 1)),
        (16_000, (24, 12, 1)),
        (146_160, (228, 114, 10)),
        (160_000, (249, 125, 10)),
        (1_600_000, (2_499, 1_250, 100)),
    ],
)
def test_g6_frame_counts_are_those_of_the_release(released, samples, counts):
    f0_frames = torch.zeros(1, 2, samples // 80 + 1)
    assert released.hubert.frames(samples) == counts[0]
    with torch.inference_mode():
        assert released.pitch.network(f0_frames).shape[1] == counts[1]
    assert -(-released.style.encoder.frames(samples) // 50) == counts[2]


def test_g6_short_tails_are_dropped_and_chunks_have_100_seconds(released, waves, monkeypatch):
    assert CHUNK == 1_600_000
    monkeypatch.setattr("spirit.formats.spiritlm_speech.CHUNK", 32_000)
    wave = waves["jfk"][: 2 * 32_000 + 1_279]
    short = released.encode(wave)
    for kind in Kind:
        parts = [
            released.encode(wave[start : start + 32_000]).by_kind[kind].unit
            for start in (0, 32_000)
        ]
        assert short.by_kind[kind].unit.tolist() == np.concatenate(parts).tolist()
    longer = released.encode(waves["jfk"][: 2 * 32_000 + 1_280])
    assert [len(longer.by_kind[kind]) - len(short.by_kind[kind]) for kind in Kind] == [1, 1, 1]
    for samples in (0, 1, 1_279):
        assert str(released.encode(wave[:samples]).merge()) == ""
    assert [len(track) for track in released.encode(wave[:1_280]).by_kind.values()] == [1, 1, 1]


def test_g8_blanks_take_the_unit_to_their_left_on_a_ring():
    row = np.array([500, 500, 3, 4, 500, 5], dtype=np.int32)
    assert fill_blanks(row, 500).tolist() == [5, 5, 3, 4, 4, 5]
    assert fill_blanks(row[:2], 500).tolist() == [500, 500]
    assert fill_blanks(row[:0], 500).tolist() == []


@given(st.lists(st.integers(0, 3), max_size=20))
def test_g8_blanks_are_filled_as_by_repeated_turns_of_the_ring(units):
    row = np.array(units, dtype=np.int32)
    slow = row.copy()
    while (slow == 3).any() and not (slow == 3).all():
        slow = np.where(slow == 3, np.roll(slow, 1), slow)
    assert fill_blanks(row, 3).tolist() == slow.tolist()


def _old_names(weights):
    return {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): weight
        for name, weight in weights.items()
    }


def _new_names(weights):
    return {
        name.replace("weight_g", "parametrizations.weight.original0").replace(
            "weight_v", "parametrizations.weight.original1"
        ): weight
        for name, weight in weights.items()
    }


def test_g9_both_names_of_weight_norm_give_the_same_tokens(tree, released, waves):
    stored = torch.load(tree / STYLE / "pytorch_model.bin", weights_only=True)
    hubert = torch.load(tree / HUBERT, weights_only=True)["model_weight"]
    assert any(name.endswith("original0") for name in stored)
    assert any(name.endswith("weight_g") for name in hubert)
    _resave(tree / STYLE / "pytorch_model.bin", _old_names)
    _resave(tree / HUBERT, lambda c: {**c, "model_weight": _new_names(c["model_weight"])})
    other = ReleasedEncoder.load(tree)
    assert str(other.encode(waves["slt"]).merge()) == EXPECTED["slt"]["expressive_string"]


def test_g9_heads_of_training_in_the_checkpoint_are_left_there(tree, waves):
    heads = {"label_embs_concat": torch.zeros(3, 4), "final_proj.weight": torch.zeros(2, 2)}
    _resave(tree / HUBERT, lambda c: {**c, "model_weight": c["model_weight"] | heads})
    base = ReleasedEncoder.load(tree, "base")
    assert base.counts == {Kind.HUBERT: 21}
    assert str(base.encode(waves["slt"]).merge()) == EXPECTED["slt"]["base_string"]


def test_base_needs_the_files_of_hubert_alone(tree, waves):
    shutil.rmtree(tree / STYLE)
    shutil.rmtree(tree / "vqvae_f0_quantizer")
    base = ReleasedEncoder.load(tree, "base")
    assert str(base.encode(waves["jfk"]).merge()) == EXPECTED["jfk"]["base_string"]
    with pytest.raises(ValueError, match=r"config\.yaml: no such file"):
        ReleasedEncoder.load(tree)


@pytest.mark.parametrize("name", NAMES)
def test_g10_f0_is_that_of_the_release_at_200_hz(released, waves, name):
    f0, voiced = released.pitch.hear.line(torch.from_numpy(waves[name]))
    assert len(f0) == len(waves[name]) // 80 + 1
    np.testing.assert_allclose(f0.numpy(), ARRAYS[f"{name}.f0"], rtol=1e-5)
    assert (voiced.numpy() == (ARRAYS[f"{name}.vuv"] > 0)).all()


def test_g10_the_voiced_mean_is_taken_off_and_16_frames_make_a_token(released):
    pitch = released.pitch
    assert (pitch.codes, pitch.hop) == (64, 1_280)
    f0 = torch.tensor([100.0, 150.0, 200.0, 0.0])
    voiced = torch.tensor([True, False, True, False])
    assert pitch.contour(f0, voiced).tolist() == [[-50.0, 0.0, 50.0, 0.0], [1.0, 0.0, 1.0, 0.0]]


@pytest.mark.parametrize(
    ("features", "line"),
    [
        ("f0_interp,vuv", [100.0, 150.0, 200.0]),
        ("f0,vuv", [100.0, 0.0, 200.0]),
        ("norm_f0_interp,vuv", [-50.0, 0.0, 50.0]),
        ("norm_f0,vuv", [-50.0, 0.0, 50.0]),
    ],
)
def test_g10_the_configuration_says_how_f0_is_normalized(tree, features, line):
    path = tree / "vqvae_f0_quantizer" / "config.yaml"
    text = path.read_text().replace("norm_f0_interp,vuv", features)
    path.write_text(text.replace("speaker_norm: true", "speaker_norm: false"))
    pitch = ReleasedPitch.load(path.parent)
    f0, voiced = torch.tensor([100.0, 150.0, 200.0]), torch.tensor([True, False, True])
    assert pitch.contour(f0, voiced)[0].tolist() == line


def test_g11_style_windows_have_50_frames_and_the_last_may_be_partial(released, waves):
    style = released.style
    wave = waves["slt"]
    features = style.encoder.features([wave])[0]
    assert len(features) % 50
    tokens = style.tokens([wave])[0]
    assert len(tokens) == -(-len(features) // 50)
    with torch.inference_mode():
        last = style.classifier(style.projector(features[-(len(features) % 50) :]).mean(0))
    assert tokens[-1] == int(last.argmax())
    # mean 0 and variance 1 first: loudness and offset change nothing
    assert (style.tokens([(wave * 0.1 + 0.05).astype(np.float32)])[0] == tokens).all()
    assert style.styles == 100


@pytest.mark.parametrize("seconds", [0.08, 1.5])
def test_g23_silence_and_noise_have_tokens(released, seconds):
    samples = int(16_000 * seconds)
    noise = np.random.default_rng(0).normal(0, 1e-3, samples).astype(np.float32)
    for wave in (np.zeros(samples, np.float32), noise):
        tracks = released.encode(wave)
        assert len(tracks.by_kind[Kind.PITCH]) == (samples // 80 + 1) // 16
        assert all(len(track) for track in tracks.by_kind.values())


def test_fcpe_draws_a_line_through_unvoiced_frames_only():
    hear = Fcpe()
    wave = np.zeros(16_000, np.float32)
    wave[4_000:12_000] = np.sin(np.arange(8_000) * 2 * np.pi * 150 / 16_000)
    f0, voiced = hear.line(torch.from_numpy(wave))
    assert voiced.any()
    assert not voiced.all()
    assert (f0 > 0).all()
    plain = hear(torch.from_numpy(wave))
    assert torch.equal(plain > 0, voiced)
    assert torch.equal(plain[voiced], f0[voiced])


def test_recordings_that_are_encoded_together_have_the_same_units(released, waves):
    clips = [waves["slt"], waves["jfk"], waves["jfk"][:20_000], waves["slt"][:1_000]]
    strings = [str(tracks.merge()) for tracks in released.encode_batch(clips)]
    assert strings[:2] == [EXPECTED[name]["expressive_string"] for name in ("slt", "jfk")]
    assert strings[2:] == [str(released.encode(clip).merge()) for clip in clips[2:]]
    assert released.encode_batch([]) == []


def test_convolutions_are_parsed_and_never_evaluated():
    assert parse_convolutions("[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 3") == [
        (512, 10, 5),
        *[(512, 3, 2)] * 4,
        *[(512, 2, 2)] * 3,
    ]
    assert parse_convolutions("2 * [[8, 4, 2]]") == [(8, 4, 2)] * 2
    for text in (
        "__import__('os').system('true')",
        "[(1,2,3)] * 10**9",
        "[(1,2,3)] * 64 * 64",
        "[(1,2)]",
        "[(1,2,-3)]",
        "[(1,2,True)]",
        "[x for x in ()]",
        "",
        "(" * 500,
    ):
        with pytest.raises(ValueError, match="is not a list of"):
            parse_convolutions(text)


class _Object:
    pass


def test_pickles_that_need_their_own_code_are_refused_in_one_line(tree):
    torch.save({"model_cfg": {}, "model_weight": _Object()}, tree / HUBERT)
    with pytest.raises(ValueError, match="would run code from it") as caught:
        read_hubert(tree / HUBERT, 11)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["model_weight"], "needs model_cfg and model_weight"),
        (lambda c: {**c, "model_weight": {}}, "lacks the weights"),
        (
            lambda c: {**c, "model_cfg": {**c["model_cfg"], "encoder_ffn_embed_dim": 7}},
            "has the shape",
        ),
        (lambda c: {**c, "model_cfg": {"extractor_mode": "odd"}}, "neither default nor layer_norm"),
        (lambda c: {**c, "model_cfg": {"conv_feature_layers": "eval"}}, "is not a list"),
        (lambda c: {**c, "task_cfg": {"sample_rate": 8_000}}, "8000 samples a second"),
    ],
)
def test_a_hubert_that_does_not_fit_itself_is_refused(tree, change, message):
    _resave(tree / HUBERT, change)
    with pytest.raises(ValueError, match=message):
        read_hubert(tree / HUBERT, 11)


def test_damaged_and_missing_files_are_named(tree):
    with pytest.raises(ValueError, match="no such folder"):
        ReleasedEncoder.load(tree / "nothing")
    (tree / QUANTIZER).write_bytes((tree / QUANTIZER).read_bytes()[:900])
    with pytest.raises(ValueError, match=r"L11_quantizer_500\.pt"):
        ReleasedEncoder.load(tree)
    (tree / QUANTIZER).unlink()
    with pytest.raises(ValueError, match=r"L11_quantizer_500\.pt: no such file"):
        ReleasedEncoder.load(tree)
    yaml = tree / "vqvae_f0_quantizer" / "config.yaml"
    yaml.write_text("features: !!python/object/apply:os.getcwd []")
    with pytest.raises(ValueError, match="cannot be read as YAML"):
        ReleasedPitch.load(yaml.parent)
    yaml.write_text("features: loudness\nencoder_params: {}\nvq_params: {}")
    with pytest.raises(ValueError, match="'loudness' are not one of f0_interp,vuv"):
        ReleasedPitch.load(yaml.parent)
    (tree / STYLE / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="'bert', not wav2vec2"):
        ReleasedStyle.load(tree / STYLE)


def test_normalized_waves_are_asked_for_by_the_task(tree, waves, released):
    _resave(tree / HUBERT, lambda c: {**c, "task_cfg": {"normalize": True}})
    hubert = read_hubert(tree / HUBERT, 11)
    wave = torch.from_numpy(waves["slt"])
    level = torch.nn.functional.layer_norm(wave, wave.shape).numpy()
    torch.testing.assert_close(
        hubert.features([waves["slt"]])[0],
        released.hubert.features([level])[0],
        rtol=1e-4,
        atol=1e-4,
    )


def test_kmeans_are_read_from_safetensors_arrays_and_dictionaries(tmp_path):
    from safetensors.torch import save_file

    centroids = torch.randn(5, 3)
    np.save(tmp_path / "a.npy", centroids.numpy())
    np.save(tmp_path / "double.npy", centroids.double().numpy())
    KMeans(centroids).save(tmp_path / "b.safetensors")
    save_file({"cluster_centers": centroids}, tmp_path / "c.safetensors")
    torch.save({"cluster_centers": centroids, "n_clusters": 5}, tmp_path / "d.pt")
    for path in tmp_path.iterdir():
        assert torch.equal(read_quantizer(path).centroids, centroids)
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(ValueError, match="cannot be read as an array"):
        read_quantizer(tmp_path / "objects.npy")
    np.save(tmp_path / "row.npy", np.zeros(3))
    with pytest.raises(ValueError, match="centroids are a table of floats"):
        read_quantizer(tmp_path / "row.npy")
    torch.save({"steps": 3}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="holds neither centroids"):
        read_quantizer(tmp_path / "other.pt")


def test_f0_vqvae_of_the_paper_has_a_tenth_of_a_million_parameters_in_its_encoder():
    # The whole has 0.2 M (the model card); the encoder is about half of it.
    network = F0Encoder(
        inputs=2,
        width=32,
        depth=4,
        downs=4,
        stride=2,
        inner=32,
        growth=3,
        channels=128,
        codes=64,
    )
    assert 0.08e6 < sum(p.numel() for p in network.parameters()) < 0.12e6
    assert network(torch.zeros(1, 2, 1_828)).shape == (1, 114)
