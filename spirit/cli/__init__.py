"""The command line: parse, import, call, print. Heavy imports stand inside the verbs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from spirit import __version__
from spirit.cli.align import align
from spirit.cli.evaluate import evaluate
from spirit.cli.export import export
from spirit.cli.generate import generate, resynth
from spirit.cli.options import (
    PATH,
    Verbs,
    debug,
    device_option,
    json_option,
    print_json,
    recipe_argument,
    set_option,
)
from spirit.cli.preview import preview
from spirit.cli.text import tokenize_text


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="spirit")
@click.option("--local_rank", "--local-rank", hidden=True, expose_value=False)  # from launchers
@debug
def main() -> None:
    """Speech and text as one stream of tokens: tokenize, train, generate, speak."""


def verb(**settings: Any) -> Callable[[Callable[..., None]], click.Command]:
    """A command of `main` that knows `--debug`."""

    def register(function: Callable[..., None]) -> click.Command:
        return main.command(**settings)(debug(function))

    return register


@verb()
@click.argument("corpus", required=False)
@click.option(
    "--tokenizer",
    default="tokenizers/tiny",
    show_default=True,
    help="The tokenizer's folder, or Spirit LM's speech_tokenizer/.",
)
@click.option("--out", type=PATH, metavar="FOLDER", help="Where the shards go.")
@click.option("--text", "as_text", is_flag=True, help="CORPUS is text: write token shards of it.")
@click.option(
    "--verify",
    type=PATH,
    metavar="FOLDER",
    help="Check shards instead; with a corpus, that nothing of it is lost.",
)
@click.option("--root", type=PATH, metavar="FOLDER", help="Where relative paths of audio start.")
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="KEY=NAME",
    help="Parquet: which column is audio, text, id, speaker, language or seconds.",
)
@click.option(
    "--variant",
    type=click.Choice(["base", "expressive"]),
    default="expressive",
    show_default=True,
    help="HuBERT units alone, or with pitch and style.",
)
@click.option(
    "--dtype",
    type=click.Choice(["auto", "fp32", "bf16"]),
    default="auto",
    show_default=True,
    help="HuBERT's precision; auto: bf16 on a GPU, fp32 elsewhere and for released tokenizers.",
)
@click.option("--part", default="0/1", metavar="I/N", help="Every N-th part, from the I-th, only.")
@click.option("--workers", type=int, default=1, show_default=True, help="Processes.")
@click.option(
    "--ray",
    metavar="ADDRESS",
    help="Workers on Ray: local, auto or HOST:PORT of a cluster that sees the same folders.",
)
@device_option
@json_option
def tokenize(
    corpus: str | None,
    tokenizer: str,
    out: Path | None,
    as_text: bool,
    verify: Path | None,
    part: str,
    columns: tuple[str, ...],
    as_json: bool,
    **settings: Any,
) -> None:
    """Turn a corpus into unit shards, or check shards (--verify).

    CORPUS is a folder of audio, a JSONL manifest, a Kaldi data folder or its wav.scp, a Parquet
    file or a folder of them, or a manifest of Lhotse's cuts; a manifest may be a URL. With --text:
    plain text (a document a line), JSON lines or Parquet, or a folder of them.
    """
    index, slash, parts = part.partition("/")
    if not (slash and index.isdigit() and parts.isdigit()):
        raise click.BadParameter(f"{part!r} is not like 3/16", param_hint="--part")
    named = dict(column.partition("=")[::2] for column in columns)
    if verify is not None:
        _verify(verify, corpus, settings["root"], named, as_json)
        return
    if corpus is None or out is None:
        raise click.UsageError("give a CORPUS and --out FOLDER, or --verify FOLDER")
    if as_text:
        tokenize_text(Path(corpus), tokenizer, out, settings["workers"], as_json)
        return
    from spirit import prepare
    from spirit.pipeline import find

    share = (int(index), int(parts))
    made = prepare.tokenize(corpus, find(tokenizer), out, part=share, columns=named, **settings)
    if as_json:
        print_json({"out": str(out), **made})
    else:
        slowest, stages = made["slowest"], made["stages"]
        work = f"{stages[slowest]:.1f} of {sum(stages.values()):.1f} s of work"
        silent = "" if made["with_text"] else " (none with a text)"
        click.echo(
            f"{out}: {made['utterances']} utterances{silent}, {made['hours']:.2f} hours in "
            f"{made['parts']} parts, {made['rejected']} rejected, {made['x_real_time']:.0f} times "
            f"real time; slowest: {slowest}, {work}"
        )


main.add_command(align)


def _verify(
    folder: Path, corpus: str | None, root: Path | None, columns: dict[str, str], as_json: bool
) -> None:
    from spirit.data.corpus import read_corpus
    from spirit.data.faults import find_faults

    against = None if corpus is None else read_corpus(corpus, root=root, columns=columns)
    faults = list(find_faults(folder, against))
    if as_json:
        print_json({"folder": str(folder), "faults": faults})
    else:
        for fault in faults or (f"{folder}: whole",):
            click.echo(fault)
    if faults:
        raise SystemExit(1)


@main.group()
def fit() -> None:
    """Train a part of a tokenizer, or a vocoder."""


def _fit(name: str, help: str) -> None:
    @fit.command(name, help=help)
    @recipe_argument
    @set_option
    @debug
    def command(recipe: Path, sets: tuple[str, ...]) -> None:
        figures = _fitting(name, recipe, sets)
        if figures:
            print_json(figures)


def _fitting(name: str, recipe: Path, sets: tuple[str, ...]) -> Any:
    from spirit import config

    if name == "vocoder":
        from spirit.engine import device
        from spirit.formats.encoders import find_ears
        from spirit.formats.spiritlm_vocoder import read_vocoder
        from spirit.speech.f0 import Autocorrelation
        from spirit.vocoder import train
        from spirit.vocoder.recipe import VocoderRecipe

        told = config.load(recipe, VocoderRecipe, sets)
        where = device(told.training.device)
        ears = None if told.ears is None else find_ears(told.ears).to(where)
        init = None if told.init is None else read_vocoder(told.init).voice
        return train.fit(told, Autocorrelation(device=where).batch, ears, init)
    from spirit import fit

    fits: dict[str, tuple[type, Callable[[Any], Any]]] = {
        "hubert": (fit.HubertFitConfig, fit.fit_hubert),
        "units": (fit.UnitsFitConfig, fit.fit_units),
        "robust": (fit.RobustFitConfig, fit.fit_robust),
        "pitch": (fit.PitchConfig, fit.fit_pitch),
        "style": (fit.StyleConfig, fit.fit_style),
        "tokenizer": (fit.TokenizerConfig, fit.fit_tokenizer),
    }
    form, function = fits[name]
    return function(config.load(recipe, form, sets))


_fit("hubert", "HuBERT by masked prediction: one iteration.")
_fit("units", "K-means units on a layer of a HuBERT.")
_fit("robust", "A quantizer whose units withstand noise, rooms and tempo, taught by k-means.")
_fit("pitch", "Pitch tokens: a VQ-VAE on F0.")
_fit("style", "Style tokens: a classifier of seconds.")
_fit("tokenizer", "The parts as one folder, with vocabulary and fingerprint.")
_fit("vocoder", "The vocoder with its durations.")


main.add_command(preview)


@verb()
@recipe_argument
@set_option
def train(recipe: Path, sets: tuple[str, ...]) -> None:
    """Train a language model on unit shards; goes on where it was stopped.

    Several processes: deepspeed --module spirit train RECIPE, or torchrun -m spirit train RECIPE.
    """
    from spirit import config
    from spirit.engine import main_process
    from spirit.lm.train import LMRecipe
    from spirit.lm.train import train as run

    folder = run(config.load(recipe, LMRecipe, sets))
    if main_process():
        click.echo(folder)


main.add_command(generate)
main.add_command(resynth)
main.add_command(evaluate)


@verb()
@click.argument("source", type=PATH)
@click.argument("target", type=PATH)
def convert(source: Path, target: Path) -> None:
    """Foreign pickles, a file or a folder of them, to safetensors; nothing in them is run."""
    from spirit.formats.foreign import convert as write

    for path in write(source, target):
        click.echo(path)


main.add_command(export)


@verb()
@click.argument("path", type=PATH)
@json_option
def info(path: Path, as_json: bool) -> None:
    """Say what a recording, tokenizer, model, folder of shards or training is."""
    from spirit import bundle
    from spirit.info import describe

    if not path.exists() and not path.is_absolute():
        path = bundle.locate(str(path)) or path
    facts = describe(path)
    if as_json:
        print_json(facts)
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        click.echo(f"{name:<{width}}  {_shown(value)}")


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(entry)}" for key, entry in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)
