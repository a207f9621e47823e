"""The wheel: complete, and enough on its own."""

import configparser
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from spirit.eval.tiny import digest

ROOT = Path(__file__).parents[1]
PACKAGES = configparser.ConfigParser()
PACKAGES.read(ROOT / "setup.cfg")


def test_setup_cfg_names_every_package():
    named = set(PACKAGES["options"]["packages"].split())
    found = {
        ".".join(path.parent.relative_to(ROOT).parts) for path in ROOT.glob("spirit/**/__init__.py")
    }
    assert named == found | {"spirit.bundle.checkpoints", "spirit.bundle.tokenizers"}


def test_the_folder_tokenizers_does_not_shadow_the_package_of_that_name():
    assert not list(ROOT.glob("tokenizers/**/__init__.py"))
    import tokenizers

    assert hasattr(tokenizers, "Tokenizer")


def test_the_bundle_is_small_and_its_figures_were_measured_on_it():
    model, tokenizer = ROOT / "checkpoints/tiny", ROOT / "tokenizers/tiny"
    files = [path for folder in (model, tokenizer) for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 40_000_000
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".toml", ".md"}
    card = (model / "README.md").read_text(encoding="utf-8")
    assert digest(model) in card
    assert digest(tokenizer) in card
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    results = readme.partition("<!-- results")[2].partition("<!-- /results")[0]
    rows = [line for line in results.splitlines() if line.startswith(("| ", "1. "))]
    assert len(rows) > 20
    assert [row for row in rows if row not in card] == []


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The wheel, built from the files of the checkout and unpacked as an installer would."""
    work = tmp_path_factory.mktemp("wheel")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, work / name)
    for name in ("spirit", "tokenizers/tiny", "checkpoints/tiny"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, work / "source" / name, ignore=ignore)
    for path in (work / "source").iterdir():
        path.rename(work / path.name)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist", "."]
    done = subprocess.run(build, cwd=work, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (wheel,) = (work / "dist").glob("spirit-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(work / "site")
    return work / "site"


def test_the_wheel_holds_the_bundle_and_no_top_level_tokenizers(unpacked):
    tops = {path.name for path in unpacked.iterdir() if not path.name.endswith(".dist-info")}
    assert tops == {"spirit"}
    for name in ("tokenizers/tiny", "checkpoints/tiny"):
        inside = {p.relative_to(ROOT / name) for p in (ROOT / name).rglob("*") if p.is_file()}
        shipped = unpacked / "spirit" / "bundle" / name
        assert {p.relative_to(shipped) for p in shipped.rglob("*") if p.is_file()} == inside


def test_in_an_empty_folder_the_installed_wheel_speaks(unpacked, tmp_path):
    command = (
        "import sys; sys.path = [p for p in sys.path if p]; from spirit.cli import main; main()"
    )
    asked = ["--prompt-text", "the weather in paris is", "--want", "speech", "--out", "reply.wav"]
    done = subprocess.run(
        [sys.executable, "-c", command, "generate", *asked],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    import soundfile

    info = soundfile.info(tmp_path / "reply.wav")
    assert (info.samplerate, info.channels) == (16_000, 1)
    assert info.duration > 0.3
    assert [path.name for path in tmp_path.iterdir()] == ["reply.wav"]
