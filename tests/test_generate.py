"""Sampling: only allowed ids, the distribution asked for, and the same answer for the same seed."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from spirit.lm.generate import draw, generate, generate_many, search

VOCAB = 40
PROMPT = np.array([1, 5, 7])


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
        initializer_range=1.0,
    )
    return LlamaForCausalLM(config).eval()


def everything() -> torch.Tensor:
    return torch.ones(VOCAB, dtype=torch.bool)


def test_a_banned_id_is_never_drawn() -> None:
    """100,000 draws where the banned ids hold nearly all the probability."""
    rng = torch.Generator().manual_seed(0)
    allowed = torch.zeros(VOCAB, dtype=torch.bool)
    allowed[[3, 17, 30]] = True
    logits = torch.full((100_000, VOCAB), 50.0)
    logits[:, [3, 17, 30]] = torch.tensor([-60.0, 0.0, -1.0])
    ids = draw(logits, allowed, temperature=1.0, top_p=1.0, top_k=0, rngs=[rng] * 100_000)
    assert set(ids.tolist()) <= {3, 17, 30}
    assert {17, 30} <= set(ids.tolist())


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_draws_follow_the_distribution_at_the_temperature(temperature: float) -> None:
    rng = torch.Generator().manual_seed(1)
    logits = torch.tensor([0.0, 1.0, 2.0, 0.5])
    ids = draw(
        logits.expand(50_000, 4),
        torch.ones(4, dtype=torch.bool),
        temperature=temperature,
        top_p=1.0,
        top_k=0,
        rngs=[rng] * 50_000,
    )
    seen = torch.bincount(ids, minlength=4) / len(ids)
    torch.testing.assert_close(seen, (logits / temperature).softmax(0), atol=0.01, rtol=0)


@pytest.mark.parametrize(
    ("top_p", "top_k", "expected"),
    [
        (1.0, 0, {0, 1, 2, 3}),
        (0.8, 0, {0, 1}),
        (0.81, 0, {0, 1, 2}),
        (0.1, 0, {0}),
        (1.0, 3, {0, 1, 2}),
    ],
)
def test_the_nucleus_is_the_smallest_set_of_that_mass(
    top_p: float, top_k: int, expected: set[int]
) -> None:
    rng = torch.Generator().manual_seed(2)
    logits = torch.tensor([0.5, 0.3001, 0.1499, 0.05]).log().expand(5_000, 4)
    allowed = torch.ones(4, dtype=torch.bool)
    ids = draw(logits, allowed, temperature=1.0, top_p=top_p, top_k=top_k, rngs=[rng] * 5_000)
    assert set(ids.tolist()) == expected


def test_temperature_zero_takes_the_likeliest_allowed_id() -> None:
    allowed = torch.tensor([True, False, True])
    logits = torch.tensor([[0.0, 9.0, 1.0], [2.0, 9.0, 1.0]])
    ids = draw(logits, allowed, temperature=0.0, top_p=1.0, top_k=0, rngs=[torch.Generator()] * 2)
    assert ids.tolist() == [2, 0]


def test_greedy_with_a_cache_equals_reading_everything_again(model: LlamaForCausalLM) -> None:
    ids = list(PROMPT)
    with torch.inference_mode():
        for _ in range(12):
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    answer = generate(model, PROMPT, everything(), temperature=0.0, max_new=12)
    assert list(answer) == ids[len(PROMPT) :]


def test_the_answer_holds_allowed_ids_only(model: LlamaForCausalLM) -> None:
    allowed = everything()
    allowed[::2] = False
    for seed in range(20):
        answer = list(generate(model, PROMPT, allowed, temperature=5.0, seed=seed, max_new=20))
        assert len(answer) == 20
        assert all(id % 2 for id in answer)


def test_a_seed_is_an_answer_and_touches_nobody_elses_randomness(model: LlamaForCausalLM) -> None:
    def answer(seed: int) -> list[int]:
        return list(generate(model, PROMPT, everything(), temperature=2.0, seed=seed, max_new=20))

    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first = answer(1)
    assert torch.rand(1) == expected
    assert first == answer(1)
    assert first != answer(2)


def test_answers_drawn_side_by_side_are_those_drawn_alone(model: LlamaForCausalLM) -> None:
    seeds, eos = list(range(12)), 7
    settings = {"temperature": 2.0, "max_new": 20, "min_new": 2, "eos": eos}
    alone = [list(generate(model, PROMPT, everything(), seed=seed, **settings)) for seed in seeds]
    assert len({len(answer) for answer in alone}) > 3, "some end before others"
    assert generate_many(model, PROMPT, everything(), seeds=seeds, **settings) == alone
    asked: list[list[int]] = []

    def stop() -> Callable[[Sequence[int]], bool]:
        asked.append([])
        mine = asked[-1]

        def after_five(ids: Sequence[int]) -> bool:
            mine[:] = ids
            return len(ids) == 5

        return after_five

    cut = generate_many(model, PROMPT, everything(), seeds=seeds, stop=stop, **settings)
    assert cut == [answer[:5] for answer in alone] == asked
    assert generate_many(model, PROMPT, everything(), seeds=[], max_new=3) == []


def test_eos_ends_the_answer_and_is_not_part_of_it(model: LlamaForCausalLM) -> None:
    greedy = list(generate(model, PROMPT, everything(), temperature=0.0, max_new=12))
    eos = greedy[5]
    cut = list(generate(model, PROMPT, everything(), temperature=0.0, max_new=12, eos=eos))
    assert cut == greedy[: greedy.index(eos)]


def test_stop_sees_the_answer_so_far(model: LlamaForCausalLM) -> None:
    seen: list[list[int]] = []

    def stop(ids: Sequence[int]) -> bool:
        seen.append(list(ids))
        return len(ids) == 4

    answer = list(generate(model, PROMPT, everything(), seed=5, stop=stop, max_new=12))
    assert seen == [answer[: n + 1] for n in range(4)]


def test_the_answer_ends_where_the_context_ends(model: LlamaForCausalLM) -> None:
    assert len(list(generate(model, PROMPT, everything(), max_new=1_000))) == 32 - len(PROMPT)
    with pytest.raises(ValueError, match="at most 32"):
        next(generate(model, np.ones(32, np.int64), everything(), max_new=1))


@pytest.mark.parametrize(
    "setting", [{"temperature": -1.0}, {"temperature": float("nan")}, {"top_p": 0.0}, {"top_k": -1}]
)
def test_settings_out_of_range_are_refused(
    model: LlamaForCausalLM, setting: dict[str, float]
) -> None:
    with pytest.raises(ValueError, match=next(iter(setting)).replace("_", "-")):
        next(generate(model, PROMPT, everything(), max_new=1, **setting))  # type: ignore[arg-type]


def test_damaged_weights_are_said_to_be(model: LlamaForCausalLM) -> None:
    logits = torch.full((1, 3), float("nan"))
    with pytest.raises(ValueError, match="damaged"):
        draw(
            logits,
            torch.ones(3, dtype=torch.bool),
            temperature=1.0,
            top_p=1.0,
            top_k=0,
            rngs=[torch.Generator()],
        )


def likelihood(model: LlamaForCausalLM, answer: Sequence[int]) -> float:
    """Log-probability of an answer to PROMPT."""
    ids = torch.tensor([[*PROMPT, *answer]])
    with torch.inference_mode():
        scores = model(input_ids=ids).logits[0].log_softmax(-1)
    places = range(len(PROMPT) - 1, ids.shape[1] - 1)
    return float(sum(scores[at, ids[0, at + 1]] for at in places))


def test_a_search_with_one_beam_takes_the_likeliest_id_each_time(model: LlamaForCausalLM) -> None:
    greedy = list(generate(model, PROMPT, everything(), temperature=0.0, max_new=12, eos=0))
    assert search(model, PROMPT, everything(), beams=1, max_new=12, eos=0) == greedy


def test_more_beams_find_likelier_answers(model: LlamaForCausalLM) -> None:
    allowed = everything()
    allowed[0] = False  # the end cannot come: all answers are of one length
    found = [search(model, PROMPT, allowed, beams=n, max_new=8, eos=0) for n in (1, 4, 16)]
    assert [len(answer) for answer in found] == [8, 8, 8]
    one, four, sixteen = (likelihood(model, answer) for answer in found)
    assert one < sixteen
    assert one <= four


def test_a_search_finds_allowed_ids_only_and_stops_at_the_end(model: LlamaForCausalLM) -> None:
    allowed = everything()
    allowed[::2] = False
    answer = search(model, PROMPT, allowed, beams=4, max_new=20, eos=0)
    assert len(answer) == 20
    assert all(id % 2 for id in answer)
    greedy = search(model, PROMPT, allowed, beams=1, max_new=20, eos=0)
    cut = search(model, PROMPT, allowed, beams=1, max_new=20, eos=greedy[3])
    assert cut == greedy[: greedy.index(greedy[3])]
    with pytest.raises(ValueError, match="at least one beam"):
        search(model, PROMPT, allowed, beams=0, max_new=20, eos=0)
