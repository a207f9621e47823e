"""The recipe's language: draw sentences of it, recognize them, count them.

python recipes/tiny/language.py --seed 1 --count 5
python recipes/tiny/language.py --seed 1 --count 5 | python recipes/tiny/language.py --accepts
python recipes/tiny/language.py --size
"""

import argparse
import hashlib
import random
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache

from tree import Choice, Node, Words, symbol

HELD_OUT = 100
"""One sentence of this many is kept from all training."""


def draw(rng: random.Random) -> str:
    """Draw one sentence."""
    return " ".join(_draw(symbol("sentence"), rng))


def sentence(seed: int, index: int) -> str:
    """The sentence with this number in the series of a seed: a pure function of both."""
    return draw(random.Random(f"{seed} {index}"))


def _draw(node: Node, rng: random.Random) -> Iterator[str]:
    if isinstance(node, Words):
        yield rng.choice(node.words)
    elif isinstance(node, Choice):
        yield from _draw(rng.choices(node.parts, node.weights)[0], rng)
    else:
        for part in node.parts:
            yield from _draw(part, rng)


def heldout(text: str) -> bool:
    """Whether a sentence is kept from training: one of a hundred, by the SHA-256 of its text."""
    return int(hashlib.sha256(text.encode()).hexdigest(), 16) % HELD_OUT == 0


def expected() -> dict[str, float]:
    """How often each word of the language is expected in one sentence, exactly."""
    shares: dict[str, float] = {}

    def visit(node: Node, share: float) -> None:
        if isinstance(node, Words):
            for word in node.words:
                shares[word] = shares.get(word, 0.0) + share / len(node.words)
        elif isinstance(node, Choice):
            for part, weight in zip(node.parts, node.weights, strict=True):
                visit(part, share * weight / sum(node.weights))
        else:
            for part in node.parts:
                visit(part, share)

    visit(symbol("sentence"), 1.0)
    return shares


class Automaton:
    """Reads a sentence word by word.

    It is the position automaton of the tree (Glushkov, "The abstract theory of automata", 1961),
    made deterministic on the way.
    """

    def __init__(self, root: Node) -> None:
        self.words: list[frozenset[str]] = []
        self.follow: list[set[int]] = []
        first, last, self.empty = self._build(root)
        self.first, self.last = frozenset(first), frozenset(last)

    def _build(self, node: Node) -> tuple[set[int], set[int], bool]:
        """Add the positions of `node`; return where it begins and ends, and if it can be empty."""
        if isinstance(node, Words):
            self.words.append(frozenset(node.words))
            self.follow.append(set())
            return {len(self.words) - 1}, {len(self.words) - 1}, False
        first: set[int] = set()
        last: set[int] = set()
        empty = not isinstance(node, Choice)
        for begins, ends, nothing in map(self._build, node.parts):
            if isinstance(node, Choice):
                first, last, empty = first | begins, last | ends, empty or nothing
                continue
            for position in last:
                self.follow[position] |= begins
            first = first | begins if empty else first
            last = last | ends if nothing else ends
            empty = empty and nothing
        return first, last, empty

    def _next(self, reached: frozenset[int]) -> frozenset[int]:
        return frozenset().union(*(self.follow[position] for position in reached))

    def accepts(self, text: str) -> bool:
        """Whether `text` is a sentence of the language."""
        ahead, ends = self.first, self.empty
        for word in text.split(" ") if text else []:
            reached = frozenset(at for at in ahead if word in self.words[at])
            ahead, ends = self._next(reached), not self.last.isdisjoint(reached)
        return ends

    def size(self) -> int:
        """How many sentences there are, exactly; one that can be read in two ways counts once."""

        @cache
        def count(ahead: frozenset[int]) -> int:
            readings: dict[str, set[int]] = {}
            for position in ahead:
                for word in self.words[position]:
                    readings.setdefault(word, set()).add(position)
            total = 0
            for reached, words in Counter(map(frozenset, readings.values())).items():
                ends = not self.last.isdisjoint(reached)
                total += words * (ends + count(self._next(reached)))
            return total

        return self.empty + count(self.first)


def automaton() -> Automaton:
    """The recognizer of the whole language."""
    return Automaton(symbol("sentence"))


def main() -> int:
    parser = argparse.ArgumentParser(description="Sentences of the recipe's language.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=10, metavar="K", help="sentences to print")
    parser.add_argument("--accepts", action="store_true", help="judge each line of the input")
    parser.add_argument("--size", action="store_true", help="count sentences and words")
    args = parser.parse_args()
    if args.size:
        print(f"{automaton().size()} sentences, {len(expected())} words")
    elif args.accepts:
        judge = automaton()
        verdicts = [(judge.accepts(text), text) for text in sys.stdin.read().splitlines()]
        for accepted, text in verdicts:
            print("yes" if accepted else "no", text, sep="\t")
        return 0 if all(accepted for accepted, _ in verdicts) else 1
    else:
        for index in range(args.count):
            print(sentence(args.seed, index))
    return 0


if __name__ == "__main__":
    sys.exit(main())
