"""Answers by vLLM: token ids in, token ids out, in large batches on GPUs.

vLLM (extra `vllm`) reads our model folders as they are, and knows nothing of text or units. What
may come is a list of allowed ids; the grammar of `spirit.lm.grammar` is not kept there, nor are
limits in seconds, and its draws are its own: equal seeds do not give the answers of
`spirit.lm.generate`.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from spirit.asking import LEAST, TEMPERATURE, answered
from spirit.codec import Codec, Document, Segment, Task
from spirit.vocab import Vocab, Want


def requests(prompts: Iterable[Int[np.ndarray, " _"]]) -> list[dict[str, list[int]]]:
    """Prompts of ids as vLLM takes them."""
    return [{"prompt_token_ids": ids.tolist()} for ids in prompts]


def parameters(
    vocab: Vocab,
    want: Want,
    *,
    seed: int,
    max_new: int,
    min_new: int = 0,
    temperature: float = 0.8,
    top_p: float = 0.95,
    top_k: int = 0,
) -> dict[str, Any]:
    """What vLLM's `SamplingParams` is made of, so that only ids of what is wanted can come."""
    return {
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k or -1,
        "max_tokens": max_new,
        "min_tokens": min_new,
        "seed": seed,
        "stop_token_ids": [vocab.eos],
        "allowed_token_ids": np.flatnonzero(vocab.allowed(want)).tolist(),
        "detokenize": False,
    }


def answer(vocab: Vocab, token_ids: Sequence[int]) -> list[int]:
    """The ids of an answer, without the end that vLLM may leave there."""
    ids = list(token_ids)
    return ids[: ids.index(vocab.eos)] if vocab.eos in ids else ids


class Engine:
    """A model folder of ours in vLLM."""

    def __init__(self, folder: Path, codec: Codec, **options: Any) -> None:
        """`options` are those of `vllm.LLM`, such as `tensor_parallel_size`."""
        from vllm import LLM

        self.codec = codec
        options = {"skip_tokenizer_init": True, "enable_prefix_caching": True, **options}
        self._model = LLM(model=str(folder), **options)

    def generate(
        self,
        prompts: Sequence[Sequence[Segment]],
        want: Want = "any",
        task: Task = "continue",
        *,
        seeds: Sequence[int] | None = None,
        max_new: int = 1_000,
        **settings: Any,
    ) -> list[Document]:
        """An answer to each prompt; `settings` are those of `parameters`.

        Temperature and least length are those of `Spirit.generate` where none are given. Raises
        ValueError as that does, and for as many seeds as there are not prompts.
        """
        from vllm import SamplingParams

        vocab, want = self.codec.vocab, answered(want, task)
        if seeds is not None and len(seeds) != len(prompts):
            raise ValueError(f"{len(prompts)} prompts need as many seeds, not {len(seeds)}")
        least = min(LEAST.get(task, 0), max_new)
        settings = {"temperature": TEMPERATURE[task], "min_new": least, **settings}
        asked = requests(self.codec.prompt(prompt, want, task) for prompt in prompts)
        ways = [
            SamplingParams(**parameters(vocab, want, seed=seed, max_new=max_new, **settings))
            for seed in seeds or [0] * len(asked)
        ]
        told = self._model.generate(asked, ways)
        ids = [answer(vocab, each.outputs[0].token_ids) for each in told]
        return [self.codec.decode(np.array(row, np.int64)) for row in ids]
