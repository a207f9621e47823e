"""Sampling: only allowed ids, the distribution asked for, and the same answer for the same seed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from spirit.lm import model as llama
from spirit.lm.generate import generate, generate_many
from spirit.lm.grammar import Grammar
from spirit.lm.sampling import Sampling, chances, draw
from spirit.lm.search import search
from spirit.tokenizer import Tokenizer

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


def drawn(logits: torch.Tensor, allowed: torch.Tensor, seed: int, **settings: float) -> list[int]:
    """One id per row, each with a number of its own."""
    chance = torch.rand(
        len(logits), dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    ids: list[int] = draw(logits, allowed, Sampling(**settings), chance).tolist()  # type: ignore[arg-type]
    return ids


def test_a_banned_id_is_never_drawn() -> None:
    """100,000 draws where the banned ids hold nearly all the probability."""
    allowed = torch.zeros(VOCAB, dtype=torch.bool)
    allowed[[3, 17, 30]] = True
    logits = torch.full((100_000, VOCAB), 50.0)
    logits[:, [3, 17, 30]] = torch.tensor([-60.0, 0.0, -1.0])
    assert {17, 30} <= set(drawn(logits, allowed, 0, temperature=1.0, top_p=1.0)) <= {3, 17, 30}


@pytest.mark.parametrize("chance", [0.0, 1 - 2**-53])
@pytest.mark.parametrize("top_p", [0.3, 1.0])
def test_the_ends_of_chance_are_allowed_ids_too(chance: float, top_p: float) -> None:
    logits = torch.randn(200, VOCAB, generator=torch.Generator().manual_seed(3)) * 30
    allowed = torch.rand(200, VOCAB, generator=torch.Generator().manual_seed(4)) < 0.2
    allowed[:, 0] = True
    ids = draw(logits, allowed, Sampling(top_p=top_p), torch.full((200,), chance).double())
    assert allowed[torch.arange(200), ids].all()


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_draws_follow_the_distribution_at_the_temperature(temperature: float) -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, 0.5])
    ids = drawn(
        logits.expand(50_000, 4), torch.ones(4).bool(), 1, temperature=temperature, top_p=1.0
    )
    seen = torch.bincount(torch.tensor(ids), minlength=4) / len(ids)
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
    logits = torch.tensor([0.5, 0.3001, 0.1499, 0.05]).log().expand(5_000, 4)
    ids = drawn(logits, torch.ones(4).bool(), 2, temperature=1.0, top_p=top_p, top_k=top_k)
    assert set(ids) == expected


def test_temperature_zero_takes_the_likeliest_allowed_id() -> None:
    allowed = torch.tensor([True, False, True])
    logits = torch.tensor([[0.0, 9.0, 1.0], [2.0, 9.0, 1.0]])
    assert drawn(logits, allowed, 0, temperature=0.0) == [2, 0]


def test_ids_of_equal_mass_all_come() -> None:
    logits = torch.tensor([1.0, 0.0, 1.0, 1.0]).expand(2_000, 4)
    seen = torch.bincount(torch.tensor(drawn(logits, torch.ones(4).bool(), 5, temperature=0.1)))
    assert len(seen) == 4
    assert seen[1] == 0
    assert seen[[0, 2, 3]].min() > 550


def test_a_seed_is_a_stream_whoever_else_draws() -> None:
    together = chances([3, 4, 3], 50)
    assert torch.equal(together[1], chances([4], 50)[0])
    assert torch.equal(together[0], together[2])
    assert torch.equal(together[0, 0], chances([3], 80)[0, 0, :50])
    assert len(together[:2].unique()) == 200


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
    """To one prompt and to prompts of many lengths, some of which begin alike."""
    seeds, eos = list(range(12)), 7
    rng = np.random.default_rng(0)
    long = rng.integers(8, VOCAB, 22)
    various = [long[:n] for n in (20, 21, 22)] + [rng.integers(8, VOCAB, n) for n in range(1, 10)]
    settings = {"temperature": 2.0, "max_new": 20, "min_new": 2, "eos": eos}
    for prompts in ([PROMPT] * 12, various):
        alone = [
            list(generate(model, prompt, everything(), seed=seed, **settings))
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        assert len({len(answer) for answer in alone}) > 3, "some end before others"
        assert generate_many(model, prompts, everything(), seeds=seeds, **settings) == alone
    assert generate_many(model, PROMPT, everything(), seeds=[], max_new=3) == []
    with pytest.raises(ValueError, match="as many seeds"):
        generate_many(model, various, everything(), seeds=[1], max_new=3)


def test_each_answer_has_conditions_of_its_own(model: LlamaForCausalLM) -> None:
    seeds, asked = list(range(6)), [[] for _ in range(6)]
    settings = {"temperature": 2.0, "max_new": 20, "eos": 7}

    def after(number: int):
        def stop(ids: Sequence[int]) -> bool:
            asked[number] = list(ids)
            return len(ids) == 5 + number

        return stop

    whole = generate_many(model, PROMPT, everything(), seeds=seeds, **settings)
    stops = [after(number) for number in range(6)]
    cut = generate_many(model, PROMPT, everything(), seeds=seeds, stops=stops, **settings)
    assert cut == [answer[: 5 + number] for number, answer in enumerate(whole)] == asked

    holds = [lambda ids, number=number: len(ids) < 2 * number for number in range(6)]
    held = generate_many(model, PROMPT, everything(), seeds=seeds, holds=holds, **settings)
    assert all(len(answer) >= 2 * number for number, answer in enumerate(held))
    assert held != whole


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
    with pytest.raises(ValueError, match=r"32 tokens but .* at most 32; .*--truncate left"):
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
    damaged = LlamaForCausalLM(model.config)
    torch.nn.init.constant_(damaged.model.norm.weight, float("nan"))
    for temperature in (0.0, 1.0):
        with pytest.raises(ValueError, match="damaged"):
            next(generate(damaged, PROMPT, everything(), max_new=1, temperature=temperature))


def test_nothing_allowed_is_said_before_anything_is_read(model: LlamaForCausalLM) -> None:
    for allowed in (~everything(), ~everything() | (torch.arange(VOCAB) == 7)):
        with pytest.raises(ValueError, match="no token is allowed"):
            next(generate(model, PROMPT, allowed, max_new=3, min_new=1, eos=7))


ROOT = Path(__file__).parents[1]


def told_plainly(
    model: LlamaForCausalLM, ids: list[int], allowed: torch.Tensor, seed: int, count: int
) -> list[int]:
    """Sampling as a textbook has it: transformers reads everything again for each id, and the
    whole distribution is sorted."""
    rng, candidates = torch.Generator().manual_seed(seed), allowed.nonzero()[:, 0]
    said: list[int] = []
    for _ in range(count):
        logits = model(input_ids=torch.tensor([ids + said])).logits[0, -1, candidates].double()
        mass, order = (logits / 0.8).softmax(-1).sort(descending=True, stable=True)
        mass = mass * (mass.cumsum(-1) - mass < 0.95)
        point = torch.rand(1, generator=rng, dtype=torch.float64) * mass.sum()
        said.append(int(candidates[order[torch.searchsorted(mass.cumsum(-1), point, right=True)]]))
    return said


@pytest.mark.parametrize("seed", range(2))
def test_the_bundle_answers_as_sampling_by_the_book(seed: int) -> None:
    """With and without the grammar, as long as it has nothing to reject."""
    tokenizer = Tokenizer.load(ROOT / "tokenizers" / "tiny")
    bundled, vocab = llama.load(ROOT / "checkpoints" / "tiny")
    for text, want in (("the weather in paris is", "any"), ("so", "text"), ("call me", "speech")):
        ids = tokenizer.codec.prompt([text], want)
        allowed = torch.from_numpy(vocab.allowed(want))
        settings = {"max_new": 20, "seed": seed}
        answer = list(generate(bundled, ids, allowed, **settings))
        with torch.inference_mode():
            assert answer == told_plainly(bundled, ids.tolist(), allowed, seed, 20)
        kept = list(generate(bundled, ids, Grammar.stream(vocab, want), **settings))
        assert kept[:3] == answer[:3]


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


def test_what_else_speaks_for_an_answer_is_added_once_to_its_log_probability(
    model: LlamaForCausalLM,
) -> None:
    seen: list[list[int]] = []

    def last_first(answers: list[list[int]]) -> list[float]:
        seen.extend(answers)
        return [100.0 * (answer == answers[-1]) for answer in answers]

    asked = {"beams": 4, "max_new": 12, "eos": 0}
    plain = search(model, PROMPT, everything(), **asked)
    assert search(model, PROMPT, everything(), further=last_first, **asked) == seen[-1]
    assert len(seen) == 4
    assert plain in seen
    assert all(0 not in answer for answer in seen)
    # Of two answers the other one wins as soon as it gains what parts them.
    means = {
        tuple(a): likelihood(model, a if len(a) == 12 else [*a, 0]) / min(12, len(a) + 1)
        for a in seen
    }
    other = next(list(a) for a in means if list(a) != plain)
    lag = (means[tuple(plain)] - means[tuple(other)]) * min(12, len(other) + 1)
    for share, wins in ((0.9, plain), (1.1, other)):
        gains = {tuple(other): share * lag}

        def gained(answers: list[list[int]], gains: dict = gains) -> list[float]:
            return [gains.get(tuple(answer), 0.0) for answer in answers]

        assert search(model, PROMPT, everything(), further=gained, **asked) == wins


def test_whether_there_is_an_answer_at_all_the_search_alone_decides(
    model: LlamaForCausalLM,
) -> None:
    empty = []
    for eos in range(40):
        seen: list[list[int]] = []

        def first(answers: list[list[int]], seen: list = seen) -> list[float]:
            seen.extend(answers)
            return [-100.0] * len(answers)  # worse than nothing, which is not judged

        asked = {"beams": 4, "max_new": 3, "eos": eos}
        plain = search(model, PROMPT, everything(), **asked)
        empty.append(not plain)
        assert [] not in seen
        assert (search(model, PROMPT, everything(), further=first, **asked) == []) == empty[-1]
        assert bool(seen) == bool(plain)
    assert len(set(empty)) == 2


@pytest.mark.parametrize("beams", [2, 3, 4])
def test_the_answer_found_is_that_of_transformers(model: LlamaForCausalLM, beams: int) -> None:
    for number in range(12):
        rng = np.random.default_rng(number)
        prompt = rng.integers(0, VOCAB, 1 + number)
        theirs = model.generate(
            torch.from_numpy(prompt)[None],
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            generation_config=GenerationConfig(
                num_beams=beams,
                do_sample=False,
                max_new_tokens=12,
                eos_token_id=7,
                pad_token_id=7,
                early_stopping=True,
            ),
        )[0, len(prompt) :].tolist()
        ours = search(model, prompt, everything(), beams=beams, max_new=12, eos=7)
        assert ours == (theirs[: theirs.index(7)] if 7 in theirs else theirs)
