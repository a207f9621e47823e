"""What the verbs of the command line share: errors in one line, options, JSON."""

import re
import sys
from pathlib import Path
from typing import Any

import click

PATH = click.Path(path_type=Path)
EXTRAS = {
    "deepspeed": "train",
    "faiss": "train",
    "pyarrow": "train",
    "tensorboard": "train",
    "jiwer": "eval",
    "pocketsphinx": "eval",
    "sklearn": "eval",
    "scikit-learn": "eval",
    "sacrebleu": "eval",
    "pystoi": "quality",
    "pesq": "quality",
    "torchaudio": "align",
    "torchfcpe": "audio",
    "librosa": "audio",
    "parselmouth": "pitch",
    "pyworld": "pitch",
    "matplotlib": "demo",
    "sentencepiece": "sentencepiece",
    "gguf": "gguf",
    "ray": "ray",
    "sounddevice": "play",
    "fairseq2": "fairseq2",
}
"""Which extra of the package brings a module that the base install lacks."""


class Verbs(click.Group):
    """Verbs whose failures are one line: exit code 1, or 2 for what was typed wrongly."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order of a pipeline, not of the alphabet

    def invoke(self, ctx: click.Context) -> Any:
        try:
            answer = super().invoke(ctx)
            sys.stdout.flush()  # a full disk under the output shows only here
            return answer
        except KeyboardInterrupt as stop:
            click.echo(f"spirit: {str(stop) or 'interrupted'}", err=True)
            ctx.exit(1)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if ctx.meta.get("debug"):
                raise
            click.echo(f"spirit: {_line(error)}", err=True)
            ctx.exit(1)


def _line(error: Exception) -> str:
    """An error as one line."""
    text = " ".join(str(error).split())
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] in EXTRAS:
        name = str(error.name).split(".")[0]
        return f"{name} is not installed; run: pip install '.[{EXTRAS[name]}]'"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, ValueError | OSError):
        return text
    if (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in text
    ):
        return _full(text)
    return f"unexpected {type(error).__name__}: {text} (--debug shows where)"


def _full(text: str) -> str:
    """How much memory was needed, as torch and numpy say it, and what may help."""
    asked = re.search(r"allocate ([\d.]+) ?([kKMGT]i?B|bytes)", text)
    needed = "what was asked for"
    if asked is not None:
        needed = f"another {asked[1]} {asked[2]}"
        if asked[2] == "bytes":
            needed = f"another {float(asked[1]) / 1e9:.1f} GB"
    return (
        f"out of memory: there is no room for {needed}; it may help: a shorter recording or "
        "prompt, --device cpu, or for a language model --dtype int8"
    )


class Ordered(click.Command):
    """A verb that also knows in which order its options were typed."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        *_, order = self.make_parser(ctx).parse_args(list(args))
        ctx.meta["order"] = [parameter.name for parameter in order]
        return super().parse_args(ctx, args)


def _debug(ctx: click.Context, _: click.Parameter, on: bool) -> None:
    if on:
        ctx.meta["debug"] = True


debug = click.option(
    "--debug",
    is_flag=True,
    expose_value=False,
    callback=_debug,
    help="Show the traceback of an error.",
)
model_option = click.option(
    "--model",
    default="checkpoints/tiny",
    show_default=True,
    help="A model's folder, or a released Spirit LM's folder or name; else the bundled one.",
)
device_option = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
recipe_argument = click.argument("recipe", type=PATH)
set_option = click.option(
    "--set", "sets", multiple=True, metavar="KEY=VALUE", help="Put this in place of the recipe's."
)


def print_json(value: Any) -> None:
    import json

    click.echo(json.dumps(value, ensure_ascii=False, indent=1, default=str))


def load(model: str, device: str, dtype: Any = "auto") -> Any:
    from spirit.pipeline import Spirit

    return Spirit.load(model, device=device, dtype=dtype)
