"""fairseq2's models as aligners and its data pipeline as a reader (`make check-fairseq2`)."""

import itertools
import json
import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

from spirit.align import Choice
from spirit.align.aligner import Unaligned
from spirit.align.ctc import align_words
from spirit.audio import AudioError, read_audio
from spirit.cli import main
from spirit.data.corpus import read_corpus
from spirit.data.shards import read_shards
from tests.test_align import JFK, SAID, WAVE, shards, utterance

pytest.importorskip("fairseq2")

from fairseq2.models.wav2vec2 import Wav2Vec2EncoderConfig
from fairseq2.models.wav2vec2.asr import Wav2Vec2AsrConfig, create_wav2vec2_asr_model

from spirit.align import fairseq2 as fairseq2_models
from spirit.data import fairseq2 as fairseq2_reader
from spirit.data.fairseq2 import read_waves

# fairseq2 0.8.1 uses what fairseq2 0.9 is to drop.
pytestmark = pytest.mark.filterwarnings("ignore:.*will be removed in:DeprecationWarning:fairseq2")

LETTERS = "etaoinhsrdlumwcfgypbvk'xjqz"
HOP, REACH = 320, 685
"""Samples between frames and of one frame: kernels 10, 16, 16 with strides 5, 8, 8."""
MARGIN = (REACH - HOP) // 2
CARD = """name: small
model_family: wav2vec2_asr
model_arch: base_10h
model_config:
  target_vocab_size: {size}
  encoder_config: {encoder}
checkpoint: model.pt
tokenizer_ref: letters
---
name: letters
tokenizer: {tokenizer}
"""


def make(folder: Path, tokenizer: str, *, normalize: bool) -> torch.nn.Module:
    """A model of fairseq2, as small as it goes and with random weights, that is sure of itself;
    its card, checkpoint and tokenizer in a folder."""
    if tokenizer == "dict.txt":
        (folder / tokenizer).write_text("".join(f"{letter} 1\n" for letter in LETTERS))
    else:
        sentencepiece = pytest.importorskip("sentencepiece")
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([" ".join(LETTERS), LETTERS]),
            model_prefix=str(folder / tokenizer.removesuffix(".model")),
            model_type="char",
            vocab_size=5 + len(LETTERS),
            bos_id=0,
            pad_id=1,
            eos_id=2,
            unk_id=3,
            minloglevel=2,
        )
    size = 4 + len(LETTERS) + (tokenizer != "dict.txt")
    shape = {
        "model_dim": 16,
        "feature_dim": 8,
        "feature_extractor_layer_descs": [[8, 10, 5], [8, 16, 8], [8, 16, 8]],
        "feature_extractor_layer_norm_convs": normalize,
        "pos_conv_kernel_size": 16,
        "num_pos_conv_groups": 2,
        "num_encoder_layers": 1,
        "num_encoder_attn_heads": 2,
        "ffn_inner_dim": 16,
    }
    config = Wav2Vec2AsrConfig(
        encoder_config=Wav2Vec2EncoderConfig(**shape), target_vocab_size=size
    )
    torch.manual_seed(0)
    network = create_wav2vec2_asr_model(config).eval()
    with torch.no_grad():
        network.final_proj.weight *= 20
        network.final_proj.bias[1:4] = -1e4  # it says no <pad>, </s>, <unk>
    torch.save({"model": network.state_dict()}, folder / "model.pt")
    card = CARD.format(size=size, encoder=json.dumps(shape), tokenizer=tokenizer)
    (folder / "card.yaml").write_text(card)
    return network


def load(folder: Path):
    choice = Choice(aligner="ctc", model=Path(f"fairseq2:{folder}/card.yaml"), device="cpu")
    return choice.load()


@pytest.mark.parametrize("normalize", [False, True])
def test_emissions_are_those_of_fairseq2s_own_model(tmp_path, normalize) -> None:
    from fairseq2.nn import BatchLayout

    network = make(tmp_path, "dict.txt", normalize=normalize)
    heard = torch.from_numpy(WAVE)[None]
    if normalize:
        heard = torch.nn.functional.layer_norm(heard, heard.shape, eps=1e-7)
    heard = heard[
        :, : len(WAVE) - (len(WAVE) - REACH) % HOP
    ]  # what no frame sees would count in the first norm
    with torch.inference_mode():
        logits, _ = network(heard, BatchLayout.of(heard))
    torch.testing.assert_close(
        load(tmp_path).emissions(WAVE), logits[0].log_softmax(-1), atol=1e-4, rtol=1e-5
    )


def test_what_the_model_hears_by_itself_lies_where_it_hears_it(tmp_path) -> None:
    make(tmp_path, "dict.txt", normalize=True)
    aligner = load(tmp_path)
    best = aligner.emissions(WAVE).argmax(-1).tolist()
    # Runs of one letter: the frame they begin at, and the one after their last.
    runs, at = [], 0
    for id, group in itertools.groupby(best):
        stop = at + len(list(group))
        if id:
            runs.append((LETTERS[id - 4], at, stop))
        at = stop
    assert len(runs) > 30
    assert len({letter for letter, _, _ in runs}) > 3
    words = [runs[number : number + 3] for number in range(0, len(runs), 3)]
    found = aligner("a", ["".join(letter for letter, _, _ in word) for word in words], lambda: WAVE)
    assert (aligner.hop, aligner.reach) == (HOP, REACH)
    for word, runs_of_word in zip(found, words, strict=True):
        assert word.start == runs_of_word[0][1] * HOP + MARGIN
        assert word.stop == runs_of_word[-1][2] * HOP + MARGIN
        assert word.score > 0.2


def test_a_sentencepiece_tokenizer_gives_letters_and_what_stands_between_words(tmp_path) -> None:
    import sentencepiece

    make(tmp_path, "letters.model", normalize=True)
    aligner = load(tmp_path)
    pieces = sentencepiece.SentencePieceProcessor(str(tmp_path / "letters.model"))
    words = ["And", "só,", "fellow!"]
    ids = [[pieces.piece_to_id(letter) for letter in word] for word in ("and", "so", "fellow")]
    spans = align_words(aligner.emissions(WAVE), ids, 0, pieces.piece_to_id("▁"))
    found = aligner("a", words, lambda: WAVE)
    assert [word.text for word in found] == words
    assert [(word.start - MARGIN) / HOP for word in found] == [first for first, _, _ in spans]
    assert [word.score for word in found] == [score for _, _, score in spans]
    with pytest.raises(Unaligned, match="unknown word"):
        aligner("a", ["40"], lambda: WAVE)


def test_shards_are_aligned_by_a_model_of_fairseq2(tmp_path) -> None:
    make(tmp_path, "dict.txt", normalize=True)
    folder = shards(tmp_path / "units", [utterance("a", SAID), utterance("b", "and so")])
    model = f"fairseq2:{tmp_path}/card.yaml"
    asked = ["align", folder, "--aligner", "ctc", "--model", model, "--min-score", 0, "--json"]
    done = CliRunner().invoke(main, [*map(str, asked), "--device", "cpu"])
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["aligned"] == 2
    rows = read_shards(folder)
    assert [len(row.words) for row in rows] == [5, 2]
    settings = rows.manifest["alignment"]["settings"]
    assert settings["aligner"] == "ctc"
    assert settings["model"].startswith("fairseq2:")


def test_other_weights_are_another_aligner(tmp_path) -> None:
    network = make(tmp_path, "dict.txt", normalize=True)
    before = load(tmp_path).settings
    assert load(tmp_path).settings == before
    torch.save(
        {"model": {**network.state_dict(), "final_proj.bias": torch.ones(31)}},
        tmp_path / "model.pt",
    )
    assert load(tmp_path).settings != before


class Harm:
    """Something that runs when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("model.pt", None), "No such file"),
        (("dict.txt", None), "dict.txt"),
        (("card.yaml", None), "no such file"),
        (("card.yaml", "name: [\n"), "cannot be loaded as YAML"),
        (("card.yaml", "name: x\nmodel_family: llama\n"), "0 cards with `model_family"),
        (("card.yaml", CARD.replace("tokenizer: ", "other: ")), "field named tokenizer"),
        (("card.yaml", CARD.replace("base_10h", "huge")), "huge"),
        (("card.yaml", CARD.replace("{size}", "99")), "not compatible"),
        (("dict.txt", "".join(f"{i} 1\n" for i in range(40))), "44 tokens, the model 31 outputs"),
        (("model.pt", "no checkpoint"), "model.pt"),
    ],
)
def test_a_card_that_is_wrong_is_refused_in_a_line(tmp_path, change, complaint) -> None:
    make(tmp_path, "dict.txt", normalize=True)
    (name, text), made = change, (tmp_path / "card.yaml").read_text()
    if text is None:
        (tmp_path / name).unlink()
    else:
        encoder = made.partition("encoder_config: ")[2].splitlines()[0]
        for key, value in {"size": "31", "encoder": encoder, "tokenizer": "dict.txt"}.items():
            text = text.replace(f"{{{key}}}", value)
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=complaint) as caught:
        load(tmp_path)
    assert str(caught.value).count("\n") == 0


def test_a_checkpoint_with_code_in_it_is_refused_and_not_run(tmp_path) -> None:
    make(tmp_path, "dict.txt", normalize=True)
    torch.save({"model": {}, "args": Harm(tmp_path / "harm")}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="cannot be loaded"):
        load(tmp_path)
    assert not (tmp_path / "harm").exists()


def test_a_name_that_fairseq2_does_not_know_or_cannot_spell_is_refused() -> None:
    with pytest.raises(ValueError, match="nobody asset is not found"):
        fairseq2_models.load("fairseq2:nobody")
    # The one recognizer that fairseq2 0.8.1 lists comes without its tokenizer; nothing is fetched.
    with pytest.raises(ValueError, match="does not have a field named tokenizer"):
        fairseq2_models.load("fairseq2:wav2vec2_asr_base_10h")


# the reader


def sound(seconds: float, rate: int, channels: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return 0.1 * rng.normal(size=(int(seconds * rate), channels))


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    """What fairseq2 decodes itself: rates, channels and encodings."""
    folder = tmp_path_factory.mktemp("good")
    kinds = [(8_000, "PCM_16"), (16_000, "PCM_24"), (44_100, "PCM_16"), (22_050, "PCM_S8")]
    for seed, (rate, encoding) in enumerate(kinds):
        for channels in (1, 2):
            wave = sound(0.3 + seed, rate, channels, seed)
            soundfile.write(folder / f"{rate}-{channels}.flac", wave, rate, encoding)
    for encoding in ("PCM_U8", "PCM_16", "PCM_32", "FLOAT", "DOUBLE", "ULAW"):
        soundfile.write(folder / f"{encoding}.WAV", sound(0.2, 48_000, 3, 9), 48_000, encoding)
    (folder / "one sample.wav").symlink_to(folder / "PCM_16.WAV")
    (folder / "8000-1.txt").write_text("good day")
    return folder


@pytest.mark.parametrize("threads", [1, 3])
def test_fairseq2_reads_the_same_samples_in_the_same_order(good, monkeypatch, threads) -> None:
    wanted = [read_audio(recording.audio) for recording in read_corpus(good)]

    def ours(*_: object):
        raise AssertionError("left to our own reader")

    monkeypatch.setattr(fairseq2_reader, "read_audio", ours)
    read = list(read_waves(read_corpus(good), threads=threads, ahead=2))
    assert [recording for recording, _ in read] == list(read_corpus(good))
    assert len(read) == 15
    for (_, wave), same in zip(read, wanted, strict=True):
        assert isinstance(wave, np.ndarray)
        assert wave.dtype == np.float32
        np.testing.assert_array_equal(wave, same)


def test_what_fairseq2_cannot_take_is_read_or_refused_as_ever(tmp_path) -> None:
    noise = sound(0.5, 16_000, 1, 0)
    for name in ("vorbis.ogg", "opus.opus", "layer3.mp3", "cut.flac"):
        formats = {".opus": "OGG", ".mp3": "MP3"}
        subtype = "OPUS" if name == "opus.opus" else None
        suffix = Path(name).suffix
        soundfile.write(tmp_path / name, noise, 16_000, subtype, format=formats.get(suffix))
    for name in ("cut.flac", "torn.flac"):
        (tmp_path / name).write_bytes((tmp_path / "cut.flac").read_bytes()[:3_000])
    soundfile.write(tmp_path / "one:2:3.wav", noise, 16_000)  # bytes 2 to 5 of `one`, for fairseq2
    soundfile.write(tmp_path / "short.wav", noise, 16_000)
    (tmp_path / "short.wav").write_bytes((tmp_path / "short.wav").read_bytes()[:3_000])
    soundfile.write(tmp_path / "nan.wav", np.full(99, np.nan), 16_000, "FLOAT")
    soundfile.write(tmp_path / "loud.wav", np.full(99, 1e3), 16_000, "FLOAT")
    soundfile.write(tmp_path / "slow.wav", noise, 2_000)
    soundfile.write(tmp_path / "many.wav", sound(0.01, 16_000, 40, 0), 16_000)
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 16_000)
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("hello")
    (tmp_path / os.fsdecode(b"latin-\xe9.wav")).symlink_to(JFK)
    manifest = tmp_path / "corpus.jsonl"
    files = sorted(path for path in tmp_path.iterdir() if path != manifest)
    entries = [
        *({"audio": path.name} for path in files if path.name.isprintable()),
        {"audio": "gone.wav"},
        {"audio": str(JFK), "id": "stretch", "start": 0.25, "duration": 0.5},
    ]
    manifest.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    refused = 0
    for corpus in (manifest, tmp_path):
        for recording, heard in read_waves(read_corpus(corpus)):
            if isinstance(heard, AudioError):
                refused += 1
                with pytest.raises(AudioError, match=re.escape(str(heard))) as ours:
                    read_audio(recording.audio)
                assert ours.value.code == heard.code
            else:
                np.testing.assert_array_equal(heard, read_audio(recording.audio))
    assert refused >= 18


def test_a_recording_that_the_disk_refuses_stops_the_reading(tmp_path, monkeypatch) -> None:
    def fail(*_: object):
        raise ConnectionError("the network is gone")

    soundfile.write(tmp_path / "a.ogg", sound(0.1, 16_000, 1, 0), 16_000)
    monkeypatch.setattr(fairseq2_reader, "read_audio", fail)
    with pytest.raises(ConnectionError, match="the network is gone"):
        list(read_waves(read_corpus(tmp_path)))


def test_a_corpus_is_read_no_further_ahead_than_asked_for(good) -> None:
    asked = []

    def corpus():
        for recording in itertools.cycle(read_corpus(good)):
            asked.append(recording.id)
            yield recording

    waves = read_waves(corpus(), threads=1, ahead=3)
    assert math.isfinite(float(np.abs(next(waves)[1]).max()))
    waves.close()
    assert len(asked) <= 8
