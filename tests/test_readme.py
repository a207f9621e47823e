"""What the README tells people to type works as it stands there."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from spirit.audio import read_audio
from spirit.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINES = [
    line.split(" # ")[0].strip()
    for line in README.splitlines()
    if line.startswith("    spirit ") and not re.search("RECIPE|CORPUS|FOLDER|data/units", line)
]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder as in the examples: a prompt and a recording, no checkpoint beside them."""
    (tmp_path / "demo").mkdir()
    shutil.copy(ROOT / "demo/prompt.flac", tmp_path / "demo/prompt.flac")
    torch.save({"weight": torch.ones(3)}, tmp_path / "pytorch_model.bin")
    monkeypatch.setenv("SPIRITLM_CHECKPOINTS_DIR", str(ROOT / "tests/golden/spiritlm"))
    for name in ("autumn.wav", "in.wav", "speech.wav"):
        shutil.copy(ROOT / "demo/prompt.flac", tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("line", LINES)
def test_an_example_command_runs(home, line):
    ran = CliRunner().invoke(main, shlex.split(line)[1:])
    assert ran.exit_code == 0, ran.output
    asked = re.search(r"(\S+\.wav)$|--out (\S+)", line)
    if asked and "--json" not in line:  # which may answer in text alone
        name = asked.group(1) or asked.group(2)
        assert len(read_audio(home / name)) > 1_000


PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_python_example_runs(home, capsys):
    exec(compile(PYTHON[0], "README.md", "exec"), {})
    assert capsys.readouterr().out.strip() or any(home.glob("segment-*.wav"))


def test_the_example_of_speech_as_it_comes_runs(home):
    exec(compile(PYTHON[0] + PYTHON[1], "README.md", "exec"), {})
    assert len(read_audio(home / "reply.wav")) > 1_000


def test_the_example_with_the_names_of_the_release_runs(home):
    names = {}
    exec(compile(PYTHON[2], "README.md", "exec"), names)
    assert names["tokenizer"].encode_string("speech.wav").startswith("[St")
    assert names["model"].is_expressive_model


def test_every_verb_of_the_readme_has_help():
    verbs = set(re.findall(r"^    spirit (fit \w+|\w+)", README, re.MULTILINE))
    assert {"generate", "resynth", "tokenize", "train", "fit hubert", "fit vocoder"} <= verbs
    for verb in verbs:
        ran = CliRunner().invoke(main, [*verb.split(), "--help"])
        assert ran.exit_code == 0, f"{verb}: {ran.output}"
        assert ran.output.startswith("Usage: ")
