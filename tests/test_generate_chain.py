"""Going on by way of text: what is heard is written down, gone on from, and said."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

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
    (plain,) = spirit.generate(["so"], "text", **asked)
    assert text == " ".join(plain.split())
    assert [units] == list(spirit.generate([text], task="speak", tries=1, **asked))
    assert list(spirit.chain(["so"], "text", **asked)) == [text]
    assert list(spirit.chain(["so"], "speech", tries=1, **asked)) == [units]


def test_what_is_spoken_is_written_down_among_what_is_written(spirit: Spirit) -> None:
    heard = spirit.hear(read_audio(JFK)[:16_000])
    (words,) = spirit.generate([heard], task="transcribe")
    assert spirit.write_down([heard]) == " ".join(words.split())
    assert spirit.write_down(["he said", heard, "and"]) == f"he said {' '.join(words.split())} and"
    told = spirit.write_down([heard])
    assert list(spirit.chain([heard], "text", **SHORT)) == list(
        spirit.chain([told], "text", **SHORT)
    )


def test_a_prompt_of_nothing_lets_the_model_begin(spirit: Spirit) -> None:
    begun = list(spirit.chain([], "text", **SHORT))
    assert begun == list(spirit.chain([""], "text", **SHORT))
    assert begun


def test_the_sound_comes_piece_by_piece_and_is_what_is_said_of_its_units(spirit: Spirit) -> None:
    pieces = list(spirit.chain(["so"], streamed=True, speaker=spirit.vocoder.speakers[0], **SHORT))
    text, units = (piece for piece in pieces if not isinstance(piece, np.ndarray))
    assert isinstance(text, str)
    assert isinstance(units, Units)
    sound = np.concatenate([piece for piece in pieces if isinstance(piece, np.ndarray)])
    said = spirit.speak(units, spirit.vocoder.speakers[0])
    assert sound == pytest.approx(said[: len(sound)], abs=1e-4)


def test_ends_of_text_and_of_speech_find_their_half(spirit: Spirit) -> None:
    text, *_ = spirit.chain(["so"], **SHORT)
    # Nothing but the text can end behind a sentence, and nothing but speech in silence.
    again, *_ = spirit.chain(["so"], until=["sentence", "silence"], min_seconds=0.1, **SHORT)
    assert text.startswith(again)
    cut = list(spirit.chain(["so"], "text", stop=[text[2]], **SHORT))
    assert len("".join(cut)) < len(text)


def test_a_voice_that_there_is_not_is_refused(spirit: Spirit) -> None:
    with pytest.raises(ValueError, match="no speaker 'nobody'"):
        list(spirit.chain(["so"], speaker="nobody"))


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
    assert answer["heard"]
    assert [segment["type"] for segment in answer["segments"]] == ["text", "speech"]
    assert answer["seconds"] == pytest.approx(len(read_audio(out)) / 16_000, abs=1e-3)
    text = answer["segments"][0]["text"]
    assert run(*asked, "--want", "text")[1] == f"{text}\n"
    code, streamed, _ = run(*asked, "--out", tmp_path / "streamed.wav", "--stream", "--json")
    assert code == 0
    assert json.loads(streamed)["heard"] == answer["heard"]
    assert json.loads(streamed)["segments"][0] == answer["segments"][0]
    assert (tmp_path / "streamed.wav").stat().st_size > 44


def test_the_command_line_refuses_what_does_not_go_together(bundle: Path) -> None:
    asked = ["generate", "--model", bundle, "--prompt-text", "so", "--chain"]
    code, _, errors = run(*asked, "--task", "transcribe")
    assert (code, errors.count("\n")) == (1, 1)
    assert "--chain is for going on" in errors
    code, _, errors = run(*asked)
    assert (code, errors.count("\n")) == (1, 1)
    assert "--out reply.wav" in errors
