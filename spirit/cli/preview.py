"""The verb `preview`: what training will read."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from spirit.cli.options import debug, json_option, print_json, recipe_argument, set_option

COLOURS = {"St": "magenta", "Pi": "yellow", "Hu": "green"}


@click.command()
@recipe_argument
@click.option(
    "--row", type=click.IntRange(0), help="Which packed row of the training, from 0  [default: 0]"
)
@click.option("--document", metavar="ID", help="One document: the id of an utterance, or a number.")
@click.option("--epoch", type=click.IntRange(0), help="In which epoch it is drawn  [default: 0]")
@click.option(
    "--source",
    type=click.Choice(["interleaved", "speech", "text", "transcribe", "speak"]),
    help="Which document is made of it  [default: the first that the recipe wants]",
)
@click.option("--units/--no-units", default=True, help="Print units, or how many they are.")
@set_option
@json_option
@debug
def preview(
    recipe: Path,
    row: int | None,
    document: str | None,
    epoch: int | None,
    source: Any,
    units: bool,
    sets: tuple[str, ...],
    as_json: bool,
) -> None:
    """Print a row that training will read, or a document of any epoch: markers, text, and the units
    of speech by word. The rows before it are planned too, which takes its time for late ones."""
    if row is not None and document is not None:
        raise click.UsageError("give --row or --document, not both")
    if document is None and (epoch is not None or source is not None):
        raise click.UsageError("--epoch and --source belong to --document ID")
    from spirit import config
    from spirit.codec import Codec, HFText
    from spirit.data.loader import Rows
    from spirit.data.preview import document_facts, row_facts
    from spirit.lm.train import LMRecipe
    from spirit.vocab import Vocab

    told = config.load(recipe, LMRecipe, sets)
    text, vocab = HFText.load(told.tokenizer / "text.json"), told.tokenizer / "vocab.json"
    rows = Rows(replace(told.mixture, workers=0), Codec(text, Vocab.load(vocab)))
    if document is None:
        facts = row_facts(rows, row or 0)
    else:
        source = source or next(iter(rows.counts))
        number = rows.documents.find(document)
        if number not in rows.documents.of(source):
            raise ValueError(f"{document} cannot become a document of the source {source}")
        facts = document_facts(rows.documents, source, epoch or 0, number)
    if as_json:
        print_json(facts)
        return
    colour = False if os.environ.get("NO_COLOR") else None  # None: where it is a terminal
    for line in _lines(facts, units):
        click.echo(line, color=colour)


def _lines(facts: Mapping[str, Any], units: bool) -> Iterator[str]:
    if "documents" not in facts:
        yield from _document(facts, units)
        return
    share = facts["used"] / facts["positions"]
    yield click.style(
        f"row {facts['row']} (step {facts['step']}): {facts['used']:,} of {facts['positions']:,} "
        f"positions used ({share:.1%}), {len(facts['documents'])} document(s)",
        bold=True,
    )
    for document in facts["documents"]:
        yield ""
        yield from _document(document, units)


def _document(facts: Mapping[str, Any], units: bool) -> Iterator[str]:
    piece = f", {facts['start']:,} to {facts['stop']:,} of them here" if "start" in facts else ""
    yield click.style(
        f"{facts['source']}, epoch {facts['epoch']}, {facts['id']}: {facts['tokens']:,} "
        f"tokens{piece}",
        bold=True,
    )
    for segment in facts["segments"]:
        marker = click.style(f"{segment['marker']:<9}", dim=True)
        if segment["kind"] == "text":
            yield marker + click.style(segment["text"], fg="cyan")
            continue
        words = segment.get("words") or [{"word": "", "units": segment["units"]}]
        shown = _units if units else _count
        said = (f"{click.style(w['word'], bold=True)} {shown(w['units'])}".strip() for w in words)
        yield marker + click.style(" | ", dim=True).join(said)


def _count(units: str) -> str:
    """How many units there are."""
    return click.style(f"({units.count('[')})", dim=True)


def _units(units: str) -> str:
    """Units as they are written, each kind in its colour."""
    return re.sub(
        r"\[(St|Pi|Hu)\d+\]", lambda match: click.style(match[0], fg=COLOURS[match[1]]), units
    )
