"""Sampling from a language model: ids in, ids out, never one that is not allowed."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

Stop = Callable[[Sequence[int]], bool]
"""Whether an answer ends with these ids, asked after each new one."""


def generate(
    model: PreTrainedModel,
    ids: Int[np.ndarray, " tokens"],
    allowed: Bool[Tensor, " vocab"],
    *,
    max_new: int,
    min_new: int = 0,
    eos: int | None = None,
    stop: Stop | None = None,
    temperature: float = 0.8,
    top_p: float = 0.95,
    top_k: int = 0,
    seed: int = 0,
) -> Iterator[int]:
    """Yield at most `max_new` ids that follow the prompt `ids`, until `eos` (left out) or `stop`.

    Only ids marked in `allowed` can come, and `eos` not among the first `min_new`. Temperature 0
    takes the most probable id; `top_k` 0 and `top_p` 1 leave the distribution whole. The randomness
    is this call's own: equal seeds give equal answers. Raises ValueError for settings out of range
    and for a prompt that leaves no room in the model's context.
    """
    settings = _Settings(max_new, min_new, eos, temperature, top_p, top_k)
    for new in _decode(model, ids, allowed, settings, [seed], [stop]):
        yield from new.values()


def generate_many(
    model: PreTrainedModel,
    ids: Int[np.ndarray, " tokens"],
    allowed: Bool[Tensor, " vocab"],
    *,
    seeds: Sequence[int],
    max_new: int,
    min_new: int = 0,
    eos: int | None = None,
    stop: Callable[[], Stop] | None = None,
    temperature: float = 0.8,
    top_p: float = 0.95,
    top_k: int = 0,
) -> list[list[int]]:
    """Answers to one prompt, one for each seed, decoded side by side: the prompt is read once.

    Each is what `generate` gives with its seed alone, where the model's sums do not depend on the
    batch (they do not in fp32 on a CPU, but for the last bit). `stop` makes the condition that ends
    an answer, one for each. Raises ValueError as `generate` does.
    """
    settings = _Settings(max_new, min_new, eos, temperature, top_p, top_k)
    answers: list[list[int]] = [[] for _ in seeds]
    stops = [stop() if stop else None for _ in seeds]
    for new in _decode(model, ids, allowed, settings, seeds, stops):
        for row, token in new.items():
            answers[row].append(token)
    return answers


@dataclass(frozen=True)
class _Settings:
    max_new: int
    min_new: int
    eos: int | None
    temperature: float
    top_p: float
    top_k: int


def _decode(
    model: PreTrainedModel,
    ids: Int[np.ndarray, " tokens"],
    allowed: Bool[Tensor, " vocab"],
    settings: _Settings,
    seeds: Sequence[int],
    stops: Sequence[Stop | None],
) -> Iterator[dict[int, int]]:
    """Yield the new id of each answer that has not ended, by its number."""
    _check(model, ids, allowed, settings.temperature, settings.top_p, settings.top_k)
    room = int(model.config.max_position_embeddings) - len(ids)
    rngs = [torch.Generator().manual_seed(seed) for seed in seeds]
    going_on = allowed.clone()
    if settings.eos is not None:
        going_on[settings.eos] = False
    answers: list[list[int]] = [[] for _ in seeds]
    alive = list(range(len(seeds)))
    cache = DynamicCache(config=model.config)
    fresh = torch.as_tensor(ids, dtype=torch.long, device=model.device)[None]
    for length in range(min(settings.max_new, room)):
        if not alive:
            return
        logits = _next_logits(model, fresh, cache)
        if not length and len(alive) > 1:  # the prompt was read once, for all
            logits = logits.expand(len(alive), -1)
            cache.batch_repeat_interleave(len(alive))
        drawn = draw(
            logits,
            allowed if length >= settings.min_new else going_on,
            temperature=settings.temperature,
            top_p=settings.top_p,
            top_k=settings.top_k,
            rngs=[rngs[row] for row in alive],
        )
        new = {r: i for r, i in zip(alive, drawn.tolist(), strict=True) if i != settings.eos}
        for row, token in new.items():
            answers[row].append(token)
        yield new
        going = [row for row in new if not ((stop := stops[row]) and stop(answers[row]))]
        if going and len(going) < len(alive):
            kept = torch.tensor([alive.index(row) for row in going], device=model.device)
            cache.batch_select_indices(kept)
        alive = going
        fresh = torch.tensor([answers[row][-1:] for row in alive], device=model.device)


@torch.inference_mode()
def search(
    model: PreTrainedModel,
    ids: Int[np.ndarray, " tokens"],
    allowed: Bool[Tensor, " vocab"],
    *,
    beams: int,
    max_new: int,
    eos: int,
) -> list[int]:
    """The likeliest of the continuations that a beam search finds, without `eos`; nothing is drawn.

    Only ids marked in `allowed` can come. Raises ValueError as `generate` does.
    """
    from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

    _check(model, ids, allowed, 0.0, 1.0, 0)
    if beams < 1:
        raise ValueError(f"a search needs at least one beam, not {beams}")
    banned = ~allowed.to(model.device)

    class Allow(LogitsProcessor):  # type: ignore[misc]
        def __call__(self, _: Tensor, scores: Tensor) -> Tensor:
            return scores.masked_fill(banned, float("-inf"))

    prompt = torch.as_tensor(ids, dtype=torch.long, device=model.device)[None]
    room = int(model.config.max_position_embeddings) - len(ids)
    found = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        logits_processor=LogitsProcessorList([Allow()]),
        generation_config=GenerationConfig(
            num_beams=beams,
            do_sample=False,
            max_new_tokens=min(max_new, room),
            eos_token_id=eos,
            pad_token_id=eos,
            early_stopping=beams > 1,
        ),
    )
    answer: list[int] = found[0, len(ids) :].tolist()
    return answer[: answer.index(eos)] if eos in answer else answer


@torch.inference_mode()
def likelihood(model: PreTrainedModel, ids: Int[np.ndarray, " tokens"], start: int) -> float:
    """The sum of the log probabilities of `ids[start:]`, each after all before it, in nats.

    Raises ValueError for a sequence that the model cannot read, or without a beginning.
    """
    if not 0 < start <= len(ids):
        raise ValueError(f"tokens {start} to {len(ids)} have no beginning to be judged by")
    if len(ids) > (positions := int(model.config.max_position_embeddings)):
        raise ValueError(f"{len(ids)} tokens, but the model reads at most {positions}; shorten it")
    fresh = torch.as_tensor(ids, dtype=torch.long, device=model.device)[None]
    logits = model(input_ids=fresh[:, :-1], use_cache=False).logits[0, start - 1 :]
    told = logits.float().log_softmax(-1).gather(-1, fresh[0, start:, None])
    return float(told.sum())


def _check(
    model: PreTrainedModel,
    ids: Int[np.ndarray, " tokens"],
    allowed: Bool[Tensor, " vocab"],
    temperature: float,
    top_p: float,
    top_k: int,
) -> None:
    if not temperature >= 0:
        raise ValueError(f"temperature {temperature} must be 0 (the likeliest) or more")
    if not 0 < top_p <= 1:
        raise ValueError(f"top-p {top_p} must be above 0 and at most 1")
    if top_k < 0:
        raise ValueError(f"top-k {top_k} must be 0 (no limit) or more")
    if not len(ids):
        raise ValueError("the prompt holds no token; begin it with BOS")
    if not allowed.any():
        raise ValueError("no token is allowed, so nothing can be generated")
    if len(ids) >= (positions := int(model.config.max_position_embeddings)):
        raise ValueError(
            f"the prompt is {len(ids)} tokens but the model reads at most {positions}; shorten it"
        )


@torch.inference_mode()
def _next_logits(
    model: PreTrainedModel, fresh: Int[Tensor, "batch tokens"], cache: DynamicCache
) -> Float[Tensor, "batch vocab"]:
    """Read the ids not yet in the cache and say what may follow, as float32 on the CPU."""
    output = model(input_ids=fresh, past_key_values=cache, use_cache=True, logits_to_keep=1)
    logits: Tensor = output.logits[:, -1].float().cpu()
    return logits


def draw(
    logits: Float[Tensor, "batch vocab"],
    allowed: Bool[Tensor, " vocab"],
    *,
    temperature: float,
    top_p: float,
    top_k: int,
    rngs: Sequence[torch.Generator],
) -> Int[Tensor, " batch"]:
    """Draw one allowed id per row, from the nucleus of mass `top_p` (Holtzman et al. 2020), each
    row by a generator of its own.

    At most the `top_k` likeliest take part, if it is not 0. Drawn by inverting the cumulative
    distribution over the kept ids alone, so that a banned id cannot come out by rounding. The draw
    is on the CPU: the same seed means the same on every device.
    """
    candidates = allowed.cpu().nonzero()[:, 0]
    scores = logits[:, candidates].double()
    if not scores.isfinite().all():
        raise ValueError("the model's scores are NaN or infinite; its weights are damaged")
    if temperature == 0:
        return candidates[scores.argmax(-1)]
    mass, order = (scores / temperature).softmax(-1).sort(dim=-1, descending=True, stable=True)
    before = mass.cumsum(-1) - mass
    kept = before < top_p  # the first always is
    if top_k:
        kept[:, top_k:] = False
    mass = mass * kept
    cumulative = mass.cumsum(-1)
    chance = [torch.rand(1, 1, generator=rng, dtype=torch.float64) for rng in rngs]
    point = torch.cat(chance) * cumulative[:, -1:]
    last = kept.sum(-1, keepdim=True) - 1
    rank = torch.searchsorted(cumulative, point, right=True).clamp(max=last)
    return candidates[order.gather(-1, rank)[:, 0]]
