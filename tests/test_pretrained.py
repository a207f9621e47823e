"""Networks of the wav2vec 2.0 family give what transformers gives, whatever the batch."""

from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import (
    HubertConfig,
    HubertModel,
    Wav2Vec2Config,
    Wav2Vec2ForCTC,
    WavLMConfig,
    WavLMModel,
)

from spirit.audio import write_audio
from spirit.fit import TokenizerConfig, UnitsFitConfig, fit_tokenizer, fit_units
from spirit.formats.encoders import digest, find_encoder
from spirit.formats.hf import read_encoder
from spirit.speech.encoder import SpeechEncoder
from spirit.speech.pretrained import Pretrained
from spirit.speech.quantizer import CTCLinear, KMeans
from spirit.tokenizer import Tokenizer
from spirit.units import Kind

TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": (8, 8, 8),
    "conv_kernel": (10, 8, 4),
    "conv_stride": (5, 8, 4),
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}
BASE = {"feat_extract_norm": "group", "do_stable_layer_norm": False}
LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
KINDS = {"hubert": (HubertConfig, HubertModel), "wavlm": (WavLMConfig, WavLMModel)}


def _network(kind="hubert", **settings):
    torch.manual_seed(3)
    form, network = KINDS[kind]
    return network(form(**TINY, **settings)).eval()


def _wave(samples, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [BASE, LARGE])
@pytest.mark.parametrize("layer", [1, 2, 3])
def test_every_layer_is_the_hidden_state_of_transformers(kind, shape, layer, tmp_path):
    network = _network(kind, **shape)
    network.save_pretrained(tmp_path)
    wave = _wave(5_000)
    with torch.no_grad():
        wanted = network(torch.from_numpy(wave)[None], output_hidden_states=True)
    encoder = read_encoder(tmp_path, layer, padded=False)
    features = encoder.features([wave])[0]
    wanted_here = wanted.hidden_states[layer][0]
    torch.testing.assert_close(features, wanted_here, rtol=1e-5, atol=1e-5)
    whole = read_encoder(tmp_path, padded=False).features([wave])[0]
    torch.testing.assert_close(whole, wanted.last_hidden_state[0], rtol=1e-5, atol=1e-5)
    assert len(features) == encoder.frames(5_000)
    assert (encoder.hop, encoder.layer, encoder.channels) == (160, layer, 16)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15)
@given(st.lists(st.integers(300, 6_000), min_size=1, max_size=4), st.sampled_from([BASE, LARGE]))
def test_features_do_not_depend_on_what_a_clip_is_batched_with(kind, padded, lengths, shape):
    encoder = Pretrained(_network(kind, **shape), 2, padded=padded, normalize=1e-7)
    waves = [_wave(length, seed) for seed, length in enumerate(lengths)]
    with patch("spirit.speech.pretrained.packable", return_value=False):
        side_by_side = encoder.features(waves)  # as on a GPU
    together = encoder.features(waves)
    for wave, features, padded_features in zip(waves, together, side_by_side, strict=True):
        alone = encoder.features([wave])[0]
        assert features.shape == alone.shape == (encoder.frames(len(wave)), 16)
        torch.testing.assert_close(features, alone, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(padded_features, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [BASE, LARGE])
def test_long_clips_are_convolved_piece_by_piece(shape):
    encoder = Pretrained(_network(**shape), 2, padded=True)
    waves = [_wave(seconds * 16_000 + seconds) + 0.01 for seconds in (1, 5, 7)]
    with patch("spirit.speech.packed.TILE", 1e9):
        whole = encoder.features(waves)
    for pieces, features in zip(encoder.features(waves), whole, strict=True):
        torch.testing.assert_close(pieces, features, rtol=1e-4, atol=1e-5)


def test_a_folder_says_whether_waves_are_normalized(tmp_path):
    network = _network(**BASE)
    network.save_pretrained(tmp_path)
    wave = _wave(3_000) * 0.2 + 0.3
    assert read_encoder(tmp_path).normalize is None
    (tmp_path / "preprocessor_config.json").write_text('{"do_normalize": true}')
    encoder = read_encoder(tmp_path, padded=False)
    level = (wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)
    with torch.no_grad():
        wanted = network(torch.from_numpy(level)[None]).last_hidden_state[0]
    torch.testing.assert_close(encoder.features([wave])[0], wanted, rtol=1e-4, atol=1e-5)
    assert read_encoder(tmp_path, normalize=False).normalize is None


def test_heads_old_names_and_pickles_are_read(tmp_path):
    torch.manual_seed(5)
    network = Wav2Vec2ForCTC(Wav2Vec2Config(**TINY, **BASE, vocab_size=7)).eval()
    network.save_pretrained(tmp_path)
    wanted = read_encoder(tmp_path).features([_wave(2_000)])[0]
    weights = load_file(tmp_path / "model.safetensors")
    assert any(name.startswith("wav2vec2.") for name in weights)
    old = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): weight
        for name, weight in weights.items()
    }
    (tmp_path / "model.safetensors").unlink()
    torch.save(old, tmp_path / "pytorch_model.bin")
    assert torch.equal(read_encoder(tmp_path).features([_wave(2_000)])[0], wanted)
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(ValueError, match="holds no weights"):
        read_encoder(tmp_path)


def test_weights_in_several_files_are_read(tmp_path):
    network = _network(**BASE)
    network.save_pretrained(tmp_path, max_shard_size="5KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    wanted = Pretrained(network, padded=True).features([_wave(2_000)])[0]
    torch.testing.assert_close(read_encoder(tmp_path).features([_wave(2_000)])[0], wanted)


def test_other_folders_are_refused_in_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"config\.json: no such file"):
        read_encoder(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="of the type 'bert'; hubert, wavlm, wav2vec2 can be"):
        read_encoder(tmp_path)
    network = _network(**BASE)
    network.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="layers 1 to 3, not 4"):
        read_encoder(tmp_path, 4)
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop("encoder.layers.0.attention.k_proj.weight")
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"lacks the weights encoder\.layers\.0\.attention\.k_pro"):
        read_encoder(tmp_path)


@pytest.mark.parametrize("quantizer", [KMeans(torch.randn(9, 16)), CTCLinear((16, 12, 9))])
def test_a_pretrained_network_is_an_encoder_of_ours(quantizer):
    encoder = SpeechEncoder(Pretrained(_network(**BASE), 2, padded=True), quantizer)
    waves = [_wave(samples, samples) for samples in (1, 160, 5_000, 16_000)]
    for wave, tracks in zip(waves, encoder.encode_batch(waves), strict=True):
        track = tracks.by_kind[Kind.HUBERT]
        assert (len(track), track.hop) == (max(1, len(wave) // 160), 160)
        assert (encoder.encode(wave).by_kind[Kind.HUBERT].unit == track.unit).mean() > 0.98
    assert encoder.counts == {Kind.HUBERT: 9}
    with pytest.raises(ValueError, match="padded=True"):
        SpeechEncoder(Pretrained(_network(**BASE), 2), quantizer)


def _foreign(tmp_path, kind="wavlm", **shape):
    """A Hugging Face folder at 100 Hz whose waves are normalized, and centroids for its layer 2."""
    _network(kind, **{**LARGE, **shape}).save_pretrained(tmp_path / "hf")
    (tmp_path / "hf" / "preprocessor_config.json").write_text('{"do_normalize": true}')
    rows = read_encoder(tmp_path / "hf", 2).features([_wave(30_000)])[0].numpy()
    np.save(tmp_path / "km.npy", rows[::9])
    return rows


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [BASE, LARGE])
@pytest.mark.parametrize("layer", [0, 2])
def test_a_saved_encoder_gives_the_same_features(kind, shape, layer, tmp_path):
    _network(kind, **shape).save_pretrained(tmp_path / "hf")
    encoder = read_encoder(tmp_path / "hf", layer, normalize=True)
    (tmp_path / "ours").mkdir()
    encoder.save(tmp_path / "ours")
    again = find_encoder(tmp_path / "ours")
    waves = [_wave(5_000), _wave(1_300, 1)]
    for before, after in zip(encoder.features(waves), again.features(waves), strict=True):
        assert torch.equal(before, after)
    assert digest(tmp_path / "ours") != digest(tmp_path / "hf")


def test_a_foreign_encoder_and_centroids_become_a_tokenizer(tmp_path, run):
    rows = _foreign(tmp_path)
    recipe = tmp_path / "tokenizer.toml"
    recipe.write_text(
        f'out = "{tmp_path / "mine"}"\nhubert = "{tmp_path / "hf"}"\nlayer = 2\n'
        f'units = "{tmp_path / "km.npy"}"\n'
    )
    made = run("fit", "tokenizer", recipe)
    assert made.exit_code == 0, made.stderr
    tokenizer = Tokenizer.load(tmp_path / "mine")
    track = tokenizer.encoder.encode(_wave(30_000)).by_kind[Kind.HUBERT]
    assert track.hop == 160
    nearest = np.linalg.norm(rows[:, None] - rows[::9], axis=2).argmin(1)
    assert np.array_equal(track.unit, nearest)
    assert run("fit", "tokenizer", recipe).exit_code == 0, "it is the same one"
    other = run("fit", "tokenizer", recipe, "--set", "layer=1")
    assert other.exit_code == 1
    assert "holds another tokenizer; give a new folder" in other.stderr


def test_a_ctc_linear_quantizer_is_kept_in_a_tokenizer(tmp_path):
    _foreign(tmp_path)
    torch.manual_seed(1)
    quantizer = CTCLinear([TINY["hidden_size"], 12, 9])
    quantizer.save(tmp_path / "ctc.safetensors")
    config = TokenizerConfig(
        out=tmp_path / "mine",
        hubert=tmp_path / "hf",
        layer=3,
        units=tmp_path / "ctc.safetensors",
    )
    fit_tokenizer(config)
    encoder = Tokenizer.load(tmp_path / "mine").encoder
    wave = _wave(20_000)
    features = read_encoder(tmp_path / "hf", 3).features([wave])[0]
    assert np.array_equal(encoder.encode(wave).by_kind[Kind.HUBERT].unit, quantizer.units(features))


def test_units_are_fitted_on_a_foreign_encoder(tmp_path):
    _foreign(tmp_path, "hubert", **BASE)
    (tmp_path / "corpus").mkdir()
    for i in range(4):
        write_audio(tmp_path / "corpus" / f"{i}.wav", _wave(16_000, i))
    config = UnitsFitConfig(
        corpus=tmp_path / "corpus", out=tmp_path / "units", hubert=tmp_path / "hf", layer=2, units=5
    )
    figures = fit_units(config)
    assert 0 < figures["used"] <= 1
    encoder = find_encoder(tmp_path / "units")
    assert encoder.layer == 2
    wanted = read_encoder(tmp_path / "hf", 2).features([_wave(9_000)])[0]
    assert torch.equal(encoder.features([_wave(9_000)])[0], wanted)


@pytest.fixture
def run():
    from click.testing import CliRunner

    from spirit.cli import main

    return lambda *words: CliRunner().invoke(main, list(map(str, words)))
