"""The verbs that answer: `spirit generate` and `spirit resynth`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from spirit.cli.answers import (
    Request,
    check_asked,
    check_streaming,
    choose_style,
    stream_answer,
    whole_answer,
)
from spirit.cli.options import (
    PATH,
    Ordered,
    debug,
    device_option,
    json_option,
    load,
    model_option,
    print_json,
)
from spirit.cli.shots import Shown, shot_options


def prosody_options(function: Callable[..., None]) -> Callable[..., None]:
    """How it is said."""
    for option in (
        click.option(
            "--style",
            metavar="STYLE",
            help="Its name, a recording in that style, or sample to draw one; else the model's.",
        ),
        click.option(
            "--pitch", type=float, default=0.0, metavar="SEMITONES", help="Raise the voice."
        ),
        click.option("--rate", type=float, default=1.0, metavar="R", help="2 is twice as fast."),
    ):
        function = option(function)
    return function


@click.command(cls=Ordered)
@model_option
@click.option("--prompt-text", multiple=True, metavar="TEXT", help="A written part of the prompt.")
@click.option("--prompt-audio", multiple=True, metavar="FILE", help="A spoken part of the prompt.")
@click.option(
    "--want",
    type=click.Choice(["text", "speech", "any"]),
    default="any",
    show_default=True,
    help="What the answer may hold.",
)
@click.option(
    "--task",
    type=click.Choice(["continue", "transcribe", "speak"]),
    default="continue",
    show_default=True,
    help="Go on from the prompt, write its words down, or say them.",
)
@shot_options
@click.option(
    "--chain",
    is_flag=True,
    help="Go on by way of text: write down what is heard, go on in text, and say that.",
)
@click.option(
    "--out",
    type=PATH,
    metavar="FILE",
    help="Where speech goes: wav, flac, ogg, opus; with --stream wav, raw, or - for stdout.",
)
@click.option("--stream", is_flag=True, help="Write speech while it is being made.")
@click.option("--play", is_flag=True, help="Play speech while it is being made.")
@click.option(
    "--look-ahead",
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="Speak so soon, less exactly; else once nothing can change the sound any more.",
)
@click.option("--speaker", metavar="NAME", help="Voice of the answer; else the model's own.")
@prosody_options
@click.option(
    "--seconds", type=float, default=20.0, show_default=True, help="Most speech in the answer."
)
@click.option("--min-seconds", type=float, default=0.0, help="Least speech in the answer.")
@click.option("--stop", multiple=True, metavar="TEXT", help="End before this text; may repeat.")
@click.option(
    "--until",
    multiple=True,
    type=click.Choice(["sentence", "silence"]),
    help="End behind a sentence of text, or when speech falls silent; may repeat.",
)
@click.option(
    "--truncate",
    type=click.Choice(["left"]),
    help="Of a prompt longer than the context, keep the end; else it is refused.",
)
@click.option(
    "--dtype",
    type=click.Choice(["auto", "fp32", "bf16", "int8", "int4"]),
    default="auto",
    show_default=True,
    help="Weights of the model: auto is bf16 on a GPU and fp32 else; int4 is for CPUs.",
)
@click.option(
    "--temperature", type=float, help="Else 0.8; 0.5 to speak and with --chain, 0 to transcribe."
)
@click.option("--top-p", type=float, default=0.95, show_default=True, help="Mass of the nucleus.")
@click.option(
    "--tries",
    type=click.IntRange(1),
    help="Answers to speak that are drawn, of which the best understood is given; else 16.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=0,
    show_default=True,
    help="Equal seeds give equal answers.",
)
@device_option
@debug
@json_option
@click.pass_context
def generate(
    ctx: click.Context,
    /,
    *,
    prompt_text: tuple[str, ...],
    prompt_audio: tuple[str, ...],
    want: str,
    task: str,
    out: Path | None,
    as_json: bool,
    model: str,
    device: str,
    dtype: str,
    stream: bool,
    play: bool,
    look_ahead: float | None,
    tries: int | None,
    shot: tuple[str, ...],
    shots: Path | None,
    shot_stop: str | None,
    chain: bool,
    **settings: Any,
) -> None:
    """Answer a prompt of text and speech.

    --prompt-text and --prompt-audio may repeat and mix; their order is the order of the prompt,
    which is not repeated in the answer. Where speech may come, --out has to say where it goes. A
    model that was not trained for a --task, such as the released ones, is shown it by --shot.
    With --chain a small model makes more sense: it reads better than it understands speech.
    """
    if not all(map(str.strip, prompt_text)):
        told = "say what to speak" if task == "speak" else "leave it out and the model begins"
        raise ValueError(f"--prompt-text is empty; {told}")
    if chain and (shot or shots or shot_stop):
        raise ValueError("--chain needs a model that was trained for tasks; leave out the examples")
    speaks = task == "speak" or (task == "continue" and want != "text")
    request = Request(
        [name for name in ctx.meta["order"] if name in ("prompt_text", "prompt_audio")],
        prompt_text,
        prompt_audio,
        {"want": want, "task": task},
        out,
        speaks,
        as_json,
        model,
        device,
        dtype,
        settings,
        Shown.read(shot, shots, shot_stop, task),
        chain,
    )
    check_asked(request, ctx.meta["order"], tries)
    if stream or play:
        check_streaming(request, stream, play, tries)
        stream_answer(request, play, look_ahead)
        return
    if look_ahead is not None:
        raise ValueError("--look-ahead is for speech as it comes; add --stream or --play")
    if out is not None and str(out) == "-":
        raise ValueError("--out - is for speech as it comes; add --stream")
    request.settings["tries"] = tries
    whole_answer(request)


@click.command()
@click.argument("source", type=PATH)
@click.argument("out", type=PATH)
@model_option
@click.option("--speaker", metavar="NAME", help="Voice to speak with; else the model's own.")
@prosody_options
@click.option("--predict-durations", is_flag=True, help="Leave the rhythm to the vocoder.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of --style sample."
)
@device_option
@json_option
@debug
def resynth(
    source: Path,
    out: Path,
    model: str,
    speaker: str | None,
    predict_durations: bool,
    device: str,
    style: str | None,
    seed: int,
    as_json: bool,
    **prosody: float,
) -> None:
    """Hear a recording and say it again: SOURCE to units to OUT."""
    from spirit.audio import check_writable, read_audio, write_audio
    from spirit.units import SAMPLE_RATE

    check_writable(out)
    wave = read_audio(source)
    spirit = load(model, device)
    named = choose_style(spirit, style, seed)
    made = spirit.resynth(wave, speaker, named, predict_durations=predict_durations, **prosody)
    write_audio(out, made)
    heard, said = (len(sound) / SAMPLE_RATE for sound in (wave, made))
    if as_json:
        told = {"source": str(source), "out": str(out), "model": model, "style": named}
        print_json({**told, "source_seconds": heard, "seconds": said})
    else:
        click.echo(f"{out}: {said:.2f} s of speech, from {heard:.2f} s of {source}")
