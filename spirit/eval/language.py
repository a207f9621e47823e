"""A finite language that a module of the user's describes: is a text a sentence of it, and how many
words is it away from one?

The module (`recipes/tiny/language.py` is one) has `automaton()`, which gives the positions of
words (`words`, `follow`, `first`, `last`, `empty`) and `accepts(text)`, and `sentence(seed,
index)`, which draws a sentence.
"""

import sys
from collections.abc import Collection, Iterator, Sequence
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from spirit.eval.listen import normalize

FAR = 10_000
"""More words than any text has."""


@runtime_checkable
class Automaton(Protocol):
    """Positions of words; a sentence is a way from a first position to a last one."""

    words: Sequence[Collection[str]]
    """What may be said at each position."""
    follow: Sequence[Collection[int]]
    first: Collection[int]
    last: Collection[int]
    empty: bool
    """Whether nothing is a sentence too."""

    def accepts(self, text: str) -> bool:
        """Whether a text is a sentence."""
        ...


class Language:
    """All sentences at once."""

    def __init__(self, automaton: Automaton) -> None:
        self.automaton = automaton
        edges = [(0, position + 1) for position in automaton.first]
        for place, following in enumerate(automaton.follow):
            edges += [(place + 1, position + 1) for position in following]
        self._from, self._to = np.array(edges, int).reshape(-1, 2).T
        self._ends = np.array([position + 1 for position in automaton.last] + [0] * automaton.empty)
        self._at: dict[str, list[int]] = {}
        for place, words in enumerate(automaton.words):
            for word in set(map(normalize, words)):
                self._at.setdefault(word, []).append(place + 1)
        start = np.full(len(automaton.words) + 1, FAR)
        start[0] = 0
        self._begin = self._skip(start)

    @property
    def words(self) -> list[str]:
        """Every word of the language, in the spelling of the ear."""
        return sorted(self._at)

    def accepts(self, text: str) -> bool:
        """Whether a text is a sentence, to the letter."""
        return self.automaton.accepts(text)

    def edits(self, text: str) -> int:
        """The fewest words to change, to leave out or to put in that make a sentence of a text.

        Wagner and Fischer's table (1974, "The string-to-string correction problem") with a column
        of positions for each word, so that all sentences are compared at once.
        """
        cost = self._begin
        for word in normalize(text).split():
            other = np.ones(len(cost), int)
            other[self._at.get(word, [])] = 0
            read = np.full(len(cost), FAR)
            np.minimum.at(read, self._to, cost[self._from])
            cost = self._skip(np.minimum(read + other, cost + 1))
        return int(cost[self._ends].min())

    def _skip(self, cost: Int[np.ndarray, " places"]) -> Int[np.ndarray, " places"]:
        """Words that the text lacks cost 1 each."""
        while True:
            further = cost.copy()
            np.minimum.at(further, self._to, cost[self._from] + 1)
            if np.array_equal(further, cost):
                return cost
            cost = further


@cache
def load(path: Path) -> Language:
    """The language of a module, by its path; the module is run.

    Raises ValueError where it describes none.
    """
    made = getattr(_module(path), "automaton", None)
    wanted = ("words", "follow", "first", "last", "empty", "accepts")
    automaton = made() if callable(made) else None
    if lacking := [name for name in wanted if not hasattr(automaton, name)]:
        raise ValueError(
            f"{path} describes no language: its automaton() must have {', '.join(lacking)}; "
            "recipes/tiny/language.py is an example"
        )
    assert automaton is not None
    return Language(automaton)


def draw_sentences(path: Path, count: int) -> Iterator[str]:
    """The first sentences that a module draws. Raises ValueError where it draws none."""
    draw = getattr(_module(path), "sentence", None)
    if not callable(draw):
        raise ValueError(f"{path} draws no sentences; it needs sentence(seed, index)")
    return (str(draw(0, index)) for index in range(count))


@cache
def _module(path: Path) -> ModuleType:
    """A module by its path; what lies beside it can be imported by it."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file; give the Python module of a language")
    spec = spec_from_file_location(f"spirit_language_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is no Python module; give one that describes a language")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there for their module
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    except (ImportError, SyntaxError) as error:
        raise ValueError(f"{path} cannot be run ({error})") from None
    finally:
        sys.path.pop(0)
    return module
