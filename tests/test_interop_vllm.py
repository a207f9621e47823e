"""What goes into vLLM and comes out of it. The engine itself needs a GPU and is not run here; what
stands in for it takes what it takes and refuses what it refuses."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spirit.audio import read_audio
from spirit.codec import Document
from spirit.interop.vllm import Engine, answer, parameters, requests
from spirit.lm.generate import generate
from spirit.pipeline import Spirit
from spirit.units import SAMPLE_RATE, Kind
from spirit.vocab import Vocab
from tests import vllm_stand_in
from tests.bundle import JFK

pytest_plugins = "tests.fixtures"

VOCAB = Vocab.build(20, 17, 18, {Kind.HUBERT: 6, Kind.PITCH: 4}, special=(17, 19))


@pytest.mark.parametrize("want", ["text", "speech", "any"])
def test_only_ids_of_what_is_wanted_are_allowed(want: str) -> None:
    told = parameters(VOCAB, want, seed=3, max_new=5)  # type: ignore[arg-type]
    mask = np.zeros(VOCAB.size, bool)
    mask[told["allowed_token_ids"]] = True
    assert (mask == VOCAB.allowed(want)).all()  # type: ignore[arg-type]
    assert told["stop_token_ids"] == [VOCAB.eos]
    assert (told["top_k"], told["seed"], told["max_tokens"]) == (-1, 3, 5)
    assert not told["detokenize"]


def test_prompts_are_lists_of_ids() -> None:
    assert requests([np.array([1, 2]), np.array([3])]) == [
        {"prompt_token_ids": [1, 2]},
        {"prompt_token_ids": [3]},
    ]


def test_an_answer_ends_before_the_end() -> None:
    assert answer(VOCAB, (1, 2, VOCAB.eos)) == answer(VOCAB, [1, 2]) == [1, 2]


@pytest.fixture
def engine(bundle: Path, spirit: Spirit, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setitem(sys.modules, "vllm", vllm_stand_in.module())
    return Engine(bundle, spirit.tokenizer.codec, tensor_parallel_size=1)


@pytest.mark.parametrize("want", ["text", "speech", "any"])
def test_greedy_answers_of_an_engine_are_those_of_ours(
    engine: Engine, spirit: Spirit, want: str
) -> None:
    heard = spirit.hear(read_audio(JFK)[:SAMPLE_RATE])
    prompts: list[list[Any]] = [["so"], ["hear", heard], [heard, "and"]]
    told = engine.generate(prompts, want, max_new=12, temperature=0.0)  # type: ignore[arg-type]
    codec, vocab = spirit.tokenizer.codec, spirit.tokenizer.vocab
    allowed = torch.from_numpy(vocab.allowed(want))  # type: ignore[arg-type]
    for prompt, document in zip(prompts, told, strict=True):
        assert isinstance(document, Document)
        ids = codec.prompt(prompt, want)  # type: ignore[arg-type]
        ends = {"max_new": 12, "min_new": 4, "eos": vocab.eos}
        ours = list(generate(spirit.model, ids, allowed, temperature=0.0, **ends))
        assert document == codec.decode(np.array(ours))


def test_a_task_is_asked_by_its_marker_and_at_its_temperature(
    engine: Engine, spirit: Spirit, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec, seen = spirit.tokenizer.codec, []
    monkeypatch.setattr(
        vllm_stand_in.LLM,
        "_answer",
        lambda _, number, prompt, params: (
            seen.append((prompt, params))
            or vllm_stand_in.RequestOutput(
                str(number), [], [vllm_stand_in.CompletionOutput(0, "", (1, codec.vocab.eos))]
            )
        ),
    )
    heard = spirit.hear(read_audio(JFK)[:SAMPLE_RATE])
    (document,) = engine.generate([[heard]], task="transcribe", seeds=[7])
    assert document.segments == (codec.text.decode([1]),)
    engine.generate([["so"], ["well"]], task="speak", max_new=5)
    (prompt, params), *spoken = seen
    assert prompt["prompt_token_ids"] == codec.prompt([heard], "text", "transcribe").tolist()
    assert (params.temperature, params.seed, params.min_tokens) == (0.0, 7, 0)
    assert not set(params.allowed_token_ids) & set(range(*codec.vocab.blocks[Kind.HUBERT]))
    for _, params in spoken:
        assert (params.temperature, params.min_tokens, params.max_tokens) == (0.5, 1, 5)


def test_what_cannot_be_asked_of_an_engine_is_refused(engine: Engine) -> None:
    with pytest.raises(ValueError, match="2 prompts need as many seeds, not 1"):
        engine.generate([["so"], ["so"]], seeds=[1])
    with pytest.raises(ValueError, match="answers in speech"):
        engine.generate([["so"]], "text", "speak")
    with pytest.raises(ValueError, match="temperature must be in"):
        engine.generate([["so"]], temperature=3.0)


def test_the_bundled_folder_is_one_that_an_engine_reads() -> None:
    home = Path(__file__).parents[1] / "checkpoints" / "tiny"
    network = vllm_stand_in.LLM(str(home), skip_tokenizer_init=True)._network
    ids = torch.arange(5)[None]
    ours = Spirit.load(home, device="cpu", dtype="fp32")
    with torch.inference_mode():
        assert torch.allclose(network(ids).logits, ours.model(ids).logits, atol=1e-4)


def test_these_are_settings_that_vllm_knows() -> None:
    vllm = pytest.importorskip("vllm")
    assert vllm.SamplingParams(**parameters(VOCAB, "any", seed=3, max_new=5)).seed == 3
