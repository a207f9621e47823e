"""The verb `align`: word times for unit shards."""

from pathlib import Path
from typing import Any

import click

from spirit.cli.options import PATH, debug, device_option, json_option, print_json


@click.command()
@click.argument("folder", metavar="DIR", type=PATH)
@click.option(
    "--aligner",
    type=click.Choice(["pocketsphinx", "ctc", "given"]),
    default="pocketsphinx",
    show_default=True,
    help="English, offline; a CTC model; times from files.",
)
@click.option(
    "--model",
    type=PATH,
    metavar="FOLDER",
    help="ctc: a Hugging Face folder; fairseq2:NAME or fairseq2:CARD.yaml for fairseq2's.",
)
@click.option(
    "--times", type=PATH, metavar="PATH", help="given: JSONL, CTM, or a folder of TextGrids."
)
@click.option("--tier", default="words", show_default=True, help="The tier of TextGrids to take.")
@click.option(
    "--corpus", type=PATH, metavar="PATH", help="Where the recordings are, if they were moved."
)
@click.option(
    "--min-score",
    type=float,
    metavar="X",
    help="Keep no words of an utterance with one below X, 0 to 1 "
    "[default: 0.3 with pocketsphinx, 0.2 with ctc, 0 with given].",
)
@click.option("--workers", type=int, default=1, show_default=True, help="Processes.")
@device_option
@json_option
@debug
def align(
    folder: Path,
    min_score: float | None,
    corpus: Path | None,
    workers: int,
    as_json: bool,
    **choice: Any,
) -> None:
    """Put word times into the unit shards in DIR, which `spirit tokenize` made."""
    from spirit.align import Choice
    from spirit.align import align as run

    made = run(folder, Choice(**choice), min_score=min_score, corpus=corpus, workers=workers)
    if as_json:
        print_json(made)
        return
    click.echo(
        f"{folder}: {made['aligned']} of {made['utterances']} utterances aligned, "
        f"{made['words']} words in {made['hours']:.2f} hours, mean score "
        f"{made['mean_score']:.2f}, {made['x_real_time']:.0f} times real time"
    )
    left = {"below the gate": made["gated"], **made["failed"], "no text": made["without_text"]}
    if any(left.values()):
        counts = ", ".join(f"{reason} {count}" for reason, count in left.items() if count)
        click.echo(f"without words: {counts} (unaligned.jsonl says why)")
