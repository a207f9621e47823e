"""The language as a tree of choices, made from `grammar.py` and `lexicon.py`."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from grammar import RULES
from lexicon import CLASSES, CONSONANTS, DOUBLED, PLURALS


@dataclass(frozen=True)
class Words:
    """One word, any of these, all equally likely."""

    words: tuple[str, ...]


@dataclass(frozen=True)
class Chain:
    """Parts one after another."""

    parts: tuple["Node", ...]


@dataclass(frozen=True)
class Choice:
    """One of the parts, by weight."""

    parts: tuple["Node", ...]
    weights: tuple[float, ...]


Node = Words | Chain | Choice


def plural(noun: str) -> str:
    """The plural of a noun: box, boxes; baby, babies; knife, knives."""
    if noun in PLURALS:
        return PLURALS[noun]
    if re.search("[^aeiou]y$", noun):
        return noun[:-1] + "ies"
    return noun + ("es" if re.search("(s|x|z|ch|sh|[^aeiou]o)$", noun) else "s")


def past(verb: str) -> str:
    """The past of a verb: walk, walked; swim/swam, swam."""
    base, _, irregular = verb.partition("/")
    if irregular:
        return irregular
    if re.search("[^aeiou]y$", base):
        return base[:-1] + "ied"
    return base + "d" if base.endswith("e") else _doubled(base) + "ed"


def ongoing(verb: str) -> str:
    """The ing-form of a verb: bake, baking; swim/swam, swimming."""
    base = infinitive(verb)
    return (base[:-1] if re.search("[^eio]e$", base) else _doubled(base)) + "ing"


def infinitive(verb: str) -> str:
    """A verb, or any other entry, as it stands in the dictionary: swim/swam, swim."""
    return verb.partition("/")[0]


def _doubled(base: str) -> str:
    return base + base[-1] if base in DOUBLED else base


FORMS: dict[str, Callable[[str], str]] = {
    "": infinitive,
    "s": plural,
    "ed": past,
    "ing": ongoing,
}


def _choice(parts: list[Node], weights: list[float]) -> Node:
    return parts[0] if len(parts) == 1 else Choice(tuple(parts), tuple(weights))


def _chain(parts: list[Node]) -> Node:
    return parts[0] if len(parts) == 1 else Chain(tuple(parts))


def _entries(words: list[str]) -> Node:
    """A class: one leaf for its single words, a chain for each entry of several words."""
    single = tuple(word for word in words if "_" not in word)
    several = [word.split("_") for word in words if "_" in word]
    parts: list[Node] = [Words(single)] if single else []
    parts += [Chain(tuple(Words((word,)) for word in entry)) for entry in several]
    return _choice(parts, [float(len(single))] * bool(single) + [1.0] * len(several))


def _with_article(node: Node) -> Node:
    """Put "a" or "an" before whatever `node` can begin with."""
    if isinstance(node, Choice):
        return Choice(tuple(map(_with_article, node.parts)), node.weights)
    if isinstance(node, Chain):
        return Chain((_with_article(node.parts[0]), *node.parts[1:]))
    vowels = [word for word in node.words if word[0] in "aeiou" and word not in CONSONANTS]
    groups = {"an": vowels, "a": [word for word in node.words if word not in vowels]}
    parts = {article: words for article, words in groups.items() if words}
    return _choice(
        [Chain((Words((article,)), Words(tuple(words)))) for article, words in parts.items()],
        [float(len(words)) for words in parts.values()],
    )


@cache
def rules() -> dict[str, list[tuple[float, str]]]:
    """The lines of each rule with their weights."""
    found: dict[str, list[tuple[float, str]]] = {}
    for line in filter(str.strip, RULES.splitlines()):
        if line.startswith(" "):
            weight, body = re.fullmatch(r" +([\d.]+ )?(.+)", line).groups()  # type: ignore[union-attr]
            list(found.values())[-1].append((float(weight or 1), body))
        else:
            assert line not in found | CLASSES, f"{line} is defined twice"
            found[line] = []
    return found


@cache
def symbol(name: str) -> Node:
    """The tree of a rule or class as it stands between braces: `city`, `fruit+s`, `a city`."""
    if name.startswith("a "):
        return _with_article(symbol(name[2:]))
    stem, _, form = name.partition("+")
    if stem in CLASSES:
        return _entries([FORMS[form](word) for word in CLASSES[stem].split()])
    assert not form, f"only classes have forms, not {stem}"
    lines = rules()[stem]
    return _choice([_parse(body) for _, body in lines], [weight for weight, _ in lines])


def _parse(line: str) -> Node:
    node, rest = _parse_choice(re.findall(r"\{[^}]+\}|[()\[\]|]|[a-z']+", line))
    assert not rest, line
    return node


def _parse_choice(tokens: list[str]) -> tuple[Node, list[str]]:
    """Read alternatives up to a closing bracket; return them and what is left."""
    options: list[Node] = []
    chain: list[Node] = []
    while tokens and tokens[0] not in ")]":
        token, tokens = tokens[0], tokens[1:]
        if token == "|":
            options.append(_chain(chain))
            chain = []
        elif token in "([":
            inner, tokens = _parse_choice(tokens)
            tokens = tokens[1:]
            chain.append(inner if token == "(" else Choice((Chain(()), inner), (1.0, 1.0)))
        else:
            chain.append(symbol(token[1:-1]) if token[0] == "{" else Words((token,)))
    options.append(_chain(chain))
    return _choice(options, [1.0] * len(options)), tokens
