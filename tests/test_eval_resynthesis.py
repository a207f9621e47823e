"""`spirit eval resynth`: a perfect copy is perfect, and everything that is left out is told."""

import csv
import json
import warnings

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
)

from spirit.audio import read_audio
from spirit.cli import main
from spirit.eval.judges import rater, recognizer
from spirit.eval.resynthesis import JUDGES, compared, values_of
from spirit.eval.verdict import figures_of
from tests.bundle import JFK

pytest_plugins = "tests.fixtures"
WAVE = read_audio(JFK)


def test_a_copy_of_itself_has_no_error():
    found = {"u": {"words": 5, "errors": 0, "original_errors": 1, **compared(WAVE, WAVE, False)}}
    figures = {name: figure.value for name, figure in figures_of(values_of(found)).items()}
    for name in ("wer", "gpe", "vde", "ffe", "f0_rmse", "mcd"):
        assert figures[name] == pytest.approx(0, abs=1e-6), name
    for name in ("f0_correlation", "energy_correlation", "rate_ratio"):
        assert figures[name] == pytest.approx(1), name
    assert figures["wer.original"] == pytest.approx(1 / 5)
    assert figures["rate"] == pytest.approx(5 / found["u"]["seconds"])


def test_the_melody_of_a_slower_copy_is_compared_where_it_belongs():
    # Every stretch of 0.2 s twice: half as fast, at the same F0.
    steps = np.array_split(WAVE[: 4 * 16_000], 20)
    slow = np.concatenate([step for step in steps for _ in range(2)])
    apart, together = (
        compared(WAVE[: 4 * 16_000], slow, False),
        compared(WAVE[: 4 * 16_000], slow, True),
    )
    assert together["voicing_errors"] < apart["voicing_errors"]
    assert together["correlation"] > max(apart["correlation"], 0.5)
    assert together["original_seconds"] / together["seconds"] == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(("name", "best"), [("stoi", 1.0), ("pesq", 4.6)])
def test_what_hears_a_difference_hears_none_and_some(name, best):
    pytest.importorskip("pystoi" if name == "stoi" else "pesq")
    noise = np.random.default_rng(0).normal(0, 0.1, len(WAVE)).astype(np.float32)
    judge = JUDGES[name]
    assert judge(WAVE, WAVE) == pytest.approx(best, abs=0.1)
    assert judge(WAVE, WAVE + noise) < 0.8 * best
    silence = np.zeros(1_600, np.float32)
    assert judge(silence, silence) is None


def test_a_predictor_of_naturalness_is_any_torchscript(tmp_path):
    class Level(torch.nn.Module):
        def forward(self, waves: torch.Tensor, rate: int) -> torch.Tensor:
            return waves.abs().amax(1) * rate

    class Two(torch.nn.Module):
        def forward(self, waves: torch.Tensor) -> torch.Tensor:
            return waves[:, :2]

    for name, network in (("one", Level()), ("two", Two())):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.jit.save(torch.jit.script(network), tmp_path / f"{name}.pt")
    assert rater(tmp_path / "one.pt")(np.full(10, 0.5, np.float32)) == 8_000
    with pytest.raises(ValueError, match="with 2 numbers; it must be one"):
        rater(tmp_path / "two.pt")(WAVE)
    (tmp_path / "none.pt").write_text("no")
    with pytest.raises(ValueError, match="neither TorchScript nor a folder"):
        rater(tmp_path / "none.pt")(WAVE)
    with pytest.raises(ValueError, match="is not a recognizer of Hugging Face"):
        recognizer(tmp_path)(WAVE)


def test_a_recognizer_of_hugging_face_writes_what_it_hears(tmp_path):
    """One that hears the same letter in every frame."""
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", "H", "I"]
    shape = Wav2Vec2Config(
        vocab_size=len(letters),
        hidden_size=16,
        num_hidden_layers=0,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(8, 8),
        conv_kernel=(10, 64),
        conv_stride=(5, 64),
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        pad_token_id=0,
    )
    network = Wav2Vec2ForCTC(shape)
    network.lm_head.weight.data.zero_()
    network.lm_head.bias.data = torch.tensor([0.0] * 5 + [0.0, 9.0])
    network.save_pretrained(tmp_path)
    (tmp_path / "vocab.json").write_text(json.dumps({c: n for n, c in enumerate(letters)}))
    Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json")).save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    assert recognizer(tmp_path)(WAVE) == "i"
    assert recognizer(tmp_path)(np.zeros(1, np.float32)) == ""


def test_a_model_is_measured_and_what_is_left_out_is_told(bundle, tmp_path):
    soundfile.write(tmp_path / "short.flac", WAVE[: 2 * 16_000], 16_000)
    (tmp_path / "broken.flac").write_bytes(b"fLaC")
    rows = [
        {"id": "a", "audio": "short.flac", "text": "And so my fellow Americans", "speaker": "slt"},
        {"id": "b", "audio": "broken.flac", "text": "never read", "speaker": "slt"},
        {"id": "c", "audio": "short.flac", "speaker": "nobody that the model knows"},
        {"id": "d", "audio": "short.flac", "text": "beyond"},
    ]
    data = tmp_path / "corpus.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out"
    asked = ["eval", "resynth", "--model", str(bundle), "--data", str(data), "--out", str(out)]
    asked += ["--jobs", "1", "--device", "cpu", "--limit", "3"]
    said = CliRunner().invoke(main, asked)
    assert said.exit_code == 0, said.output
    for told in (
        "| wer.original | ",
        "| mcd | ",
        ") dB | 2 |",
        "1 x beyond --limit",
        "1 x not answered (answers.jsonl says why)",
        "1 x without a text (of word errors only)",
    ):
        assert told in said.output, said.output
    kept = json.loads((out / "figures.json").read_text())
    assert kept["figures"]["wer"]["count"] == 1
    assert kept["figures"]["mcd"]["count"] == 2
    assert kept["figures"]["rate_ratio"]["value"] == pytest.approx(1, abs=0.2)
    assert kept["settings"]["recognizer"] == "pocketsphinx"
    with (out / "items.csv").open(newline="") as stream:
        items = list(csv.DictReader(stream))
    assert [item["item"] for item in items] == ["a", "c"]
    assert items[0]["reference"] == "and so my fellow americans"
    for item in items:
        assert len(read_audio(out / "recordings" / item["recording"])) > 16_000
    same = CliRunner().invoke(main, ["eval", "compare", str(out), str(out)])
    assert "| mcd | " in same.output
    assert "+0.00 (+0.00 to +0.00) dB" in same.output

    free = CliRunner().invoke(main, [*asked, "--predict-durations", "--limit", "1"])
    assert free.exit_code == 0, free.output
    assert "Without stoi: the copies have durations of their own." in free.output
    lost = CliRunner().invoke(main, [*asked, "--mos", str(tmp_path / "none.pt")])
    assert lost.exit_code == 1
    assert "none.pt: no such file or folder; give that of a judge" in lost.output
    lost = CliRunner().invoke(main, [*asked, "--speaker", "nobody"])
    assert lost.exit_code == 1
    assert "no speaker 'nobody'" in lost.output
