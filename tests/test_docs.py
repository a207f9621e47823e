"""Every command and every piece of Python in docs/ works as it stands there, in the order of its
page."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import soundfile
import torch
from click.testing import CliRunner

from spirit.audio import read_audio
from spirit.cli import main
from tests import suites

ROOT = Path(__file__).parents[1]
PAGES = sorted(path.name for path in (ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"```(bash|python|toml)\n(.*?)```", re.DOTALL)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """What the pages take for granted: a prompt, a corpus with word times, suites, tokenizers."""
    (tmp_path / "tokenizers").symlink_to(ROOT / "tokenizers")
    (tmp_path / "demo").mkdir()
    shutil.copy(ROOT / "demo/prompt.flac", tmp_path / "demo/prompt.flac")
    wave = read_audio(ROOT / "demo/prompt.flac")
    rows, times = [], []
    for number, text in enumerate(("one two", "three four", "five six")):
        soundfile.write(tmp_path / f"{number}.flac", wave[3_000 * number :], 16_000)
        rows.append({"id": f"u{number}", "audio": f"{number}.flac", "text": text, "speaker": "a"})
        words = [
            {"text": word, "start": 3_200 * turn, "stop": 3_200 * (turn + 1)}
            for turn, word in enumerate(text.split())
        ]
        times.append({"id": f"u{number}", "words": words})
    for name, table in (("corpus.jsonl", rows), ("times.jsonl", times)):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in table))
    torch.save({"weight": torch.ones(3)}, tmp_path / "pytorch_model.bin")
    suites.swuggy(tmp_path / "suites/swuggy")
    suites.stories_in_parts(tmp_path / "suites/stories_in_parts")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES)
def test_a_page_can_be_followed_from_top_to_bottom(home, page):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    for kind, block in BLOCK.findall(text):
        if kind == "toml":
            if "[training]" in block and not (home / "recipe.toml").exists():
                (home / "recipe.toml").write_text(block)
            continue
        if kind == "python":
            exec(compile(block, page, "exec"), {})
            continue
        for line in filter(None, block.splitlines()):
            words = shlex.split(line, comments=True)
            assert words[0] == "spirit", f"{page}: {line}"
            ran = CliRunner().invoke(main, words[1:])
            assert ran.exit_code == 0, f"{page}: {line}\n{ran.output}"


def test_every_page_is_in_the_contents_and_every_link_leads_somewhere():
    contents = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert sorted(re.findall(r"(\w+\.md)$", contents, re.MULTILINE)) == PAGES
    for page in PAGES:
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
            assert (ROOT / "docs" / link).exists(), f"{page}: {link}"


def test_the_notebook_runs_from_top_to_bottom(home, capsys):
    cells = json.loads((ROOT / "docs/tour.ipynb").read_text(encoding="utf-8"))["cells"]
    names: dict[str, object] = {}
    for cell in cells:
        # Playing needs IPython, which is no part of what is tested.
        if cell["cell_type"] == "code" and "needs-ipython" not in cell["metadata"].get("tags", ()):
            exec(compile("".join(cell["source"]), "tour.ipynb", "exec"), names)
    assert "tokens" in capsys.readouterr().out
    assert len(names["again"]) > 16_000


def test_the_recipe_of_the_page_trains_a_model_that_speaks_with_the_bundled_voice(home):
    text = (ROOT / "docs/train.md").read_text(encoding="utf-8")
    recipe = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)[0]
    (home / "recipe.toml").write_text(recipe)

    def run(*words: str) -> str:
        ran = CliRunner().invoke(main, words)
        assert ran.exit_code == 0, ran.output
        return ran.output

    run("tokenize", "corpus.jsonl", "--out", "data/units")
    run("align", "data/units", "--aligner", "given", "--times", "times.jsonl")
    told = run("train", "recipe.toml", "--set", "training.steps=2", "--set", "size.layers=2")
    assert told.strip().endswith("trained/model")
    lost = CliRunner().invoke(main, ["generate", "--model", "trained", "--want", "text"])
    assert "it is not the folder of a model, trained/model is" in lost.output
    shutil.copytree(ROOT / "checkpoints/tiny/vocoder", home / "trained/model/vocoder")
    wish = ["--prompt-text", "one two", "--want", "speech", "--min-seconds", "0.5"]
    run("generate", "--model", "trained/model", *wish, "--seconds", "1", "--out", "reply.wav")
    assert 0.4 < len(read_audio(home / "reply.wav")) / 16_000 <= 1.1
