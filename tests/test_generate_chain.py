"""Going on by way of text: what is heard is written down, gone on from, and said."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from spirit.asking import CHAINED
from spirit.audio import read_audio, write_audio
from spirit.cli import main
from spirit.pipeline import Spirit
from spirit.units import Units
from tests.bundle import JFK

pytest_plugins = "tests.fixtures"
SHORT = {"max_tokens": 12}


def run(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return done.exit_code, done.stdout, done.stderr


def test_the_text_is_that_of_the_same_seed_and_its_speech_that_of_the_task(spirit: Spirit) -> None:
    asked = {"seed": 3, **SHORT}
    text, units = spirit.chain(["so"], tries=1, **asked)
    assert [text] == list(spirit.generate(["so"], "text", temperature=CHAINED, **asked))
    assert [units] == list(spirit.generate([text.strip()], task="speak", tries=1, **asked))
    assert list(spirit.chain(["so"], "text", **asked)) == [text]
    assert list(spirit.chain(["so"], "speech", tries=1, **asked)) == [units]


def test_what_is_spoken_is_written_down_among_what_is_written(spirit: Spirit) -> None:
    heard = spirit.hear(read_audio(JFK)[:16_000])
    (words,) = spirit.generate([heard], task="transcribe")
    assert spirit.write_down([heard]) == " ".join(words.split())
    assert (
        spirit.write_down(["he  said", heard, "and"]) == f"he  said {' '.join(words.split())} and"
    )
    told = spirit.write_down([heard])
    assert list(spirit.chain([heard], "text", **SHORT)) == list(
        spirit.chain([told], "text", **SHORT)
    )


def test_a_prompt_of_nothing_lets_the_model_begin(spirit: Spirit) -> None:
    begun = list(spirit.chain([], "text", **SHORT))
    assert begun == list(spirit.chain([""], "text", **SHORT))
    assert begun


def test_the_sound_comes_piece_by_piece_and_is_that_of_the_text(spirit: Spirit) -> None:
    voice = {"speaker": spirit.vocoder.speakers[0], "pitch": 2.0}
    text, *pieces = spirit.stream_chain(["so"], **voice, **SHORT)
    said = list(spirit.stream([text.strip()], task="speak", **voice, **SHORT))
    assert len(pieces) == len(said) > 1
    for piece, expected in zip(pieces, said, strict=True):
        assert np.array_equal(piece, expected) if isinstance(piece, np.ndarray) else True
    assert [p for p in pieces if isinstance(p, Units)] == [p for p in said if isinstance(p, Units)]


def test_ends_of_text_and_of_speech_find_their_half(
    spirit: Spirit, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def generate(prompt, want="any", task="continue", **settings):
        asked.append((prompt, task, settings))
        yield from [" one two"] if want == "text" else []

    monkeypatch.setattr(spirit, "generate", generate, raising=False)
    ends = {"until": ["sentence", "silence"], "stop": ["."], "min_seconds": 1.0, "max_seconds": 3.0}
    said = list(spirit.chain(["so"], temperature=0.3, speaker=spirit.vocoder.speakers[0], **ends))
    assert said == [" one two"]
    (prompt, task, text), (words, speak, speech) = asked
    assert (prompt, task, words, speak) == (["so"], "continue", ["one two"], "speak")
    assert (text["stop"], text["until"], text["temperature"]) == ((".",), ("sentence",), 0.3)
    assert {"max_seconds", "min_seconds", "speaker"}.isdisjoint(text)
    assert (speech["until"], speech["temperature"]) == (("silence",), 0.3)
    assert (speech["min_seconds"], speech["max_seconds"]) == (1.0, 3.0)
    assert "stop" not in speech
    assert speech["speaker"] == spirit.vocoder.speakers[0]


@pytest.mark.parametrize(
    ("want", "settings", "complaint"),
    [
        ("any", {"max_seconds": 0.0}, "at most 0 seconds"),
        ("speech", {"min_seconds": 30.0}, "at least 30 and at most 20"),
        ("text", {"min_seconds": 3.0}, "in text has no 3 seconds"),
        ("text", {"until": ["silence"]}, "in text has no silence"),
        ("any", {"stop": [""]}, "the text to stop at is empty"),
    ],
)
def test_limits_that_nothing_keeps_are_refused_before_anything_is_said(
    spirit: Spirit, want: str, settings: dict, complaint: str
) -> None:
    for chain in (spirit.chain, spirit.stream_chain):
        with pytest.raises(ValueError, match=complaint):
            next(chain(["so"], want, **settings))
    with pytest.raises(ValueError, match="a speaking rate of -1"):
        next(spirit.stream_chain(["so"], rate=-1.0))


def test_a_voice_that_there_is_not_is_refused(spirit: Spirit) -> None:
    with pytest.raises(ValueError, match="no speaker 'nobody'"):
        list(spirit.chain(["so"], speaker="nobody"))
    for setting in ({"rate": 0.0}, {"tries": 0}):
        with pytest.raises(ValueError, match=r"above 0|at least one try"):
            next(spirit.chain(["so"], **setting))  # before there is a text


def test_a_model_without_the_tasks_is_told_so(
    spirit: Spirit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spirit.pipeline.trained", lambda vocab, task: task != "speak")
    with pytest.raises(ValueError, match="was not trained to speak, and going on by way of text"):
        list(spirit.chain(["so"]))
    assert list(spirit.chain(["so"], "text", **SHORT))  # which needs no task
    monkeypatch.setattr("spirit.pipeline.trained", lambda vocab, task: False)
    heard = spirit.hear(read_audio(JFK)[:8_000])
    with pytest.raises(ValueError, match="was not trained to transcribe"):
        list(spirit.chain([heard], "text"))


def test_the_command_line_writes_both_and_says_what_it_heard(bundle: Path, tmp_path: Path) -> None:
    out, prompt = tmp_path / "reply.wav", tmp_path / "prompt.wav"
    write_audio(prompt, read_audio(JFK)[:16_000])
    asked = ["generate", "--model", bundle, "--chain", "--prompt-audio", prompt, "--seconds", "2"]
    code, told, errors = run(*asked, "--out", out, "--tries", "1", "--json")
    assert (code, errors) == (0, "")
    answer = json.loads(told)
    assert answer["prompt"]
    assert [segment["type"] for segment in answer["segments"]] == ["text", "speech"]
    assert answer["seconds"] == pytest.approx(len(read_audio(out)) / 16_000, abs=1e-3)
    text = answer["segments"][0]["text"]
    assert run(*asked, "--want", "text")[1] == f"{text.strip()}\n"
    code, streamed, _ = run(*asked, "--out", tmp_path / "streamed.wav", "--stream", "--json")
    assert code == 0
    assert json.loads(streamed)["prompt"] == answer["prompt"]
    assert json.loads(streamed)["segments"][0] == answer["segments"][0]
    assert (tmp_path / "streamed.wav").stat().st_size > 44


def test_the_command_line_refuses_what_does_not_go_together(bundle: Path) -> None:
    asked = ["generate", "--model", bundle, "--prompt-text", "so", "--chain"]
    code, _, errors = run(*asked, "--task", "transcribe")
    assert (code, errors.count("\n")) == (1, 1)
    assert "--chain is for going on" in errors
    code, _, errors = run(*asked, "--shot", f"{JFK}=and so")
    assert (code, errors.count("\n")) == (1, 1)
    assert "--chain needs a model that was trained for tasks" in errors
    code, _, errors = run(*asked)
    assert (code, errors.count("\n")) == (1, 1)
    assert "--out reply.wav" in errors


def test_a_prompt_in_which_nothing_is_heard_is_told(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Spirit, "write_down", lambda *_: "")
    silence = tmp_path / "silence.wav"
    write_audio(silence, np.zeros(16_000, np.float32))
    asked = ["generate", "--model", bundle, "--chain", "--want", "text", "--prompt-audio", silence]
    code, told, errors = run(*asked)
    assert code == 0
    assert told.strip()
    assert errors == "spirit: no words are heard in the prompt; the model begins by itself\n"
