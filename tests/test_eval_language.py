"""A language by its automaton: sentences, distances to them, and an ear that expects them."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from spirit.audio import read_audio
from spirit.eval.figures import word_errors
from spirit.eval.language import draw_sentences, load
from spirit.eval.listen import Listener
from spirit.eval.ngram import arpa

MODULE = '''
"""the (cat | dog) (sleeps | runs [fast]), or: it rains"""
from nearby import WORDS

class Automaton:
    words = [{"the"}, {"cat", "dog"}, {"sleeps"}, {"runs"}, {"fast"}, {"it"}, {"rains"}]
    follow = [{1}, {2, 3}, set(), {4}, set(), {6}, set()]
    first, last, empty = {0, 5}, {2, 3, 4, 6}, False

    def accepts(self, text):
        return text in WORDS

def automaton():
    return Automaton()

def sentence(seed, index):
    return WORDS[index % len(WORDS)]
'''
SENTENCES = ["it rains"] + [
    f"the {who} {what}"
    for who, what in itertools.product(("cat", "dog"), ("sleeps", "runs", "runs fast"))
]
HERE = Path(__file__).parent


@pytest.fixture
def module(tmp_path):
    (tmp_path / "nearby.py").write_text(f"WORDS = {SENTENCES!r}")
    path = tmp_path / "small.py"
    path.write_text(MODULE)
    return path


def test_edits_are_those_to_the_nearest_of_all_sentences(module):
    language = load(module)
    rng = np.random.default_rng(0)
    words = np.array(["the", "cat", "dog", "runs", "fast", "it", "rains", "bird"])
    for _ in range(100):
        text = " ".join(rng.choice(words, rng.integers(1, 7)))
        nearest = min(word_errors(sentence, text).errors for sentence in SENTENCES)
        assert language.edits(text) == nearest, text


def test_every_sentence_is_accepted_and_nothing_else(module):
    language = load(module)
    assert all(language.accepts(text) and language.edits(text) == 0 for text in SENTENCES)
    assert not language.accepts("the cat")
    assert (language.edits("the cat"), language.edits("")) == (1, 2)
    assert list(draw_sentences(module, 3)) == SENTENCES[:3]


def test_the_language_of_the_recipe_is_one():
    path = HERE.parent / "recipes/tiny/language.py"
    language = load(path)
    for sentence in draw_sentences(path, 20):
        assert language.accepts(sentence)
        assert language.edits(sentence) == 0
        assert language.edits(f"{sentence} zebra crossing") in (1, 2)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("x = 1", r"describes no language: its automaton\(\) must have words"),
        ("import nowhere_to_be_found", "cannot be run"),
        ("def automaton(:", "cannot be run"),
    ],
)
def test_what_is_no_language_is_told_in_a_line(tmp_path, text, complaint):
    path = tmp_path / "other.py"
    path.write_text(text)
    with pytest.raises(ValueError, match=complaint):
        load(path)
    with pytest.raises(ValueError, match="no such file"):
        load(tmp_path / "none.py")


def test_a_trigram_shares_one_out_after_every_history():
    text = arpa(SENTENCES, ["bird"])
    likely: dict[tuple[str, ...], float] = {}
    left: dict[tuple[str, ...], float] = {}
    for line in text.splitlines():
        if found := re.fullmatch(r"(-?[\d.]+)\t([^\t]+)(?:\t(-?[\d.]+))?", line):
            gram = tuple(found[2].split())
            likely[gram] = 10 ** float(found[1])
            left[gram] = 10 ** float(found[3] or 0)

    def told(history: tuple[str, ...], word: str) -> float:
        if (*history, word) in likely:
            return likely[(*history, word)]
        return left.get(history, 1.0) * told(history[1:], word)

    words = [gram[0] for gram in likely if len(gram) == 1 and gram != ("<s>",)]
    assert "bird" in words
    for history in [(), ("the",), ("<s>", "the"), ("the", "cat"), ("<s>", "it"), ("runs",)]:
        assert sum(told(history, word) for word in words) == pytest.approx(1, abs=2e-3), history
    assert told(("<s>",), "the") > told(("<s>",), "it") > told(("<s>",), "bird")


def test_the_ear_hears_what_its_trigram_expects(tmp_path):
    wave = read_audio(HERE / "data/jfk.flac")[:40_000]
    path = tmp_path / "few.arpa"
    path.write_text(arpa(["and so my fellow americans", "ask what you can do"]))
    assert Listener(path)(wave).startswith("and so my fellow americans")
    path.write_text(arpa(SENTENCES))
    assert set(Listener(path)(wave).split()) <= set(" ".join(SENTENCES).split())
