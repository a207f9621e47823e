"""Tasks by example: prompts in the paper's shapes, and what of an answer counts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from spirit.answers import Limits
from spirit.asking import Question
from spirit.audio import read_audio
from spirit.cli import main
from spirit.codec import Codec
from spirit.formats import spiritlm
from spirit.formats.spiritlm_text import ReleasedText
from spirit.pipeline import Spirit
from spirit.shots import STOPS, Examples, Shot, has_ended, known_ending, speech, trained
from spirit.units import SAMPLE_RATE, Kind, Units
from tests.bundle import JFK
from tests.released import EXPECTED, MODELS, SLT, speaking

pytest_plugins = "tests.fixtures"


def hubert(*units: int) -> Units:
    return Units.build((Kind.HUBERT, unit) for unit in units)


@pytest.mark.parametrize("variant", MODELS)
def test_prompts_of_released_models_are_the_strings_of_the_paper(variant: str) -> None:
    pytest.importorskip("sentencepiece")
    text = ReleasedText.load(MODELS[variant] / "tokenizer.model", spiritlm.vocab(variant))
    codec = Codec(text.plain, text.vocab, text.opening)
    heard = spiritlm.parse(EXPECTED["slt"][f"{variant}_string"])
    ending = known_ending("spiritlm-base")
    assert str(ending).startswith("[Hu481][Hu149]")
    assert len(ending) == len(STOPS["spiritlm-base"].split()) == 17
    shots = [Shot(heard[:40], "one two"), Shot(heard[40:70], "three")]

    def asked(task: Any, prompt: list[Any]) -> list[int]:
        examples = Examples(shots, ending)
        question = Question(codec, "any", task, Limits(), lambda _: 0.0, (), examples)
        return question.ids(prompt, 4_096, None).tolist()

    a, b, c = heard[:40], heard[40:70], heard[70:90]
    assert asked("transcribe", [c]) == [
        1,
        *text.encode(
            f"[Speech]{a}[Text]<START Transcript> one two <END>"
            f"[Speech]{b}[Text]<START Transcript> three <END>[Speech]{c}[Text]"
        ),
    ]
    assert asked("speak", ["four"]) == [
        1,
        *text.encode(
            f"[Text]one two 'stop'[Speech]{a}{ending}[Text]three 'stop'[Speech]{b}{ending}"
            "[Text]four 'stop'[Speech]"
        ),
    ]


def test_only_a_vocabulary_with_markers_of_tasks_was_trained_for_them(spirit: Spirit) -> None:
    own, released = spirit.tokenizer.vocab, spiritlm.vocab("base")
    assert all(trained(own, task) for task in ("continue", "transcribe", "speak"))
    assert [trained(released, task) for task in ("continue", "transcribe", "speak")] == [
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("seed", range(20))
def test_speech_ends_before_the_word_that_ends_it_and_loses_nothing_else(
    spirit: Spirit, seed: int
) -> None:
    vocab, rng = spirit.tokenizer.vocab, np.random.default_rng(seed)
    ending = hubert(*rng.integers(2, size=4).tolist())
    kinds = [Kind.HUBERT, Kind.HUBERT, Kind.PITCH]
    pairs = [(kinds[rng.integers(3)], int(rng.integers(2))) for _ in range(30)]
    ids = vocab.units_to_ids(Units.build(pairs)).tolist()
    places = [place for place, (kind, _) in enumerate(pairs) if kind == Kind.HUBERT]
    heard = [pairs[place][1] for place in places]
    wanted = ending.unit.tolist()
    found = [n for n in range(len(heard) - 3) if heard[n : n + 4] == wanted]
    left = ids[: places[found[0]]] if found else ids
    assert list(speech(iter(ids), vocab, ending)) == left
    text = [*ids, vocab.markers["text"], 3, 4]
    assert list(speech(iter(text), vocab, ending)) == left
    over = [n for n in range(1, len(text)) if has_ended(text[:n], vocab, ending)]
    assert over[0] == (places[found[0] + 3] + 1 if found else len(ids) + 1)
    assert list(speech(iter(ids), vocab, hubert())) == ids


def test_no_more_is_held_back_than_may_be_the_ending(spirit: Spirit) -> None:
    vocab, taken = spirit.tokenizer.vocab, []
    ids = vocab.units_to_ids(hubert(5, 1, 2, 1, 2, 3, 7, 1, 2, 4)).tolist()

    def coming() -> Any:
        for i in ids:
            taken.append(i)
            yield i

    waits = []
    for place, _ in enumerate(speech(coming(), vocab, hubert(1, 2, 3, 9)), 1):
        waits.append(len(taken) - place)
    assert waits == [0, 2, 1, 3, 2, 1, 0, 2, 1, 0]


@pytest.fixture
def coming(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[int]], list[int]]:
    """Lets the model answer with given ids, as far as it is not stopped."""

    def come(ids: list[int]) -> list[int]:
        said: list[int] = []

        def answer(*_: object, stop: Callable[[list[int]], bool], **__: object) -> Any:
            said.clear()
            for i in ids:
                said.append(i)
                yield i
                if stop(said):
                    return

        monkeypatch.setattr("spirit.pipeline.generate", answer)
        return said

    return come


@pytest.fixture
def examples(spirit: Spirit) -> Examples:
    heard = spirit.hear(read_audio(JFK)[:SAMPLE_RATE])
    return Examples([Shot(heard[:12], "and so"), Shot(heard[12:24], "my fellow")], hubert(1, 2, 3))


@pytest.mark.parametrize(
    ("told", "left"),
    [
        (" <START Transcript> so be it <END> and on", ["so be it"]),
        ("so be it", ["so be it"]),
        ("<START Transcript> so <EN", ["so <EN"]),
        ("<START Transcript> <END>", []),
    ],
)
def test_a_transcript_stands_between_its_marks(
    spirit: Spirit,
    coming: Callable[[list[int]], list[int]],
    examples: Examples,
    told: str,
    left: Any,
) -> None:
    said = coming(spirit.tokenizer.codec.text.encode(told))
    heard = spirit.hear(read_audio(JFK)[SAMPLE_RATE:])
    settings: Any = {"task": "transcribe", "examples": examples}
    assert list(spirit.generate([heard[:20]], **settings)) == left
    assert spirit.tokenizer.codec.text.decode(said).endswith(("<END>", "<EN", "so be it"))


def test_speech_by_example_ends_with_the_word_or_where_text_begins(
    spirit: Spirit, coming: Callable[[list[int]], list[int]], examples: Examples
) -> None:
    vocab = spirit.tokenizer.vocab
    spoken = vocab.units_to_ids(hubert(5, 6, 1, 2, 7, 1, 2, 3, 9)).tolist()
    settings: Any = {"task": "speak", "examples": examples, "speaker": "slt"}
    said = coming(spoken)
    assert list(spirit.generate(["so"], **settings)) == [hubert(5, 6, 1, 2, 7)]
    assert len(said) == 8
    said = coming([*spoken[:4], vocab.markers["text"], 3])
    assert list(spirit.generate(["so"], **settings)) == [hubert(5, 6, 1, 2)]
    assert len(said) == 5
    coming(spoken)
    *pieces, units = spirit.stream(["so"], **settings)
    assert units == hubert(5, 6, 1, 2, 7)
    wave = spirit.speak(units, "slt")
    np.testing.assert_allclose(np.concatenate(pieces), wave, rtol=0, atol=1e-5)


def test_answers_by_example_are_drawn_together_as_alone(spirit: Spirit, examples: Examples) -> None:
    heard = spirit.hear(read_audio(JFK)[SAMPLE_RATE : 2 * SAMPLE_RATE])
    ways: Any = {"temperature": 2.0, "max_tokens": 30, "examples": examples}
    for task, prompts in (("transcribe", [[heard[:9]], [heard[9:15]]]), ("speak", [["a"], ["bc"]])):
        together = spirit.generate_batch(prompts, task=task, seeds=[1, 2], **ways)  # type: ignore[arg-type]
        alone = [
            list(spirit.generate(prompt, task=task, seed=seed, **ways))  # type: ignore[arg-type]
            for prompt, seed in zip(prompts, (1, 2), strict=True)
        ]
        assert together == alone
        assert all(alone)


def test_of_too_many_examples_the_first_are_left_out_on_request(
    spirit: Spirit, examples: Examples
) -> None:
    shots = [Shot(examples.shots[0].speech, f"number {number}") for number in range(9)]
    many = Examples(shots, examples.ending)
    with pytest.raises(ValueError, match=r"prompt is \d+ tokens but the model reads at most 256"):
        list(spirit.generate(["so"], task="speak", examples=many))
    codec = spirit.tokenizer.codec
    question = Question(codec, "any", "speak", Limits(), lambda _: 0.0, (), many)
    text = codec.text.decode([i for i in question.ids(["so"], 256, "left").tolist() if i < 256])
    assert "number 8" in text
    assert "number 0" not in text
    assert text.startswith("number")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"task": "continue"}, "name one of them"),
        ({"examples": Examples([])}, "show nothing"),
        ({"examples": Examples([Shot(hubert(), "so")])}, "'so' has no speech"),
        ({"examples": Examples([Shot(hubert(1), " ")])}, r"'\[Hu1\]' has no text"),
        ({"tries": 2}, "leave out --tries"),
        ({"task": "transcribe"}, "needs a prompt of one speech segment"),
    ],
)
def test_examples_that_show_nothing_are_refused(
    spirit: Spirit, examples: Examples, change: dict[str, Any], reason: str
) -> None:
    settings: Any = {"task": "speak", "examples": examples, **change}
    with pytest.raises(ValueError, match=reason):
        list(spirit.generate(["so"], **settings))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A released tree that can say all it writes."""
    pytest.importorskip("sentencepiece")
    return speaking(tmp_path_factory.mktemp("released"))


def run(*arguments: object) -> Result:
    asked = ["generate", *arguments, "--device", "cpu"]
    return CliRunner().invoke(main, [str(argument) for argument in asked])


def test_released_models_transcribe_and_speak_by_example(tree: Path, tmp_path: Path) -> None:
    base, expressive = (tree / "spiritlm_model" / f"spirit-lm-{v}-7b" for v in MODELS)
    told = run("--model", base, "--prompt-audio", SLT, "--task", "transcribe")
    assert told.exit_code == 1
    assert told.stderr.startswith("spirit: spiritlm-base was not trained to transcribe; show it")
    assert told.stderr.count("\n") == 1
    shots = tmp_path / "shots.jsonl"
    rows = [{"id": str(n), "audio": str(SLT), "text": text} for n, text in enumerate(("a b", "c"))]
    shots.write_text("".join(json.dumps(row) + "\n" for row in rows))
    shown = ["--shot", f"{SLT}=the model", "--shots", shots]
    told = run("--model", base, "--prompt-audio", SLT, "--task", "transcribe", *shown, "--json")
    assert told.exit_code == 0, told.output
    assert {segment["type"] for segment in json.loads(told.stdout)["segments"]} <= {"text"}
    out = tmp_path / "a.wav"
    wish = ["--task", "speak", "--prompt-text", "so", "--seconds", "1", "--seed", "3"]
    told = run("--model", base, *wish, *shown, "--out", out)
    assert told.exit_code == 0, told.output
    assert 0 < len(read_audio(out)) <= SAMPLE_RATE
    stop = ["--shot-stop", SLT, "--stream"]
    told = run("--model", expressive, *wish, *shown[:2], *stop, "--out", tmp_path / "b.wav")
    assert told.exit_code == 0, told.output
    assert 0 < len(read_audio(tmp_path / "b.wav")) <= SAMPLE_RATE


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--shot", "a.wav=so"], "name it, --task transcribe"),
        (["--task", "speak", "--shot", "so"], "--shot 'so' is not like greeting.wav='good"),
        (["--task", "speak", "--shot", "a.wav="], "no words behind the ="),
        (["--task", "speak", "--shot", "a.wav=so"], "a.wav: no such file"),
        (["--task", "speak", "--shots", "a.jsonl"], "a.jsonl: no such corpus"),
        (["--task", "speak", "--shot-stop", "a.wav"], "--shot-stop ends examples; give some"),
        (["--task", "speak", "--shot", f"{JFK}=so", "--tries", "3"], "leave out --tries"),
        (["--task", "transcribe", "--shot", "a=b", "--shot-stop", "a"], "this answer is text"),
        (["--tries", "3"], "--tries is for --task speak"),
        (["--want", "text", "--style", "calm"], "--style is for speech, and this answer is text"),
        (["--task", "transcribe", "--rate", "2"], "--rate is for speech, and this answer is text"),
    ],
)
def test_examples_and_options_that_go_nowhere_are_refused_before_any_work(
    options: list[str], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = run("--model", "nowhere", "--prompt-text", "so", "--out", "a.wav", *options)
    assert told.exit_code == 1
    assert told.stderr.startswith("spirit: ")
    assert reason in told.stderr
    assert told.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_name_with_an_equals_sign_is_found(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a=b.flac").write_bytes(JFK.read_bytes())
    monkeypatch.chdir(tmp_path)
    wish = ["--task", "speak", "--prompt-text", "so", "--seconds", "1", "--out", "a.wav"]
    told = run("--model", bundle, *wish, "--shot", "a=b.flac=1 + 1 = 2")
    assert told.exit_code == 0, told.stderr
    assert 0 < len(read_audio("a.wav")) <= SAMPLE_RATE
