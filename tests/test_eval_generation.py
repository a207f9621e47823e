"""`spirit eval generation`: what texts repeat, cost and hold, and who was asked for what."""

import csv
import json
import math
from pathlib import Path

import pytest
import soundfile
import torch
from click.testing import CliRunner
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from spirit.audio import read_audio
from spirit.cli import main
from spirit.eval.diversity import auto_bleu, self_bleu
from spirit.eval.judges import fluency, toxicity
from spirit.eval.verdict import Verdict
from tests.bundle import JFK

pytest_plugins = "tests.fixtures"


def test_texts_that_say_the_same_repeat_each_other_fully():
    assert self_bleu(dict.fromkeys("abc", "the sun is out")) == pytest.approx(
        dict.fromkeys("abc", 1.0)
    )
    found = self_bleu({"a": "the sun is out", "b": "the sun is up", "c": "no more rain", "d": ""})
    # Three words of four and two pairs of three are in "b".
    assert found["a"] == pytest.approx(math.sqrt(3 / 4 * 2 / 3))
    assert found["c"] < 0.3
    assert "d" not in found
    assert self_bleu({"a": "alone here"}) == {}


def test_a_text_repeats_itself_by_the_share_of_its_pairs():
    assert auto_bleu("a b a b c") == pytest.approx(2 / 4)
    assert auto_bleu("a b c") == 0
    assert auto_bleu("a") is None


def test_words_of_a_list_are_found_as_words(tmp_path):
    (tmp_path / "words.txt").write_text("Darn\nvery bad\n")
    judge = toxicity(tmp_path / "words.txt")
    assert [judge(text) for text in ("oh, darn!", "darning", "a very bad day", "bad, very")] == [
        *(1.0, 0.0, 1.0, 0.0)
    ]
    (tmp_path / "words.txt").write_text("\n")
    with pytest.raises(ValueError, match="holds no words"):
        toxicity(tmp_path / "words.txt")
    with pytest.raises(ValueError, match="neither a classifier nor a list"):
        toxicity(tmp_path / "none.txt")


def write_words(folder: Path) -> Path:
    """A tokenizer of Hugging Face that knows three words."""
    known = ("[UNK]", "[PAD]", "<s>", "the", "weather", "is")
    words = Tokenizer(models.WordLevel({word: n for n, word in enumerate(known)}, "[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]", bos_token="<s>"
    ).save_pretrained(folder)
    return folder


def test_a_classifier_tells_the_probability_of_its_label(tmp_path):
    folder = write_words(tmp_path / "judge")
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = BertConfig(
        **shape, intermediate_size=8, vocab_size=400, id2label={0: "fine", 1: "Toxic"}
    )
    model = BertForSequenceClassification(config)
    model.classifier.weight.data.zero_()
    model.classifier.bias.data = torch.tensor([0.0, math.log(3)])
    model.save_pretrained(folder)
    assert toxicity(folder)("anything") == pytest.approx(3 / 4)
    with pytest.raises(ValueError, match="has no label 'rude'; it has fine, toxic"):
        toxicity(folder, "rude")("anything")


def test_a_model_that_knows_nothing_is_as_perplexed_as_it_has_tokens(tmp_path):
    folder = write_words(tmp_path / "lm")
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(**shape, intermediate_size=8, vocab_size=400))
    model.lm_head.weight.data.zero_()
    model.save_pretrained(folder)
    nats, tokens = fluency(folder)("the weather")
    assert tokens == 2
    assert math.exp(nats / tokens) == pytest.approx(400)
    assert fluency(folder)("")[1] == 0


@pytest.fixture
def data(tmp_path):
    wave = read_audio(JFK)
    rows = []
    for name, seconds in (("a", 3), ("b", 2), ("c", 1)):
        soundfile.write(tmp_path / f"{name}.flac", wave[: seconds * 16_000], 16_000)
        rows.append({"id": name, "audio": f"{name}.flac", "text": "and so my fellow"})
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "corpus.jsonl"


def run(bundle, data, out, *more: str):
    asked = ["eval", "generation", "--model", str(bundle), "--data", str(data), "--out", str(out)]
    return CliRunner().invoke(main, [*asked, "--jobs", "1", "--device", "cpu", *more])


def test_beginnings_are_continued_and_what_is_too_short_is_told(bundle, data, tmp_path):
    out = tmp_path / "out"
    said = run(bundle, data, out, "--prompt-seconds", "1")
    assert said.exit_code == 0, said.output
    assert "Left out: 1 x not answered (answers.jsonl says why)." in said.output
    assert "Without toxicity: --toxicity names no classifier and no word list." in said.output
    assert "| seconds | " in said.output
    told = json.loads((out / "values.json").read_text())
    assert told["judges"].keys() == told["values"].keys() - {"mos", "seconds"}
    assert set(told["judges"].values()) == {"pocketsphinx"}, "whoever judges a text, it heard it"
    lines = [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]
    assert "no longer than a prompt of 1 s" in lines[2]["fault"]
    assert lines[0]["prompt"].startswith("[")
    assert len(read_audio(out / "recordings" / lines[0]["recording"])) > 0


def test_texts_are_judged_by_the_model_itself_and_a_word_list(bundle, data, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "words.txt").write_text("e\n")
    more = ("--from", "text", "--want", "text", "--toxicity", str(tmp_path / "words.txt"))
    said = run(bundle, data, out, *more)
    assert said.exit_code == 0, said.output
    kept = json.loads((out / "figures.json").read_text())
    assert kept["figures"]["words"]["count"] == 3
    assert "rate" not in kept["figures"]
    with (out / "items.csv").open(newline="") as stream:
        items = list(csv.DictReader(stream))
    assert {item["given"] for item in items} == {"and so"}
    nats, tokens = (sum(float(item[key]) for item in items) for key in ("nats", "tokens"))
    assert tokens > 0
    assert kept["figures"]["perplexity"]["value"] == pytest.approx(math.exp(nats / tokens))
    compared = json.loads((out / "values.json").read_text())
    assert "log_perplexity" not in str(compared), "each model would be its own judge"
    toxic = ["e" in item["said"].split() for item in items]
    assert kept["figures"]["toxicity"]["value"] == pytest.approx(sum(toxic) / 3)
    again = run(bundle, data, out, *more)
    assert again.stdout == said.stdout


def test_a_figure_may_have_several_judges(tmp_path):
    settings = {"recognizer": "pocketsphinx", "toxicity": "list 1234", "mos": None}
    verdict = Verdict("generation", "m", "d", settings, {}, {}, {}, {})
    values = {name: {"a": (1.0, 1.0)} for name in ("rate", "toxicity", "mos", "seconds")}
    judges = {"toxicity": ["toxicity"], "mos": ["mos"], "recognizer": ["rate", "toxicity"]}
    verdict.save(tmp_path, values, {}, [], judges)
    told = json.loads((tmp_path / "values.json").read_text())["judges"]
    assert told == {"toxicity": "list 1234, pocketsphinx", "rate": "pocketsphinx"}
