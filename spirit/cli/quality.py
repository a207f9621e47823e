"""`spirit eval resynth` and `spirit eval generation`: how a model sounds, and what it says."""

from pathlib import Path
from typing import Any

import click

from spirit.cli.measuring import data_option, jobs_option, out_option, tell
from spirit.cli.options import PATH, debug, device_option, json_option, model_option

limit_option = click.option(
    "--limit", type=click.IntRange(0), default=0, help="The first N utterances only."
)
recognizer_option = click.option(
    "--recognizer",
    type=PATH,
    metavar="FOLDER",
    help="A recognizer of Hugging Face in place of pocketsphinx.",
)
mos_option = click.option(
    "--mos",
    type=PATH,
    metavar="PATH",
    help="A predictor of naturalness (UTMOS and its like): TorchScript, or a folder of Hugging "
    "Face.",
)


@click.command()
@model_option
@data_option(None, "A corpus, as `spirit tokenize` reads it.")
@out_option("report/resynth")
@click.option("--speaker", help="The voice of all [default: each recording's, where it is known].")
@click.option("--predict-durations", is_flag=True, help="In a rhythm of the model's own.")
@recognizer_option
@mos_option
@limit_option
@jobs_option
@device_option
@json_option
@debug
def resynth(model: str, data: Path, out: Path, as_json: bool, **settings: Any) -> None:
    """Recordings against what the model makes of them again: words, melody, spectrum, rate."""
    from spirit.eval import resynthesis

    tell(out, resynthesis.evaluate(model, data, out, **settings).markdown(), as_json)


@click.command()
@model_option
@data_option(None, "A corpus whose utterances are cut short and continued.")
@out_option("report/generation")
@click.option(
    "--from",
    "given",
    type=click.Choice(["speech", "text"]),
    default="speech",
    show_default=True,
    help="What is given: the beginning of a recording, or half of its words.",
)
@click.option(
    "--want",
    type=click.Choice(["speech", "text", "any"]),
    default="speech",
    show_default=True,
    help="What is asked for.",
)
@click.option(
    "--prompt-seconds",
    type=click.FloatRange(0.1),
    default=3.0,
    show_default=True,
    help="Of a recording; shorter ones are left out.",
)
@recognizer_option
@click.option(
    "--lm",
    type=PATH,
    metavar="FOLDER",
    help="A language model of Hugging Face tells the perplexity [default: the model itself].",
)
@click.option(
    "--toxicity",
    type=PATH,
    metavar="PATH",
    help="A text classifier of Hugging Face, or a file of words and phrases, one a line.",
)
@click.option(
    "--toxic-label", default="toxic", show_default=True, help="The classifier's label for it."
)
@mos_option
@click.option("--seed", type=int, default=0, show_default=True)
@limit_option
@jobs_option
@device_option
@json_option
@debug
def generation(model: str, data: Path, out: Path, as_json: bool, **settings: Any) -> None:
    """How a model goes on, without references: diversity, perplexity, toxicity, rate."""
    from spirit.eval import generation as suite

    tell(out, suite.evaluate(model, data, out, **settings).markdown(), as_json)
