"""How much a model repeats others and itself: self-BLEU and auto-BLEU, of word pairs, as the
generations of GSLM are measured (Lakhotia et al. 2021, section 4)."""

from collections import Counter
from collections.abc import Mapping

import numpy as np

ORDER = 2
OTHERS = 200
"""Texts that one is compared with, drawn where there are more: time grows with the square."""
SEED = 0


def self_bleu(texts: Mapping[str, str]) -> dict[str, float]:
    """BLEU of each text with the others as references, 0 to 1; 1 if all say the same.

    By sacrebleu on words as they are. Without words there is no figure, nor of one text alone.
    """
    from sacrebleu.metrics import BLEU

    judge = BLEU(max_ngram_order=ORDER, effective_order=True, tokenize="none")
    said = {name: text for name, text in texts.items() if text.split()}
    rng = np.random.default_rng(SEED)
    names, found = list(said), {}
    for turn, name in enumerate(names if len(names) > 1 else ()):
        others = [*range(turn), *range(turn + 1, len(names))]
        if len(others) > OTHERS:
            others = rng.choice(others, OTHERS, replace=False).tolist()
        references = [said[names[other]] for other in others]
        found[name] = judge.sentence_score(said[name], references).score / 100
    return found


def auto_bleu(text: str) -> float | None:
    """The share of its word pairs that a text has elsewhere too; None of one without pairs."""
    words = text.split()
    pairs = Counter(tuple(words[i : i + ORDER]) for i in range(len(words) - ORDER + 1))
    again = sum(count for count in pairs.values() if count > 1)
    return again / pairs.total() if pairs else None
