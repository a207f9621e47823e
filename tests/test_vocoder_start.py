"""A voice that goes on from another one says what that says, as far as the two are alike."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from spirit.audio import read_audio
from spirit.formats.spiritlm_vocoder import ReleasedVocoder, read_vocoder
from spirit.pipeline import Spirit
from spirit.vocoder.recipe import NetworkConfig, parts
from spirit.vocoder.start import go_on_from
from spirit.vocoder.voice import Voice, fold
from tests.released import GOLDEN
from tests.test_vocoder import ALPHABET, HEADS, SMALL, build, ids, speak

pytest_plugins = "tests.fixtures"
HIFIGAN = GOLDEN / "speech_tokenizer" / "hifigan_spiritlm_expressive_w2v2"


def other(seed: int = 1, **changes: Any) -> Voice:
    """A voice of random weights, weight norm in it."""
    torch.manual_seed(seed)
    network = NetworkConfig(**SMALL, **{**HEADS["hifigan"], **changes})  # type: ignore[arg-type]
    return Voice(**parts(network, ALPHABET, 2)).eval()


@pytest.mark.parametrize("folded", [True, False])
def test_a_voice_of_the_same_shape_says_the_same(folded: bool) -> None:
    voice, start = other(), build("hifigan")
    before = speak(start, ids(9))
    if folded:
        fold(start)
    assert not torch.allclose(speak(voice, ids(9)), before, atol=1e-3)
    assert go_on_from(voice, start) == []
    torch.testing.assert_close(speak(voice, ids(9)), before, atol=1e-5, rtol=1e-4)
    voice.generator(ids(9), None, torch.ones(1, 9, dtype=torch.bool)).sum().backward()
    assert all(p.grad is not None for p in voice.generator.parameters())  # it is trained on


def test_embeddings_may_stand_in_another_order() -> None:
    network = NetworkConfig(**SMALL, **HEADS["hifigan"])  # type: ignore[arg-type]
    shape = parts(network, ALPHABET, 2)
    inputs = shape["generator"]["inputs"]
    shape["generator"]["inputs"] = dict(reversed(inputs.items()))
    torch.manual_seed(2)
    start, voice = Voice(**shape).eval(), other()
    go_on_from(voice, start)
    torch.testing.assert_close(speak(voice, ids(9)), speak(start, ids(9)), atol=1e-5, rtol=1e-4)


def test_a_released_generator_is_gone_on_from_for_speakers_of_ones_own() -> None:
    start = ReleasedVocoder.load(HIFIGAN).voice
    size = start.config["generator"]
    width = size["inputs"]["unit"][1]
    names = ("channels", "rates", "kernels", "block_kernels")
    network = replace(
        NetworkConfig(),
        **{f"{name}_width": width for name in ("unit", "pitch", "style", "speaker")},
        **{name: tuple(size[name]) for name in names},
        duration_hidden=16,
    )
    alphabet = {"unit": 21, "pitch": 64, "style": 100}
    voice = Voice(**parts(network, alphabet, 7))
    left = go_on_from(voice, start)
    assert all(name.startswith("durations.") or "embed.speaker" in name for name in left)
    ours, theirs = voice.generator.embed, start.generator.embed
    assert torch.equal(ours["unit"].weight, theirs["unit"].weight)
    assert len(ours["pitch"].weight) == len(theirs["pitch"].weight) + 1  # the last: none
    assert torch.equal(ours["pitch"].weight[:-1], theirs["pitch"].weight)
    torch.testing.assert_close(
        voice.generator.conv_pre.conv.weight, start.generator.conv_pre.conv.weight
    )


def test_a_generator_of_another_shape_is_refused_in_one_line() -> None:
    with pytest.raises(
        ValueError, match=r"conv_post\.conv.* of the shape .*leave out init"
    ) as told:
        go_on_from(other(post_kernel=5), build("hifigan"))
    assert "\n" not in str(told.value)


def test_a_released_vocoder_speaks_for_a_model_of_ones_own(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle.parents[1], tmp_path / "copy")
    model = tmp_path / "copy" / "checkpoints" / "tiny"
    shutil.rmtree(model / "vocoder")
    shutil.copytree(HIFIGAN, model / "vocoder")
    spirit = Spirit.load(model, device="cpu")
    assert isinstance(spirit.vocoder, ReleasedVocoder)
    assert spirit.vocoder.speakers[2] == spirit.speaker
    units = spirit.hear(read_audio(GOLDEN / "audio" / "slt.flac")[:16_000])
    assert len(spirit.speak(units)) == round(spirit.seconds(units) * 16_000)
    (model / "vocoder" / "generator.pt").unlink()
    with pytest.raises(ValueError, match=r"is no vocoder: model\.safetensors is missing"):
        read_vocoder(model / "vocoder")
