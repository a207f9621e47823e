"""Bad input gives one clear line and exit code 1 or 2, or works: no traceback, no half a file."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner, Result

from spirit.audio import read_audio
from spirit.cli import main
from spirit.pipeline import Spirit
from spirit.units import SAMPLE_RATE
from tests.bundle import JFK, build_tokenizer

pytest_plugins = "tests.fixtures"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def one_line(stderr: str) -> str:
    """The line, after checking that it is one and reads like one."""
    assert stderr.startswith("spirit: "), stderr
    assert stderr.count("\n") == 1, stderr
    assert "Traceback" not in stderr
    return stderr


def write(folder: Path, what: str) -> Path:
    path = folder / f"{what.replace(' ', '-')}.wav"
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, 2 * SAMPLE_RATE).astype(np.float32)
    match what:
        case "empty":
            path.touch()
        case "text":
            path.write_text("the weather in paris is nice")
        case "folder":
            path.mkdir()
        case "nan":
            noise[5] = np.nan
            soundfile.write(path, noise, SAMPLE_RATE, subtype="FLOAT")
        case "a hundredth of a second":
            soundfile.write(path, noise[:160], SAMPLE_RATE)
        case "silence":
            soundfile.write(path, 0 * noise, SAMPLE_RATE)
        case "8 channels":
            soundfile.write(path, noise.reshape(-1, 8), SAMPLE_RATE)
        case "8 kHz":
            soundfile.write(path, noise, 8_000)
        case "192 kHz":
            soundfile.write(path, noise, 192_000)
    return path


@pytest.mark.parametrize("verb", ["generate", "resynth"])
@pytest.mark.parametrize("what", ["missing", "empty", "text", "folder", "nan"])
def test_audio_that_cannot_be_used_is_refused(
    bundle: Path, tmp_path: Path, verb: str, what: str
) -> None:
    path, out = write(tmp_path, what), tmp_path / "out" / "reply.wav"
    out.parent.mkdir()
    if verb == "resynth":
        done = run("resynth", path, out, "--model", bundle)
    else:
        done = run("generate", "--model", bundle, "--prompt-audio", path, "--out", out)
    assert done.exit_code == 1
    assert str(path) in one_line(done.stderr)
    assert not list(out.parent.iterdir())


@pytest.mark.parametrize(
    "what", ["a hundredth of a second", "silence", "8 channels", "8 kHz", "192 kHz"]
)
def test_unusual_audio_is_heard(bundle: Path, tmp_path: Path, what: str) -> None:
    path, out = write(tmp_path, what), tmp_path / "reply.wav"
    done = run("resynth", path, out, "--model", bundle)
    assert (done.exit_code, done.stderr) == (0, "")
    assert len(read_audio(out)) == max(640, len(read_audio(path)) // 640 * 640)
    wish = ["--want", "text", "--temperature", "3"]
    done = run("generate", "--model", bundle, "--prompt-audio", path, *wish)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--model", "nowhere"], "nowhere: no such folder"),
        (["--model", str(JFK)], "no such folder"),
        (["--model", str(JFK.parent)], "no spirit.toml"),
        (["--speaker", "nobody"], "no speaker 'nobody'; there are slt, rms"),
        (["--style", "odd"], "no style 'odd'; this model has calm, lively, sad"),
        (["--seconds", "0"], "0 seconds"),
        (["--temperature", "-1"], "temperature"),
        (["--top-p", "1.5"], "top-p"),
        (["--task", "transcribe"], "needs a prompt of one speech segment"),
        (["--task", "speak", "--want", "text"], "answers in speech"),
        (["--device", "abacus"], "abacus"),
        (["--out", "reply.xyz"], "no audio format"),
        (["--out", "nowhere/reply.wav"], "does not exist"),
        (["--prompt-text", "so " * 200], "at most 256"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    reason: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ["--model", bundle, "--prompt-text", "so", "--out", "reply.wav", *arguments]
    done = run("generate", *asked)
    assert done.exit_code == 1
    assert reason in one_line(done.stderr)
    assert not done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", "--want", "song"],
        ["generate", "--seed", "-1"],
        ["generate", "--seconds", "long"],
        ["resynth", "a.wav"],
        ["tokenize", "x", "--out", "y", "--part", "one"],
        ["fit", "nothing"],
        ["sing"],
    ],
)
def test_what_is_typed_wrongly_has_exit_code_2(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert "Error: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_tokenizer_that_does_not_fit_the_model_is_refused(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle.parents[1], tmp_path / "copy")
    home = tmp_path / "copy" / "tokenizers" / "tiny"
    shutil.rmtree(home)
    build_tokenizer(home, units=8)
    model = tmp_path / "copy" / "checkpoints" / "tiny"
    done = run("generate", "--model", model, "--prompt-text", "so", "--want", "text")
    assert done.exit_code == 1
    assert "was trained with the tokenizer" in one_line(done.stderr)


@pytest.mark.parametrize(
    ("error", "needed"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0"),
            "2.50 GiB",
        ),
        (
            RuntimeError(
                "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9000000000 bytes"
            ),
            "9.0 GB",
        ),
        (MemoryError("Unable to allocate 3.2 GiB for an array with shape (9,)"), "3.2 GiB"),
    ],
)
def test_too_little_memory_is_one_line_with_what_was_needed_and_what_helps(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, needed: str
) -> None:
    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr(Spirit, "hear", full)
    out = tmp_path / "reply.wav"
    done = run("generate", "--model", bundle, "--prompt-audio", JFK, "--out", out)
    assert done.exit_code == 1
    line = one_line(done.stderr)
    assert f"no room for another {needed}; it may help: a shorter" in line
    assert "--device cpu" in line
    assert "--dtype int8" in line
    assert not out.exists()


def test_a_prompt_of_nothing_lets_the_model_begin(bundle: Path) -> None:
    done = run("generate", "--model", bundle, "--want", "text")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.strip()
    done = run("generate", "--model", bundle, "--task", "transcribe")
    assert done.exit_code == 1
    assert "needs a prompt of one speech segment, not nothing" in one_line(done.stderr)


def test_a_full_disk_leaves_the_old_answer_whole(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "reply.wav"
    out.write_bytes(b"the old answer")

    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, 4_096))

    command = [sys.executable, "-m", "spirit", "resynth", JFK, out, "--model", bundle]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=little_room)
    assert done.returncode == 1
    assert f"{out}: not written, File too large" in one_line(done.stderr)
    assert out.read_bytes() == b"the old answer"
    assert [path.name for path in tmp_path.iterdir()] == ["reply.wav"]


def test_a_full_disk_under_the_output_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "spirit", "info", JFK]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert "No space left" in one_line(done.stderr)


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -m spirit info {JFK} 2>&1 >&3 | cat"
    read, written = os.pipe()
    os.close(read)
    done = subprocess.run(
        ["bash", "-c", f"exec 3>&{written}; {command}"],
        pass_fds=[written],
        capture_output=True,
        text=True,
    )
    os.close(written)
    assert done.stdout == ""


def test_ctrl_c_ends_with_one_line_and_no_file(bundle: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", np.zeros(900 * SAMPLE_RATE, np.int16), SAMPLE_RATE)
    start = "import spirit.pipeline; from spirit.cli import main; print('here', flush=True); main()"
    with subprocess.Popen(
        [sys.executable, "-c", start, "resynth", "long.wav", "reply.wav", "--model", bundle],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1
    assert one_line(stderr) == "spirit: interrupted\n"
    assert [path.name for path in tmp_path.iterdir()] == ["long.wav"]


def test_ctrl_c_in_the_midst_of_an_answer_leaves_nothing(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> np.ndarray:
        raise KeyboardInterrupt

    monkeypatch.setattr(Spirit, "speak", interrupted)
    wish = ["--want", "speech", "--out", tmp_path / "reply.wav"]
    done = run("generate", "--model", bundle, "--prompt-text", "so", *wish)
    assert done.exit_code == 1
    assert done.stderr == "spirit: interrupted\n"
    assert not list(tmp_path.iterdir())
