"""A word trigram in the ARPA format, which tells the independent ear what it may expect."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from math import log10

DISCOUNT = 0.5
"""Taken from every count for what was not seen (Ney, Essen and Kneser 1994, absolute
discounting)."""
ORDER = 3
BEGIN, END = "<s>", "</s>"
Gram = tuple[str, ...]


def arpa(sentences: Iterable[str], words: Collection[str] = ()) -> str:
    """The model of some sentences, with back-off; `words` are known even where none has them.

    Raises ValueError where there is no sentence.
    """
    counts = [Counter[Gram]() for _ in range(ORDER)]
    for sentence in sentences:
        said = (BEGIN, *sentence.split(), END)
        for order, counted in enumerate(counts, start=1):
            counted.update(said[i : i + order] for i in range(len(said) - order + 1))
    if not counts[0]:
        raise ValueError("a language without a sentence has no trigram")
    begun = counts[0].pop((BEGIN,))
    for word in words:
        counts[0].setdefault((word,), 0)
    total = counts[0].total() + len(counts[0])
    # Plus one: a word that no sentence here has may be said as well.
    likely: dict[Gram, float] = {gram: (n + 1) / total for gram, n in counts[0].items()}
    left: dict[Gram, float] = {}
    seen = {**counts[0], (BEGIN,): begun}
    for counted in counts[1:]:
        spared, lower = defaultdict[Gram, float](float), defaultdict[Gram, float](float)
        for gram, n in counted.items():
            history = gram[:-1]
            likely[gram] = (n - DISCOUNT) / seen[history]
            spared[history] += DISCOUNT / seen[history]
            lower[history] += likely[gram[1:]]
        for history, share in spared.items():
            left[history] = share / max(1 - lower[history], 1e-9)
        seen = dict(counted)
    lines = ["\\data\\", *(f"ngram {n}={len(_grams(counts, n))}" for n in range(1, ORDER + 1))]
    for order in range(1, ORDER + 1):
        lines += ["", f"\\{order}-grams:"]
        for gram in _grams(counts, order):
            told = f"{log10(likely[gram]) if gram in likely else -99:.4f}\t{' '.join(gram)}"
            lines.append(told + (f"\t{log10(left[gram]):.4f}" if gram in left else ""))
    return "\n".join([*lines, "", "\\end\\", ""])


def _grams(counts: list[Counter[Gram]], order: int) -> list[Gram]:
    return [(BEGIN,)] * (order == 1) + sorted(counts[order - 1])
