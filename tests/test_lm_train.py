import shutil
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from spirit import config as settings
from spirit.codec import Codec, HFText, byte_tokenizer
from spirit.data.loader import MixtureConfig, Rows
from spirit.data.parts import Row
from spirit.data.shards import write_shards
from spirit.engine import TrainingConfig
from spirit.lm import model as llama
from spirit.lm import train as training
from spirit.lm.train import LMRecipe, SizeConfig, train
from spirit.units import Kind, Track, Tracks, Word
from spirit.vocab import Vocab

COUNTS = {Kind.HUBERT: 26, Kind.PITCH: 4, Kind.STYLE: 2}
ROOT = Path(__file__).parents[1]


def spelled(number: int, rng: np.random.Generator) -> Row:
    """An utterance of a toy language: a letter sounds as its own unit for two frames."""
    words = ["".join(chr(97 + c) for c in rng.integers(0, 26, 4)) for _ in range(3)]
    text = " ".join(words)
    units = [ord(letter) - 97 for letter in text.replace(" ", "")]
    hubert = np.repeat(units, 2)
    pitch = rng.integers(0, 4, len(hubert) // 2)
    tracks = {
        Kind.HUBERT: Track(Kind.HUBERT, hubert, 640),
        Kind.PITCH: Track(Kind.PITCH, pitch, 1_280),
        Kind.STYLE: Track(Kind.STYLE, rng.integers(0, 2, 1), 16_000),
    }
    times = [Word(w, i * 8 * 640, (i + 1) * 8 * 640) for i, w in enumerate(words)]
    seconds = len(hubert) / 25
    return Row(f"row-{number}", "a.wav", seconds, text, tuple(times), "", "en", "", Tracks(tracks))


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> LMRecipe:
    folder = tmp_path_factory.mktemp("lm")
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir()
    byte_tokenizer(tokenizer / "text.json")
    text = HFText.load(tokenizer / "text.json")
    vocab = Vocab.build(text.size, text.bos, text.eos, COUNTS, special=text.special)
    vocab.save(tokenizer / "vocab.json")
    (tokenizer / "tokenizer.toml").write_text('fingerprint = "feed"\n')
    rng = np.random.default_rng(0)
    for name, count in (("train", 60), ("heldout", 8)):
        rows = [spelled(number, rng) for number in range(count)]
        write_shards(folder / name, rows, vocab, tokenizer="feed")
    return LMRecipe(
        tokenizer=tokenizer,
        out=folder / "out",
        mixture=MixtureConfig(
            shards=(folder / "train",), interleaved=0.3, transcribe=0.4, speak=0.3, row=128, rows=4
        ),
        size=SizeConfig(hidden=32, layers=2, heads=2, ffn=64, positions=256),
        heldout=(folder / "heldout",),
        measure_every=8,
        training=TrainingConfig(
            steps=12, lr=3e-3, warmup=2, device="cpu", dtype="fp32", log_every=4, save_seconds=1e3
        ),
        dtype="fp32",
    )


@pytest.fixture(scope="module")
def unbroken(recipe) -> Path:
    return train(recipe)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return llama.load(folder)[0].state_dict()


def logged(out: Path, name: str) -> list[float]:
    points = EventAccumulator(str(out / "logs")).Reload().Scalars(name)
    return [point.value for point in points]


def test_trained_model_is_a_folder_that_says_what_it_is(recipe, unbroken):
    model, vocab = llama.load(unbroken)
    assert vocab == Vocab.load(recipe.tokenizer / "vocab.json")
    assert model.config.num_hidden_layers == 2
    assert not list(unbroken.parent.glob(".*"))
    about = tomllib.loads((unbroken / "spirit.toml").read_text())
    assert (unbroken / about["tokenizer"]).resolve() == recipe.tokenizer.resolve()
    assert about["fingerprint"] == "feed"
    assert about["vocabulary"] == vocab.fingerprint
    assert settings.load(unbroken / "recipe.toml", LMRecipe) == recipe


def test_logs_hold_the_loss_of_every_modality_and_of_held_out_documents(recipe, unbroken):
    names = set(EventAccumulator(str(recipe.out / "logs")).Reload().Tags()["scalars"])
    assert {"loss", "text", "hubert", "pitch", "style", "tokens_per_second"} <= names
    assert {"heldout/transcribe/text", "heldout/speak/hubert"} <= names
    losses = logged(recipe.out, "loss")
    assert losses[-1] < 0.9 * losses[0]


def test_finished_training_does_nothing_again(recipe, unbroken):
    before = (unbroken / "model.safetensors").stat().st_mtime_ns
    assert train(recipe) == unbroken
    assert (unbroken / "model.safetensors").stat().st_mtime_ns == before


def test_interrupted_training_ends_where_an_unbroken_one_does(
    recipe, unbroken, tmp_path, monkeypatch
):
    config = replace(recipe.training, save_seconds=0.0)
    again = replace(recipe, out=tmp_path / "out", training=config)
    plain, count = training.packed.lay_out, 0

    def stumble(*batch):
        nonlocal count
        count += 1
        if count == 3 + 5:  # three held-out batches, then the fifth step
            raise InterruptedError
        return plain(*batch)

    monkeypatch.setattr(training.packed, "lay_out", stumble)
    with pytest.raises(InterruptedError):
        train(again)
    assert not (again.out / "model").exists()
    monkeypatch.undo()
    found, wanted = weights(train(again)), weights(unbroken)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_text_model_can_be_the_start(recipe, unbroken, tmp_path):
    text = HFText.load(recipe.tokenizer / "text.json")
    llama.new_llama(text.size, 32, 1, 2, 64, positions=256).save_pretrained(tmp_path / "text")
    short = replace(recipe.training, steps=2)
    target = train(
        replace(recipe, init=tmp_path / "text", out=tmp_path / "out", training=short, heldout=())
    )
    model, vocab = llama.load(target)
    assert model.config.num_hidden_layers == 1
    assert model.config.vocab_size == vocab.size


def test_shards_of_another_tokenizer_are_refused(recipe, tmp_path):
    other = tmp_path / "tokenizer"
    shutil.copytree(recipe.tokenizer, other)
    (other / "tokenizer.toml").write_text('fingerprint = "beef"\n')
    with pytest.raises(ValueError, match=r"made by the tokenizer feed, but .* is beef"):
        train(replace(recipe, tokenizer=other, out=tmp_path / "out"))
    (other / "tokenizer.toml").unlink()
    with pytest.raises(ValueError, match=r"tokenizer\.toml is missing"):
        train(replace(recipe, tokenizer=other, out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("source", ["transcribe", "speak"])
def test_windows_show_the_word_that_the_next_token_belongs_to(recipe, source):
    vocab = Vocab.load(recipe.tokenizer / "vocab.json")
    codec = Codec(HFText.load(recipe.tokenizer / "text.json"), vocab)
    mixture = MixtureConfig(
        shards=recipe.mixture.shards, excerpts=0.5, **{source: 1.0}, answer_only=True, row=256
    )
    documents = Rows(mixture, codec).documents
    seen = 0
    for number in range(40):
        ids = documents.encode(source, 0, number)
        first, last = documents.windows(source, 0, number)
        assert len(first) == len(ids)
        marker = ids.tolist().index(codec.task_marker(source))
        (question, answer) = documents.document(source, 0, number).segments
        text = answer if source == "transcribe" else question
        for place in np.flatnonzero(last > first):
            assert 2 <= first[place] < last[place] <= marker <= place
            found = codec.decode(ids[first[place] : last[place]]).segments[0]
            coming = ids[place + 1 : place + 2]
            if source == "transcribe":  # the word's letters, each heard as its own unit
                heard = "".join(chr(97 + unit) for unit in found.of(Kind.HUBERT))
                word = text.encode()[: place - marker + 1].decode().split(" ")[-1]
                # A first letter that is the last one of the word before is not heard again.
                assert any(
                    w.startswith(word) and _once(heard) in (_once(w), _once(w)[1:])
                    for w in text.split()
                )
            elif vocab.kind_of_ids(coming)[0] == Kind.HUBERT:  # the unit is a letter of the word
                assert chr(97 + int(vocab.ids_to_units(coming).unit[0])) in found
                assert found.strip() in text.split()
            seen += 1
        assert (last > first)[marker : len(ids) - 2].mean() > 0.9
        assert not last[-2:].any(), "</s> belongs to no word"
    assert seen > 300


def _once(letters: str) -> str:
    """Letters without repetitions, as units come."""
    return "".join(a for a, b in zip(letters, " " + letters, strict=False) if a != b)


def test_a_guided_head_learns_to_look_at_the_word(recipe, tmp_path):
    tasks = replace(
        recipe.mixture, transcribe=0.5, speak=0.5, interleaved=0, speech=0, text=0, excerpts=0.5
    )
    training_ = replace(recipe.training, steps=40, warmup=2, lr=3e-3, log_every=4)
    guided = replace(
        recipe, out=tmp_path, mixture=tasks, training=training_, guide=1.0, guide_layers=(1,)
    )
    train(guided)
    away = logged(tmp_path, "guide")
    assert away[-1] < 0.7 * away[0]
    with pytest.raises(ValueError, match="no layer 7 to guide"):
        train(replace(guided, out=tmp_path / "b", guide_layers=(7,)))


def test_loss_is_over_labels_alone(recipe):
    """With `answer_only` the question of a task costs nothing and teaches nothing."""
    codec = Codec(
        HFText.load(recipe.tokenizer / "text.json"), Vocab.load(recipe.tokenizer / "vocab.json")
    )
    mixture = replace(recipe.mixture, interleaved=0.0, speak=0.0, transcribe=1.0, answer_only=True)
    batch = next(training.Rows(mixture, codec))
    docs = training.packed.lay_out(batch["ids"], batch["document"], batch["labels"])
    assert not codec.vocab.is_unit(docs.labels.numpy()).any()
    assert len(docs.labels) < 0.6 * len(docs.ids)


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*/train.toml")))
def test_recipes_can_be_read(path):
    recipe = settings.load(path, LMRecipe)
    assert recipe.training.steps > 0
