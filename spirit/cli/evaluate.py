"""The verb `eval`: what a model can do, measured."""

from pathlib import Path
from typing import Any

import click

from spirit.cli import quality
from spirit.cli.measuring import data_option, jobs_option, left_out, out_option, tell
from spirit.cli.options import PATH, debug, device_option, json_option, model_option, print_json

LIKELIHOODS = {
    "swuggy": "Words against what might be words (ZeroSpeech 2021): lexical/{dev,test}.",
    "sblimp": "Sentences that are grammatical and not (ZeroSpeech 2021): syntactic/{dev,test}.",
    "prosaudit": "Pauses in the right and in the wrong places: english/{dev,test}.",
    "storycloze": "Spoken and topic StoryCloze: the right and the wrong ending of a story.",
    "salmon": "SALMon: is what sounds consistent likelier?",
    "mmlu": "Multiple choice in text alone, five examples before each question.",
}
FEW_SHOT = {
    "asr": "Speech to text by examples: word and character errors.",
    "tts": "Text to speech by examples: errors of pocketsphinx on the answers.",
    "intent": "What a speaker wants, by examples: the `style` of an utterance is its intent.",
}


@click.group(name="eval")
@debug
def evaluate() -> None:
    """Measure what a model can do."""


evaluate.add_command(quality.resynth)
evaluate.add_command(quality.generation)


@evaluate.command()
@model_option
@data_option("recipes/tiny/work/corpus/heldout.jsonl", "A corpus that was not trained on.")
@out_option("recipes/tiny/work/eval")
@click.option(
    "--limit", type=click.IntRange(1), default=200, show_default=True, help="Synthetic utterances."
)
@click.option(
    "--prompts",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="Prompts to go on from.",
)
@click.option(
    "--language",
    type=PATH,
    metavar="MODULE",
    help="Judge continuations by the language of this Python file: recipes/tiny/language.py.",
)
@jobs_option
@device_option
@json_option
@debug
def tiny(model: str, data: Path, out: Path, as_json: bool, **settings: Any) -> None:
    """The bundled model on its own language, with an independent ear."""
    from spirit.eval.report import markdown
    from spirit.eval.tiny import evaluate_tiny

    tell(out, markdown(evaluate_tiny(model, data, out, **settings)), as_json)


def _likelihood(name: str, what: str) -> None:
    """A command for one suite."""

    @evaluate.command(name=name, help=f"{what} The layout is that of the download.")
    @model_option
    @data_option(None, "The folder that the suite was unpacked into.")
    @out_option(f"report/{name}")
    @click.option(
        "--split",
        type=click.Choice(["dev", "test"]),
        default="dev",
        show_default=True,
        help="A test split without answers is scored for its submission file.",
        hidden=name in ("storycloze", "salmon"),
    )
    @click.option("--limit", type=click.IntRange(0), default=0, help="The first N choices only.")
    @jobs_option
    @device_option
    @json_option
    @debug
    def command(model: str, data: Path, out: Path, as_json: bool, **settings: Any) -> None:
        from spirit.eval import likelihood

        verdict = likelihood.evaluate(name, model, data, out, **settings)
        tell(out, likelihood.markdown(verdict), as_json)


for _name, _what in LIKELIHOODS.items():
    _likelihood(_name, _what)


def _few_shot(name: str, what: str) -> None:
    """A command for one task."""

    @evaluate.command(name=name, help=f"{what} Prompts and answers are kept in answers.jsonl.")
    @model_option
    @data_option(None, "A corpus, as `spirit tokenize` reads it.")
    @out_option(f"report/{name}")
    @click.option(
        "--examples", type=PATH, help="The corpus that examples are drawn from [default: --data]."
    )
    @click.option(
        "--shots",
        type=click.IntRange(0),
        help="Examples [default: the paper's]; 0 asks in the shape of the model's training.",
    )
    @click.option(
        "--stop",
        type=PATH,
        hidden=name != "tts",
        help='A recording of the word "stop", which ends each example [default: none, but of the '
        "released base model the paper's].",
    )
    @click.option("--limit", type=click.IntRange(0), default=0, help="The first N utterances only.")
    @click.option("--seed", type=int, default=0, show_default=True)
    @jobs_option
    @device_option
    @json_option
    @debug
    def command(model: str, data: Path, out: Path, as_json: bool, **settings: Any) -> None:
        from spirit.eval import fewshot

        verdict = fewshot.evaluate(name, model, data, out, **settings)  # type: ignore[arg-type]
        lines = [f"| {name}, {verdict.shots} shots | (95 % interval) | clips |", "|---|---|---|"]
        for key, figure in verdict.figures.items():
            lines.append(f"| {key} | {figure.percent()} | {figure.count} |")
        lines += ["", left_out(verdict.skipped)]
        tell(out, "\n".join(lines), as_json)


for _name, _what in FEW_SHOT.items():
    _few_shot(_name, _what)


@evaluate.command()
@model_option
@data_option(None, "The folder that STSP was unpacked into.")
@out_option("report/stsp")
@click.option(
    "--manifest",
    type=PATH,
    required=True,
    help="The samples: manifest/emov/emov.test.jsonl.",
)
@click.option(
    "--direction",
    type=click.Choice(["s2s", "s2t", "t2s", "t2t"]),
    default="t2t",
    show_default=True,
    help="From speech or text to speech or text.",
)
@click.option(
    "--shots", type=click.IntRange(0, 9), default=0, show_default=True, help="Examples before each."
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--classifier", type=PATH, help="A Hugging Face folder that tells the mood of the answers."
)
@click.option(
    "--predictions", type=PATH, help='Score these lines {"id", "pred"} instead of a model.'
)
@click.option(
    "--label",
    type=click.Choice(["sentiment", "emotion"]),
    default="sentiment",
    show_default=True,
    help="What --predictions are of.",
)
@jobs_option
@device_option
@json_option
@debug
def stsp(
    model: str,
    data: Path,
    out: Path,
    manifest: Path,
    direction: str,
    classifier: Path | None,
    predictions: Path | None,
    label: str,
    as_json: bool,
    **settings: Any,
) -> None:
    """Speech-text sentiment preservation: is an answer in the mood of its prompt?"""
    from spirit.engine import ranks
    from spirit.eval import judges
    from spirit.eval import stsp as suite
    from spirit.eval.stsp_data import score_predictions
    from spirit.eval.tiny import ALL, digest

    if predictions is not None:
        figure = score_predictions(predictions, manifest, data, label)
        click.echo(f"Accuracy: {figure.percent()} of {figure.count} predictions, by {label}")
        return
    if classifier is None:
        raise click.UsageError("--classifier tells the mood of the answers; give a folder")
    spoken = direction.endswith("s")
    make = judges.speech_judge if spoken else judges.text_judge
    judge = make(classifier, str(ranks.device(settings["device"])))
    verdict = suite.evaluate(
        model,
        data,
        manifest,
        out,
        judge,
        direction=direction,
        judge_name=f"{classifier.name} {digest(classifier, ALL)[:12]}",
        **settings,
    )
    lines = [f"| {direction}, {verdict.shots} shots | right | samples |", "|---|---|---|"]
    for name, figure in {"all": verdict.accuracy, **verdict.by_sentiment}.items():
        lines.append(f"| {name} | {figure.percent()} | {figure.count} |")
    lines += ["", left_out(verdict.skipped)]
    tell(out, "\n".join(lines), as_json)


@evaluate.command(name="all")
@model_option
@data_option(
    "data/suites",
    "A folder with a folder for each suite, and for tiny, asr, tts, intent, resynth, generation.",
)
@out_option("report")
@click.option(
    "--limit", type=click.IntRange(0), default=0, help="The first N items of each suite only."
)
@click.option(
    "--shots",
    type=click.IntRange(0),
    help="Examples of asr, tts and intent [default: the paper's].",
)
@jobs_option
@device_option
@json_option
@debug
def everything(model: str, data: Path, out: Path, as_json: bool, **settings: Any) -> None:
    """Every suite that there is data for: JSON, a table, and a page to look at and listen to."""
    from spirit.eval.everything import evaluate_all

    evaluate_all(model, data, out, **settings)
    tell(out, (out / "README.md").read_text(encoding="utf-8"), as_json)


@evaluate.command()
@click.argument("first", type=PATH)
@click.argument("second", type=PATH)
@json_option
@debug
def compare(first: Path, second: Path, as_json: bool) -> None:
    """Two reports side by side: differences on the items of both, with 95 % intervals."""
    from dataclasses import asdict

    from spirit.eval import compare as comparison

    found = comparison.compare(first, second)
    if as_json:
        print_json([asdict(one) for one in found])
    else:
        click.echo(comparison.markdown(found, str(first), str(second)))
    for line in comparison.unshared(first, second):
        click.echo(line, err=True)
