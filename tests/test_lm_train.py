import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.flop_counter import FlopCounterMode

from spirit import config as settings
from spirit.codec import Codec, HFText, byte_tokenizer
from spirit.data.loader import MixtureConfig, Rows
from spirit.data.parts import Row
from spirit.data.shards import write_shards
from spirit.engine import NotFinite
from spirit.lm import model as llama
from spirit.lm import packed
from spirit.lm.heldout import heldout_batches
from spirit.lm.learner import Learner, LMTrainingConfig
from spirit.lm.lora import LoraConfig, adapt, merged
from spirit.lm.retention import Retention, RetentionConfig
from spirit.lm.train import LMRecipe, SizeConfig, train
from spirit.units import Kind, Track, Tracks, Word
from spirit.vocab import Vocab
from tests.stand_ins import alone

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
        training=LMTrainingConfig(
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
    assert {"grad", "lr", "mfu"} <= names
    assert {"loss", "text", "hubert", "pitch", "style", "tokens_per_second"} <= names
    assert {"heldout/transcribe/text", "heldout/speak/hubert"} <= names
    losses = logged(recipe.out, "loss")
    assert losses[-1] < 0.9 * losses[0]


def test_no_held_out_document_is_measured_twice(recipe):
    vocab = Vocab.load(recipe.tokenizer / "vocab.json")
    codec = Codec(HFText.load(recipe.tokenizer / "text.json"), vocab)

    def plain(batch):
        return packed.lay_out(batch["ids"], batch["document"], batch["labels"])

    batches = heldout_batches(recipe.mixture, recipe.heldout, codec, plain)
    assert set(batches) == {"interleaved", "transcribe", "speak"}
    documents = Rows(replace(recipe.mixture, shards=recipe.heldout), codec).documents
    for source in ("transcribe", "speak"):  # which are the same in every epoch
        batch = batches[source]
        ids = [documents.encode(source, 0, int(number)) for number in documents.of(source)]
        assert len(batch.labels) == sum(len(one) - 1 for one in ids), source
        assert len(batch.ids) > 2 * len(batch.labels), "the rows hold them more than twice"


def test_finished_training_does_nothing_again(recipe, unbroken):
    before = (unbroken / "model.safetensors").stat().st_mtime_ns
    assert train(recipe) == unbroken
    assert (unbroken / "model.safetensors").stat().st_mtime_ns == before


def test_interrupted_training_ends_where_an_unbroken_one_does(
    recipe, unbroken, tmp_path, monkeypatch
):
    config = replace(recipe.training, save_seconds=0.0)
    again = replace(recipe, out=tmp_path / "out", training=config)
    plain, count = packed.lay_out, 0

    def stumble(*batch):
        nonlocal count
        count += 1
        if count == 3 + 5:  # three held-out batches, then the fifth step
            raise InterruptedError
        return plain(*batch)

    monkeypatch.setattr(packed, "lay_out", stumble)
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
    batch = next(Rows(mixture, codec))
    docs = packed.lay_out(batch["ids"], batch["document"], batch["labels"])
    assert not codec.vocab.is_unit(docs.labels.numpy()).any()
    assert len(docs.labels) < 0.6 * len(docs.ids)


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*/train.toml")))
def test_recipes_can_be_read(path):
    recipe = settings.load(path, LMRecipe)
    assert recipe.training.steps > 0


def short(recipe: LMRecipe, out: Path, **changes: object) -> LMRecipe:
    """Four steps, each of which is logged."""
    config = replace(recipe.training, steps=4, log_every=1, **changes)
    return replace(recipe, out=out, training=config, heldout=())


@pytest.fixture(scope="module")
def plain(recipe, tmp_path_factory) -> Path:
    """The `out` of a training without anything special."""
    out = tmp_path_factory.mktemp("plain")
    train(short(recipe, out))
    return out


ZERO = str(ROOT / "recipes" / "deepspeed" / "zero{}.json")


@pytest.mark.parametrize(
    "changes",
    [
        {"accumulate": 4},
        {"checkpointing": True},
        {"deepspeed": ZERO.format("1"), "accumulate": 2},
        {"deepspeed": ZERO.format("2-offload"), "fused_loss": "yes"},
        {"deepspeed": ZERO.format("3"), "accumulate": 2, "checkpointing": True},
        pytest.param({"deepspeed": ZERO.format("2"), "accumulate": 2}, marks=pytest.mark.slow),
        pytest.param(
            {"deepspeed": ZERO.format("3-offload"), "fused_loss": "yes"}, marks=pytest.mark.slow
        ),
    ],
    ids=lambda changes: ", ".join(f"{k}={Path(str(v)).stem}" for k, v in changes.items()),
)
def test_ways_to_save_memory_change_no_loss(recipe, plain, tmp_path, changes):
    """Rows of a step hold different numbers of labels: each label must weigh the same."""
    train(short(recipe, tmp_path, **changes))
    for name in ("loss", "grad", "hubert"):
        assert logged(tmp_path, name) == pytest.approx(logged(plain, name), rel=2e-5), name
    found, wanted = weights(tmp_path / "model"), weights(plain / "model")
    for name, weight in wanted.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=2e-3)


@pytest.mark.parametrize("stage", ["2", pytest.param("3-offload", marks=pytest.mark.slow)])
def test_weights_in_half_the_bytes_learn_nearly_the_same(recipe, plain, tmp_path, stage):
    changes = {"dtype": "bf16-weights", "deepspeed": ZERO.format(stage), "accumulate": 2}
    train(short(recipe, tmp_path, **changes))
    assert logged(tmp_path, "loss") == pytest.approx(logged(plain, "loss"), abs=0.02)
    assert all(torch.equal(w, w.bfloat16().float()) for w in weights(tmp_path / "model").values())
    with pytest.raises(ValueError, match="bf16-weights needs ZeRO's optimizer"):
        train(short(recipe, tmp_path / "b", dtype="bf16-weights"))


def test_rows_that_cannot_be_shared_are_refused(recipe, tmp_path):
    with pytest.raises(ValueError, match=r"rows = 4 cannot be shared .*accumulate = 3"):
        train(short(recipe, tmp_path, accumulate=3))
    with pytest.raises(ValueError, match="accumulate is at least 1"):
        replace(recipe.training, accumulate=0)


@pytest.mark.slow
def test_two_processes_of_srun_find_the_losses_of_one(recipe, plain, tmp_path):
    one = short(recipe, tmp_path / "out", accumulate=2)
    (tmp_path / "recipe.toml").write_text(settings.dump(one))
    slurm = {
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_STEP_NODELIST": "localhost",
    }
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "spirit", "train", str(tmp_path / "recipe.toml")],
            env={**os.environ, **slurm, "SLURM_PROCID": str(n), "SLURM_LOCALID": str(n)},
            cwd=ROOT,
        )
        for n in range(2)
    ]
    assert [child.wait(timeout=280) for child in children] == [0, 0]
    for name in ("loss", "grad", "hubert"):
        assert logged(one.out, name) == pytest.approx(logged(plain, name), rel=2e-5), name


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="needs a compiler")
def test_compiled_layers_change_no_loss(recipe, plain, tmp_path):
    changes = {"attention": "rows", "checkpointing": True, "deepspeed": ZERO.format("2")}
    one = short(recipe, tmp_path / "out", compile=True, **changes)
    (tmp_path / "recipe.toml").write_text(settings.dump(one))
    # Not in this process: the hook's checks of shapes cannot be compiled.
    subprocess.run(
        [sys.executable, "-m", "spirit", "train", str(tmp_path / "recipe.toml")],
        check=True,
        timeout=280,
        env={**alone(), "TORCHDYNAMO_DISABLE": "0"},
        cwd=ROOT,
    )
    assert logged(one.out, "loss") == pytest.approx(logged(plain, "loss"), rel=2e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(
    "changes",
    [
        {"attention": "groups", "fused_loss": "no"},
        {"attention": "rows", "fused_loss": "yes", "accumulate": 2},
        {"attention": "rows", "compile": True, "checkpointing": True},
        {"attention": "rows", "compile": True, "deepspeed": ZERO.format("2")},
        {"attention": "rows", "deepspeed": ZERO.format("3")},
        {"attention": "rows", "deepspeed": ZERO.format("2-offload")},
        {"attention": "rows", "compile": True, "dtype": "bf16"},
        {"attention": "rows", "deepspeed": ZERO.format("2"), "dtype": "bf16-weights"},
    ],
    ids=lambda changes: ", ".join(f"{k}={Path(str(v)).stem}" for k, v in changes.items()),
)
def test_a_gpu_finds_the_losses_of_a_cpu(recipe, plain, tmp_path, changes):
    one = replace(
        short(recipe, tmp_path / "out", device="cuda", **changes),
        heldout=recipe.heldout,
        measure_every=2,
    )
    (tmp_path / "recipe.toml").write_text(settings.dump(one))
    # Not in this process: FlexAttention is a kernel only where dynamo may compile it.
    subprocess.run(
        [sys.executable, "-m", "spirit", "train", str(tmp_path / "recipe.toml")],
        check=True,
        timeout=280,
        env={**alone(), "TORCHDYNAMO_DISABLE": "0"},
    )
    near = {"abs": 0.03} if "dtype" in changes else {"rel": 1e-3}
    assert logged(one.out, "loss") == pytest.approx(logged(plain, "loss"), **near)
    found, wanted = weights(one.out / "model"), weights(plain / "model")
    assert found.keys() == wanted.keys()


@pytest.fixture(scope="module")
def text_model(recipe, tmp_path_factory) -> Path:
    """A model of text alone, to start from."""
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("text")
    text = HFText.load(recipe.tokenizer / "text.json")
    model = llama.new_llama(text.size, 32, 2, 2, 64, positions=256, tied=False)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def lora(recipe, text_model, tmp_path) -> LMRecipe:
    pytest.importorskip("peft")
    small = LoraConfig(rank=4, alpha=8.0, dropout=0.1, targets=("q_proj", "down_proj"))
    return replace(short(recipe, tmp_path / "out"), init=text_model, lora=small)


def test_a_model_trained_by_lora_is_plain_and_differs_where_it_was_told_to(lora, text_model):
    found, before = weights(train(lora)), llama.read(text_model).state_dict()
    assert set(found) == set(before)
    for name, old in before.items():
        table = "embed_tokens" in name or "lm_head" in name
        changed = (found[name][: len(old)] - old).abs().max() > 0
        assert changed == (table or "q_proj" in name or "down_proj" in name), name
    change = found["model.layers.0.self_attn.q_proj.weight"]
    change = change - before["model.layers.0.self_attn.q_proj.weight"]
    assert torch.linalg.matrix_rank(change, rtol=1e-3) == 4


def test_merged_weights_say_what_the_adapted_model_says(lora):
    model = llama.read(lora.init)
    adapt(model, lora.lora)
    model.eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1)
    ids = torch.arange(20)[None]
    plain = llama.read(lora.init)
    assert not torch.allclose(plain(ids).logits, model(ids).logits, atol=1e-3)
    plain.load_state_dict(merged(model.state_dict(), lora.lora))
    torch.testing.assert_close(plain(ids).logits, model(ids).logits, rtol=1e-4, atol=1e-5)


def test_interrupted_lora_ends_where_an_unbroken_one_does(lora, tmp_path, monkeypatch):
    wanted = weights(train(lora))
    again = replace(lora, out=tmp_path / "again", training=replace(lora.training, save_seconds=0.0))
    plain, count = packed.lay_out, 0

    def stumble(*batch):
        nonlocal count
        count += 1
        if count == 3:
            raise InterruptedError
        return plain(*batch)

    monkeypatch.setattr(packed, "lay_out", stumble)
    with pytest.raises(InterruptedError):
        train(again)
    monkeypatch.undo()
    found = weights(train(again))
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_lora_of_what_is_not_there_is_refused(lora, recipe):
    wrong = replace(lora.lora, targets=("q_proj", "query"))
    with pytest.raises(ValueError, match="no layer 'query'"):
        train(replace(lora, lora=wrong))
    tables = replace(lora.lora, embeddings=False)
    with pytest.raises(ValueError, match="embeddings = false would leave the new rows"):
        train(replace(lora, lora=tables))
    with pytest.raises(ValueError, match=r"\[lora\] needs a text model to start from"):
        replace(recipe, lora=lora.lora)


@pytest.fixture(scope="module")
def sentences(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("sentences") / "text.txt"
    path.write_text("".join(f"line {n} of a written text\n" for n in range(60)))
    return path


def test_retention_tells_text_that_is_forgotten_and_holds_it(
    recipe, text_model, sentences, tmp_path
):
    strong = {"measure_every": 2, "init": text_model}
    moved = {}
    for kl in (0.0, 30.0):
        keep = RetentionConfig(texts=(sentences,), kl=kl, rows=2)
        one = replace(short(recipe, tmp_path / str(kl), lr=1e-2), retention=keep, **strong)
        train(one)
        base, after = logged(one.out, "retention/base"), logged(one.out, "retention/loss")
        assert len(set(base)) == 1
        moved[kl] = abs(after[-1] - base[-1])
    assert moved[30.0] < 0.5 * moved[0.0]
    model = llama.read(text_model)
    text = HFText.load(recipe.tokenizer / "text.json")
    losses = []
    for line in sentences.read_text().splitlines()[::10]:
        ids = torch.tensor([[text.bos, *text.encode(line), text.eos]])
        logits = model(ids).logits[0, :-1]
        losses.append(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none"))
    assert base[0] == pytest.approx(torch.cat(losses).mean().item(), rel=1e-4)
    with pytest.raises(ValueError, match="no text"):
        RetentionConfig(texts=())


def test_retention_compares_other_lines_than_it_measures_drawn_by_step(
    recipe, text_model, sentences
):
    vocab = Vocab.load(recipe.tokenizer / "vocab.json")
    codec = Codec(HFText.load(recipe.tokenizer / "text.json"), vocab)
    config = RetentionConfig(texts=(sentences,), kl=1.0, rows=2)
    learner = Learner(llama.read(text_model))

    def lines(batch: packed.Packed) -> set[str]:
        text = codec.text.decode(batch.ids.tolist())
        return set(re.findall(r"line (\d+) of", text))

    one, two = (Retention(config, codec, learner, row=128, seed=0) for _ in range(2))
    assert torch.equal(one.batch(3).ids, two.batch(3).ids)
    drawn = set().union(*(lines(one.batch(step)) for step in range(20)))
    assert len(drawn) > 40
    assert not any(int(line) % 10 == 0 for line in drawn)


def test_text_for_retention_that_some_process_would_have_none_of_is_refused(
    recipe, text_model, sentences, monkeypatch
):
    vocab = Vocab.load(recipe.tokenizer / "vocab.json")
    codec = Codec(HFText.load(recipe.tokenizer / "text.json"), vocab)
    config = RetentionConfig(texts=(sentences,), kl=1.0, rows=8)
    kept = Retention(config, codec, Learner(llama.read(text_model)), row=8_192, seed=0)
    kept.batch(0)
    monkeypatch.setattr("spirit.lm.retention.world", lambda: 4)
    with pytest.raises(ValueError, match="fills 1 rows of 8192 tokens, fewer than the 4 processes"):
        kept.batch(0)


READERS = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.drills.training import Processes
from spirit import config
from spirit.engine import rank
from spirit.lm import model, train
read, folder = model.read, Path(sys.argv[2])

def noted(init, *others):
    with open(folder / f"readers-{rank()}", "a") as told:
        print(init, file=told)
    return read(init, *others)

model.read = noted
for path in map(Path, sys.argv[3:]):
    told = config.load(path, train.LMRecipe)
    both = Processes(2, lambda: train.train(told), folder / f"{path.stem}.log")
    well = both.wait(250) and not any(both.codes.values())
    assert well, (folder / f"{path.stem}.log").read_text()
"""


def test_the_main_process_alone_reads_the_model_that_all_begin_with(
    recipe, text_model, sentences, tmp_path
):
    keep = RetentionConfig(texts=(sentences,), kl=1.0, rows=2)
    begun = {"init": text_model, "retention": keep, "measure_every": 2}
    whole = replace(short(recipe, tmp_path / "whole"), **begun)
    train(whole)
    (tmp_path / "program.py").write_text(READERS)
    paths, split = [], []
    for stage in ("", "3"):
        zero = ZERO.format(stage) if stage else ""
        one = replace(short(recipe, tmp_path / f"out{stage}", deepspeed=zero), **begun)
        paths.append(tmp_path / f"recipe{stage}.toml")
        paths[-1].write_text(settings.dump(one))
        split.append(one)
    command = [sys.executable, str(tmp_path / "program.py"), str(ROOT), str(tmp_path)]
    subprocess.run([*command, *map(str, paths)], check=True, timeout=280, env=alone())
    for one in split:
        torch.testing.assert_close(
            weights(one.out / "model"), weights(whole.out / "model"), rtol=0, atol=2e-3
        )
        for name in ("loss", "grad", "retention/base", "retention/loss"):
            wanted = pytest.approx(logged(whole.out, name), rel=1e-4)
            assert logged(one.out, name) == wanted, (one.training.deepspeed, name)
    assert (tmp_path / "readers-0").read_text() == f"{text_model}\n" * 2 * len(paths)
    assert not (tmp_path / "readers-1").exists()


def test_a_loss_that_is_no_number_stops_before_the_step_and_names_its_documents(
    recipe, tmp_path, capsys
):
    vocab = Vocab.load(recipe.tokenizer / "vocab.json")
    text = HFText.load(recipe.tokenizer / "text.json")
    model = llama.new_llama(vocab.size, 32, 1, 2, 64, positions=256, tied=False)
    with torch.no_grad():
        model.get_input_embeddings().weight[text.encode("q")[-1]] = float("nan")
    model.save_pretrained(tmp_path / "init")
    told = f'vocabulary = "{vocab.fingerprint}"\nfingerprint = "feed"\n'
    (tmp_path / "init" / "spirit.toml").write_text(told)
    mixture = replace(recipe.mixture, text=1.0, interleaved=0, transcribe=0, speak=0, row=64)
    one = replace(
        short(recipe, tmp_path / "out", accumulate=2), init=tmp_path / "init", mixture=mixture
    )
    with pytest.raises(NotFinite, match="the loss of step 1 is not a finite number"):
        train(one)
    assert not (one.out / "state").exists(), "nothing is saved over a good checkpoint"
    err = capsys.readouterr().err
    said = set(re.findall(r"\n  text, epoch \d, (utterance '.+?'), tokens", err))
    rows = Rows(mixture, Codec(text, vocab))
    next(rows)
    pieces = {piece for row in rows.latest for piece in row}
    guilty = {rows.documents.name(p.number) for p in pieces if "q" in _words(rows, p)}
    assert said == guilty
    assert 0 < len(guilty) < len(pieces)


def _words(rows: Rows, piece) -> str:
    return str(rows.documents.document(piece.source, piece.epoch, piece.number).segments[0])


def test_a_step_counts_the_flops_that_torch_counts(recipe):
    vocab = Vocab.load(recipe.tokenizer / "vocab.json")
    learner = Learner(llama.new_llama(vocab.size, 32, 2, 4, 64, kv_heads=2))
    length = 50
    batch = {
        "ids": torch.arange(length)[None],
        "document": torch.zeros(1, length, dtype=torch.long),
        "labels": torch.arange(length)[None],
    }
    with FlopCounterMode(display=False) as counter:
        learner(learner.lay_out(batch))[0].sum().backward()
    # Here all pairs are computed, half of which the mask then hides; the angles of rotary
    # positions, a product of one number each, are no weights.
    angles = 2 * length * 4
    assert learner.flops(length, length - 1, length**2) == counter.get_total_flops() - angles


@pytest.mark.parametrize(
    ("key", "match"),
    [
        ("lora.rnak=3", "unknown key 'rnak'"),
        ("retention.text=a.txt", "unknown key 'text'"),
        ("training.acumulate=2", "unknown key 'acumulate'"),
        ("training.fused_loss=maybe", "fused_loss must be auto, yes, no"),
        ("across_document=true", "unknown key 'across_document'"),
    ],
)
def test_a_misspelt_key_is_named(key, match):
    with pytest.raises(ValueError, match=match):
        settings.load(ROOT / "recipes" / "tiny" / "lm1.toml", LMRecipe, [key])
