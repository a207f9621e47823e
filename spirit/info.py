"""What a path holds, in a few facts: a recording, a tokenizer, a model, shards, a training, a text
model."""

import json
import tomllib
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

Facts = dict[str, Any]


def describe(path: Path) -> Facts:
    """Facts by name, in the order to print them; nothing large is read.

    Raises ValueError for a path that is none of the things this project makes or hears.
    """
    if path.suffix == ".toml" and path.is_file():
        raise ValueError(
            f"{path}: a recipe says by itself what it is; name what it made, or run `spirit "
            "preview` to see what a training would read"
        )
    if path.is_file():
        return _recording(path)
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder; check the path")
    for sign, facts in (
        ("tokenizer.toml", _tokenizer),
        ("spirit.toml", _model),
        ("manifest.json", _shards),
        ("tokens.json", _text_shards),
        ("state", _training),
        ("config.json", _text_model),
    ):
        if (path / sign).exists():
            return facts(path)
    raise ValueError(
        f"{path}: neither a tokenizer (tokenizer.toml), a model (spirit.toml), unit shards "
        "(manifest.json), text shards (tokens.json), a training (state/) nor a network "
        "(config.json); name one of these or a recording; a corpus becomes shards by `spirit "
        "tokenize`"
    )


def _recording(path: Path) -> Facts:
    from spirit.audio import describe_audio

    return {"kind": "recording", **describe_audio(path)}


def _tokenizer(path: Path) -> Facts:
    card = _toml(path / "tokenizer.toml")
    return {
        "kind": "tokenizer",
        **{key: value for key, value in card.items() if not isinstance(value, dict)},
        **_vocabulary(_json(path / "vocab.json")),
        **_weights(path),
    }


def _model(path: Path) -> Facts:
    card, config = _toml(path / "spirit.toml"), _json(path / "config.json")
    vocab = path / "vocab.json"
    if not vocab.is_file():  # an export: the tokenizer that is copied along has it
        vocab = path / str(card.get("tokenizer", "")) / "vocab.json"
    facts = {
        "kind": "model",
        **{key: value for key, value in card.items() if not isinstance(value, dict)},
        **_network(config),
        **_vocabulary(_json(vocab)),
        **_weights(path),
    }
    vocoder = path / "vocoder"
    style = path / str(card.get("tokenizer", "")) / "style.json"
    styles = _json(style).get("names") if style.is_file() else None
    if vocoder.is_dir():
        facts |= {f"vocoder_{key}": value for key, value in _weights(vocoder).items()}
        voice = _json(vocoder / "config.json")
        facts["speakers"] = voice.get("speakers")
        styles = voice.get("styles") or styles  # as `Spirit.styles` has them
    if styles:
        facts["styles"] = styles
    return facts


def _text_model(path: Path) -> Facts:
    config = _json(path / "config.json")
    if not config.get("architectures"):
        raise ValueError(
            f"{path}: its config.json describes no model of transformers; name a tokenizer, a "
            "model, unit shards, a training or a recording"
        )
    return {
        "kind": "network in Hugging Face's format",
        **_network(config),
        "tokens": config.get("vocab_size"),
        **_weights(path),
    }


def _network(config: Facts) -> Facts:
    return {
        "class": ", ".join(config.get("architectures") or ()),
        "layers": config.get("num_hidden_layers"),
        "width": config.get("hidden_size"),
        "context_tokens": config.get("max_position_embeddings"),
    }


def _shards(path: Path) -> Facts:
    manifest = _json(path / "manifest.json")
    if "contents" not in manifest and str(manifest.get("format")).startswith("spirit-units"):
        from spirit.data.contents import read_contents

        files = [path / part["file"] for part in manifest.get("parts", ())]
        manifest["contents"] = read_contents(file for file in files if file.is_file())
    keys = ("format", "tokenizer", "fingerprint", "variant", "dtype", "windows", "rows", "rejected")
    return {
        "kind": "unit shards",
        **{key: manifest[key] for key in (*keys, "hours", "units") if key in manifest},
        **_contents(manifest.get("contents", {})),
        **({"alignment": manifest["alignment"]["settings"]} if "alignment" in manifest else {}),
        "parts": len(manifest.get("parts", ())),
    }


def _text_shards(path: Path) -> Facts:
    manifest = _json(path / "tokens.json")
    keys = ("format", "vocabulary", "documents", "tokens")
    return {
        "kind": "text shards",
        **{key: manifest[key] for key in keys if key in manifest},
        "parts": len(manifest.get("parts", ())),
    }


def _contents(found: Facts) -> Facts:
    """How many rows have what, and whose and which speech it is."""
    if not found:
        return {}
    return {
        **{f"with_{key}": found[key] for key in ("text", "words", "style", "speaker")},
        "speakers": found["speakers"],
        "hours_by_language": {name or "unknown": h for name, h in found["hours"].items()},
    }


def _training(path: Path) -> Facts:
    steps = sorted(folder.name for folder in (path / "state").glob("step-*"))
    recipes = sorted(file.name for file in path.glob("*.toml"))
    return {
        "kind": "training",
        "checkpoints": steps,
        "step": int(steps[-1].removeprefix("step-")) if steps else 0,
        **({"recipes": recipes} if recipes else {}),
    }


def _vocabulary(manifest: Facts) -> Facts:
    units = manifest.get("units", {})
    return {
        "tokens": manifest.get("size"),
        "text_tokens": manifest.get("text_tokens"),
        "units": {kind: block.get("count") for kind, block in units.items()},
        "vocabulary": manifest.get("fingerprint"),
    }


def _weights(folder: Path) -> Facts:
    files = sorted(folder.glob("*.safetensors"))
    return {
        "parameters": sum(size for file in files for size in _sizes(file)),
        "megabytes": round(sum(file.stat().st_size for file in files) / 1e6, 1),
    }


def _sizes(file: Path) -> Iterator[int]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (not a dict)
                yield prod(tensors.get_slice(name).get_shape())
    except SafetensorError as error:
        raise ValueError(f"{file}: not safetensors ({error}); copy it again") from None


def _json(path: Path) -> Facts:
    try:
        facts: Facts = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} is missing; the folder is not complete") from None
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}); restore the file") from None
    return facts


def _toml(path: Path) -> Facts:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not TOML ({error}); restore the file") from None
