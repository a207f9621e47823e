"""Whether everything that a training reads is there, looked at before anything takes minutes."""

import json
import tomllib
from collections.abc import Iterable
from pathlib import Path

from spirit.data.loader import MixtureConfig
from spirit.data.shards import read_manifest


def fingerprint(tokenizer: Path, folders: Iterable[Path]) -> str:
    """Of the tokenizer that made all the shards. Raises ValueError if it is not the recipe's.

    Two tokenizers may have one vocabulary and mean different sounds by the same unit.
    """
    path = tokenizer / "tokenizer.toml"
    try:
        wanted = str(tomllib.loads(path.read_text(encoding="utf-8"))["fingerprint"])
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        raise ValueError(f"{path} is missing or damaged; give a tokenizer folder") from None
    for folder in folders:
        found = read_manifest(folder)["tokenizer"]["fingerprint"]
        if found != wanted:
            raise ValueError(
                f"{folder} was made by the tokenizer {found}, but {tokenizer} is {wanted}; "
                f"run `spirit tokenize` again with --tokenizer {tokenizer}"
            )
    return wanted


def check(init: Path | None, texts: Iterable[Path], mixture: MixtureConfig) -> None:
    """Raise ValueError where the model to start from or a text for retention is not there, or the
    model has fewer positions than a row."""
    if init is not None:
        if not init.is_dir():
            raise ValueError(f"{init}: no such model folder; check `init` in the recipe")
        try:
            settings = json.loads((init / "config.json").read_text(encoding="utf-8"))
            positions = int(settings["max_position_embeddings"])
        except (OSError, ValueError, KeyError, TypeError):
            positions = mixture.row  # whoever reads the model has words for that
        mixture.check_positions(positions)
    for path in texts:
        if not path.is_file():
            raise ValueError(f"{path}: no such file; check `retention.texts` in the recipe")
