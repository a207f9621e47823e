"""The verb that takes a model elsewhere: `spirit export`."""

from pathlib import Path

import click

from spirit.cli.options import PATH, debug, json_option, print_json


@click.command()
@click.argument("model")
@click.argument("out", type=PATH)
@click.option(
    "--to",
    "form",
    type=click.Choice(["hf", "gguf"]),
    default="hf",
    show_default=True,
    help="A plain folder for transformers, vLLM and PEFT, or a file for llama.cpp.",
)
@click.option(
    "--llama-cpp",
    type=PATH,
    metavar="FOLDER",
    help="gguf: llama.cpp's source, of which the converter is run; else LLAMA_CPP, else the path.",
)
@json_option
@debug
def export(model: str, out: Path, form: str, llama_cpp: Path | None, as_json: bool) -> None:
    """Write MODEL as OUT, for programs that do not know spirit; every unit is a named token."""
    from spirit.export import export_gguf, export_hf

    facts = export_hf(model, out) if form == "hf" else export_gguf(model, out, llama_cpp)
    if as_json:
        print_json(facts)
        return
    click.echo(out)
    if facts.get("same_ids") is False:
        click.echo(
            f"spirit: for a {facts['class']} the installed transformers builds a tokenizer by "
            "rules of its own; load tokenizer.json with PreTrainedTokenizerFast, not AutoTokenizer",
            err=True,
        )
    if facts.get("checked") is False:
        click.echo(
            "spirit: the file was not read again; pip install '.[gguf]' to have it checked",
            err=True,
        )
