"""Fixtures for a test module that says `pytest_plugins = "tests.fixtures"`."""

from pathlib import Path

import pytest

from spirit.pipeline import Spirit
from tests.bundle import build, build_tokenizer


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random model; read it, do not write to it."""
    return build(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random tokenizer; read it, do not write to it."""
    home = tmp_path_factory.mktemp("tokenizer") / "tiny"
    build_tokenizer(home)
    return home


@pytest.fixture(scope="session")
def spirit(bundle: Path) -> Spirit:
    """That model, loaded."""
    return Spirit.load(bundle, device="cpu")
