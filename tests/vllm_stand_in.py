"""What vLLM 0.10 and later promise of `LLM` and `SamplingParams`, in pure Python: their arguments,
what they refuse, and that a stop id is the last of an answer. Greedy only.

The engine itself needs a GPU and a torch of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from transformers import AutoModelForCausalLM

ENGINE = {"enable_prefix_caching", "max_model_len", "max_num_seqs", "disable_log_stats"}
"""Further arguments of the engine, of which there are many more."""


@dataclass(kw_only=True)
class SamplingParams:
    """The fields that may be given, with their defaults."""

    n: int = 1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    detokenize: bool = True
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    include_stop_str_in_output: bool = False
    logit_bias: dict[int, float] | None = None
    allowed_token_ids: list[int] | None = None
    bad_words: list[str] | None = None
    extra_args: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature <= 2.0:
            raise ValueError(f"temperature must be in [0, 2], got {self.temperature}.")
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}.")
        if self.top_k < -1:
            raise ValueError(f"top_k must be 0 (disable), or at least 1, got {self.top_k}.")
        if self.max_tokens is None or self.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, got {self.max_tokens}.")
        if not 0 <= self.min_tokens <= self.max_tokens:
            raise ValueError("min_tokens must be less than or equal to max_tokens.")
        if self.stop and not self.detokenize:
            raise ValueError("stop strings are only supported when detokenize is True.")
        if not all(type(i) is int for i in self.stop_token_ids or []):
            raise ValueError("stop_token_ids must contain only integers.")


@dataclass
class CompletionOutput:
    """One answer."""

    index: int
    text: str
    token_ids: Sequence[int]
    finish_reason: str | None = None
    stop_reason: int | str | None = None


@dataclass
class RequestOutput:
    """The answers to one prompt."""

    request_id: str
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput] = field(default_factory=list)
    finished: bool = True


class LLM:
    """Reads a folder of Hugging Face's format, as vLLM does."""

    def __init__(
        self,
        model: str,
        *,
        tokenizer: str | None = None,
        skip_tokenizer_init: bool = False,
        trust_remote_code: bool = False,
        tensor_parallel_size: int = 1,
        dtype: str = "auto",
        quantization: str | None = None,
        seed: int | None = None,
        gpu_memory_utilization: float = 0.9,
        enforce_eager: bool = False,
        **kwargs: Any,
    ) -> None:
        if unknown := set(kwargs) - ENGINE:
            raise TypeError(f"unexpected keyword arguments {unknown}")
        if not skip_tokenizer_init and not (Path(model) / "tokenizer.json").is_file():
            raise ValueError(f"no tokenizer in {model}")
        assert isinstance(model, str)
        self._network = AutoModelForCausalLM.from_pretrained(model).eval()

    def generate(
        self,
        prompts: Sequence[dict[str, Any]],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = True,
        lora_request: Any = None,
        priority: list[int] | None = None,
    ) -> list[RequestOutput]:
        """The answers, in the order of the prompts."""
        if not isinstance(sampling_params, Sequence):
            sampling_params = [sampling_params or SamplingParams()] * len(prompts)
        if len(sampling_params) != len(prompts):
            raise ValueError("The lengths of prompts and sampling_params must be the same.")
        pairs = zip(prompts, sampling_params, strict=True)
        return [self._answer(number, *pair) for number, pair in enumerate(pairs)]

    @torch.inference_mode()
    def _answer(self, number: int, prompt: dict[str, Any], params: SamplingParams) -> RequestOutput:
        size = self._network.config.vocab_size
        ids = prompt["prompt_token_ids"]
        named = [*(params.allowed_token_ids or range(size)), *(params.stop_token_ids or [])]
        if not named or not all(0 <= i < size for i in [*named, *ids]):
            raise ValueError("token ids out of the vocabulary")
        if params.temperature:
            raise NotImplementedError("this stand-in is greedy")
        banned = torch.ones(size, dtype=torch.bool)
        banned[params.allowed_token_ids or list(range(size))] = False
        said: list[int] = []
        while len(said) < (params.max_tokens or 0):
            logits = self._network(torch.tensor([[*ids, *said]])).logits[0, -1]
            logits = logits.masked_fill(banned, -torch.inf)
            if len(said) < params.min_tokens:
                logits[params.stop_token_ids or []] = -torch.inf
            said.append(int(logits.argmax()))
            if said[-1] in (params.stop_token_ids or []):
                break
        return RequestOutput(str(number), ids, [CompletionOutput(0, "", said)])


def module() -> ModuleType:
    """To be imported as `vllm`."""
    made = ModuleType("vllm")
    made.LLM, made.SamplingParams = LLM, SamplingParams  # type: ignore[attr-defined]
    return made
