"""Unit shards by the released speech tokenizer, for the released language models."""

import json
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from spirit.audio import write_audio
from spirit.cli import main
from spirit.data.shards import read_shards
from spirit.formats import spiritlm
from spirit.formats.spiritlm_speech import ReleasedTokenizer
from spirit.units import Kind

GOLDEN = Path(__file__).parent / "golden" / "spiritlm"
TREE = GOLDEN / "speech_tokenizer"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for path in (GOLDEN / "audio").iterdir():
        shutil.copy(path, folder)
    write_audio(folder / "click.wav", np.zeros(1_279, np.float32))
    return folder


@pytest.mark.parametrize("variant", ["base", "expressive"])
def test_spirit_tokenize_takes_a_released_folder(corpus, tmp_path, variant):
    out = tmp_path / "units"
    options = ["--tokenizer", str(TREE), "--variant", variant, "--out", str(out)]
    result = CliRunner().invoke(main, ["tokenize", str(corpus), *options, "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert "utterances (none with a text), " in result.output
    vocab = spiritlm.vocab(variant)
    shards = read_shards(out, fingerprint=vocab.fingerprint)
    kinds = list(Kind) if variant == "expressive" else [Kind.HUBERT]
    assert shards.manifest["windows"] == {"chunk": 100, "least": 0.08}
    assert {Path(row.audio).stem for row in shards} == set(EXPECTED)
    for row in shards:
        wanted = EXPECTED[Path(row.audio).stem]
        for kind in kinds:
            assert row.tracks.by_kind[kind].unit.tolist() == wanted["units"][kind.key]
        assert set(row.tracks.by_kind) == set(kinds)
        assert row.tracks.by_kind[Kind.HUBERT].hop == Fraction(1_600_000, 2_499)
        merged = row.tracks.merge()
        assert str(merged) == wanted[f"{variant}_string"]
        assert vocab.units_to_ids(merged).min() >= 32_002
    (refused,) = map(json.loads, (out / "rejected.jsonl").read_text().splitlines())
    assert refused["audio"] == "click.wav"
    assert refused["reason"].startswith("1279 samples at 16 kHz; this tokenizer needs 1280")


def test_the_fingerprint_of_a_released_tokenizer_follows_its_files(tmp_path):
    tree = Path(shutil.copytree(TREE, tmp_path / "tree"))
    whole, base = ReleasedTokenizer.load(tree), ReleasedTokenizer.load(tree, "base")
    assert whole.fingerprint != base.fingerprint
    assert ReleasedTokenizer.load(TREE).fingerprint == whole.fingerprint
    settings = tree / "vqvae_f0_quantizer" / "config.yaml"
    settings.write_text(settings.read_text().replace("norm_f0_interp", "f0_interp"))
    assert ReleasedTokenizer.load(tree).fingerprint != whole.fingerprint
    assert ReleasedTokenizer.load(tree, "base").fingerprint == base.fingerprint
