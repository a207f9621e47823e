"""The recipe's language: what it draws is well formed, recognized, and as much as is promised."""

import random
import re
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

TINY = Path(__file__).parents[1] / "recipes/tiny"
sys.path.insert(0, str(TINY))

import language  # noqa: E402
import tree  # noqa: E402


def run(*args: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run language.py as a person would."""
    command = [sys.executable, str(TINY / "language.py"), *args]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


def everything(node: tree.Node) -> set[tuple[str, ...]]:
    """All that a small tree can say, by trying."""
    if isinstance(node, tree.Words):
        return {(word,) for word in node.words}
    if isinstance(node, tree.Choice):
        return set().union(*map(everything, node.parts))
    return {sum(parts, ()) for parts in product(*map(everything, node.parts))}


@pytest.fixture(scope="module")
def judge() -> language.Automaton:
    return language.automaton()


@pytest.fixture(scope="module")
def sentences() -> list[str]:
    return [language.sentence(7, index) for index in range(6000)]


def test_language_is_as_large_as_promised(judge: language.Automaton) -> None:
    assert judge.size() > 10**9
    assert len(language.expected()) >= 1500


@pytest.mark.parametrize("rule", ["clock", "date", "soon", "kind", "a kind", "number", "eatable"])
def test_count_is_what_trying_everything_finds(rule: str) -> None:
    said = everything(tree.symbol(rule))
    automaton = language.Automaton(tree.symbol(rule))
    assert automaton.size() == len(said)
    assert all(automaton.accepts(" ".join(words)) for words in said)


def test_an_optional_end_and_a_double_reading_count_once() -> None:
    yes, no = tree.Words(("yes",)), tree.Words(("yes", "no"))
    node = tree.Chain((yes, tree.Choice((tree.Chain(()), no, yes), (1.0, 1.0, 1.0))))
    automaton = language.Automaton(node)
    assert automaton.size() == 3  # yes; yes yes; yes no
    assert [automaton.accepts(text) for text in ("yes", "yes no", "no", "", "yes no no")] == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_what_is_drawn_is_accepted(judge: language.Automaton, sentences: list[str]) -> None:
    assert all(map(judge.accepts, sentences[:1500]))


def test_what_is_turned_round_is_not(judge: language.Automaton, sentences: list[str]) -> None:
    turned = (" ".join(reversed(text.split())) for text in sentences[:500])
    assert sum(map(judge.accepts, turned)) < 25  # three spelling words are any way round
    assert not judge.accepts("")
    assert not judge.accepts("the weather in paris is")
    assert not judge.accepts("the weather in paris is nice  today")


def test_everyday_things_can_be_said(judge: language.Automaton) -> None:
    for text in (
        "the weather in paris is nice",
        "my favorite season is winter",
        "it is half past five in the morning",
        "please hold while i transfer your call",
    ):
        assert judge.accepts(text), text


def test_sentences_are_as_spoken(sentences: list[str]) -> None:
    assert all(re.fullmatch(r"[a-z']+( [a-z']+)*", text) for text in sentences)


def test_articles_fit_the_word_after_them(sentences: list[str]) -> None:
    text = " . ".join(sentences)
    assert not re.search(r"\ban [^aeiou]", text)
    wrong = set(re.findall(r"\ba ([aeiou]\w*)", text)) - {"uniform", "useful"}
    assert not wrong


def test_forms_follow_the_rules_of_spelling() -> None:
    assert [*map(tree.plural, ("box", "baby", "day", "mouse", "potato", "key"))] == [
        "boxes",
        "babies",
        "days",
        "mice",
        "potatoes",
        "keys",
    ]
    assert [*map(tree.past, ("bake", "carry", "drop", "swim/swam", "play"))] == [
        "baked",
        "carried",
        "dropped",
        "swam",
        "played",
    ]
    assert [*map(tree.ongoing, ("write/wrote", "run/ran", "knit", "travel"))] == [
        "writing",
        "running",
        "knitting",
        "traveling",
    ]


def test_speech_of_a_sentence_is_short(sentences: list[str]) -> None:
    lengths = [len(text.split()) for text in sentences]
    assert 6.5 < sum(lengths) / len(lengths) < 8
    assert sum(4 <= length <= 12 for length in lengths) > 0.97 * len(lengths)


def test_no_word_is_too_rare_to_learn(sentences: list[str]) -> None:
    shares = language.expected()
    assert min(shares.values()) * 7000 > 3
    assert sum(share * 7000 < 8 for share in shares.values()) < 20
    assert sum(shares.values()) == pytest.approx(
        sum(len(text.split()) for text in sentences) / len(sentences), rel=0.02
    )


def test_one_percent_is_held_out(sentences: list[str]) -> None:
    held = sum(map(language.heldout, set(sentences)))
    assert 35 < held < 90
    assert language.heldout("hello") == language.heldout("hello")


def test_sentence_depends_on_seed_and_number_alone() -> None:
    random.seed(1)
    first = language.sentence(3, 10)
    random.seed(2)
    assert language.sentence(3, 10) == first
    assert len({language.sentence(seed, 10) for seed in range(20)}) > 15


def test_command_prints_what_it_accepts() -> None:
    printed = run("--seed", "4", "--count", "30")
    assert printed.returncode == 0
    assert printed.stdout.splitlines() == [language.sentence(4, index) for index in range(30)]
    judged = run("--accepts", text=printed.stdout)
    assert judged.returncode == 0
    assert all(line.startswith("yes\t") for line in judged.stdout.splitlines())
    judged = run("--accepts", text="hello paris the weather\n")
    assert (judged.returncode, judged.stdout) == (1, "no\thello paris the weather\n")


def test_command_prints_the_size(judge: language.Automaton) -> None:
    assert run("--size").stdout == f"{judge.size()} sentences, {len(language.expected())} words\n"
