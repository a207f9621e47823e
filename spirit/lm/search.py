"""The likeliest answer that a beam search finds."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedModel

from spirit.lm.generate import check_prompt
from spirit.lm.reader import reader


@torch.inference_mode()
def search(
    model: PreTrainedModel,
    ids: Int[np.ndarray, " tokens"],
    allowed: Bool[Tensor, " vocab"],
    *,
    beams: int,
    max_new: int,
    eos: int,
    further: Callable[[list[list[int]]], Sequence[float]] | None = None,
) -> list[int]:
    """The likeliest of the continuations that a beam search finds, without `eos`; nothing is drawn.

    Only ids marked in `allowed` can come. Likeliest is the mean log probability of an answer's
    tokens; the search ends when as many answers have ended as there are beams, and a single beam
    takes the likeliest id each time. The rules are those of transformers' search with
    `early_stopping`. `further` adds to the log probabilities of the answers that were found, given
    without `eos`, what else speaks for them; where the likeliest is empty it is not asked. Raises
    ValueError for a prompt without room for an answer.
    """
    positions = int(model.config.max_position_embeddings)
    check_prompt(ids, positions)
    if beams < 1:
        raise ValueError(f"a search needs at least one beam, not {beams}")
    if not allowed.any():
        raise ValueError("no token is allowed, so nothing can be generated")
    source = reader(model)
    most = min(max_new, positions - len(ids))
    banned = ~allowed.to(source.device)
    answers: list[list[int]] = [[]]
    scores = torch.zeros(1, device=source.device)
    ended: list[tuple[float, list[int]]] = []
    logits = source.start([ids], most)
    for length in range(1, most + 1):
        told = logits.log_softmax(-1).masked_fill(banned, float("-inf")) + scores[:, None]
        # As many again as there are beams: that many may end here.
        best = told.flatten().topk(min(2 * beams, told.numel()))
        found = [
            (score, answers[place // told.shape[1]], place // told.shape[1], place % told.shape[1])
            for score, place in zip(best.values.tolist(), best.indices.tolist(), strict=True)
            if score > float("-inf")
        ]
        over = [(i == eos) or length == most for *_, i in found]
        for (score, answer, _, i), ends in zip(found[:beams], over, strict=False):
            if ends and len(ended) < beams:
                ended.append((score / length, [*answer, i]))
        going = [one for one, ends in zip(found, over, strict=True) if not ends][:beams]
        if len(ended) >= beams or not going:
            break
        answers = [[*answer, i] for _, answer, _, i in going]
        scores = torch.tensor([score for score, *_ in going], device=source.device)
        source.select(torch.tensor([beam for _, _, beam, _ in going], device=source.device))
        logits = source.step(torch.tensor([a[-1] for a in answers], device=source.device))
    ended.sort(key=lambda one: -one[0])
    means = [mean for mean, _ in ended]
    whole = [answer[:-1] if answer[-1] == eos else answer for _, answer in ended]
    if further and len(whole) > 1 and whole[0]:
        # An answer of nothing has nothing to be judged by: the search alone decides for one.
        judged = [n for n, answer in enumerate(whole) if answer]
        beside = further([whole[n] for n in judged])
        fused = [means[n] + more / len(ended[n][1]) for n, more in zip(judged, beside, strict=True)]
        return whole[judged[int(np.argmax(fused))]]
    return whole[0] if whole else []
