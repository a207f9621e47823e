"""A complete model folder with random weights: everything real, nothing trained."""

import os
import tempfile
from pathlib import Path

import torch

from spirit import commit
from spirit.audio import read_audio
from spirit.lm import model as llama
from spirit.speech.hubert import Hubert
from spirit.speech.pitch import PitchFormat, PitchTokenizer
from spirit.speech.quantizer import KMeans
from spirit.speech.style import StyleFormat, StyleTokenizer
from spirit.tokenizer import Tokenizer, assemble
from spirit.vocoder import Vocoder
from spirit.vocoder.recipe import NetworkConfig, parts
from spirit.vocoder.vocoder import Voice

JFK = Path(__file__).parent / "data" / "jfk.flac"
SPEAKERS = ("slt", "rms")
STYLES = ("calm", "lively", "sad")


def build(folder: Path) -> Path:
    """Write tokenizers/tiny and checkpoints/tiny below `folder`; returns the latter."""
    home, target = folder / "tokenizers" / "tiny", folder / "checkpoints" / "tiny"
    torch.manual_seed(0)
    build_tokenizer(home)
    tokenizer = Tokenizer.load(home)
    vocab = tokenizer.vocab
    model = llama.new_llama(vocab.size, 32, 2, 2, 64, positions=256)
    llama.save(target, model, vocab)
    alphabet = {"unit": 12, "pitch": 16, "style": len(STYLES)}
    network = NetworkConfig(
        unit_width=8,
        pitch_width=4,
        style_width=4,
        speaker_width=4,
        channels=(8, 8, 4, 4, 4, 4),
        block_kernels=(3,),
        block_dilations=((1,),),
        duration_hidden=8,
    )
    voice = Voice(**parts(network, alphabet, len(SPEAKERS)))
    absent = {name: alphabet[name] for name in ("pitch", "style")}
    Vocoder(voice, SPEAKERS, alphabet, absent=absent).save(target / "vocoder")
    commit.text(
        target / "spirit.toml",
        f'tokenizer = "{os.path.relpath(home, target)}"\n'
        f'fingerprint = "{tokenizer.fingerprint}"\n'
        f'vocabulary = "{vocab.fingerprint}"\nlicense = "Apache-2.0"\n',
    )
    return target


def build_tokenizer(home: Path, units: int = 12) -> None:
    """Write a tokenizer folder with fitted-looking parts."""
    hubert = Hubert.new(
        hidden=32,
        layers=2,
        heads=2,
        ffn=32,
        conv_dim=(16, 16, 16, 16),
        conv_kernel=(20, 16, 4, 2),
        conv_stride=(10, 8, 4, 2),
    ).eval()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        hubert.save(work)
        (features,) = hubert.features([read_audio(JFK)])
        KMeans(features[:: len(features) // units][:units].clone()).save(work / "units.safetensors")
        form = PitchFormat(width=8, depth=1, channels=16, codes=16)
        network = form.network()
        network.codebook.vectors.normal_(std=0.1)
        PitchTokenizer(form, network, form.hear("cpu")).save(work)
        style = StyleFormat(names=STYLES, channels=32, hidden=8)
        StyleTokenizer(style, style.network()).save(work)
        assemble(hubert=work, units=work, pitch=work, style=work, out=home, name="tiny")
