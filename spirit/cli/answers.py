"""What `spirit generate` does: an answer as a whole, or as it comes."""

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from spirit.cli.options import load, print_json
from spirit.cli.shots import Shown, check_task

SAMPLED = "sample"
"""The style that is drawn; a style of that name comes first."""


@dataclass(frozen=True)
class Request:
    """What was typed."""

    order: Sequence[str]
    """`prompt_text` and `prompt_audio` in the order of the prompt."""
    texts: Sequence[str]
    recordings: Sequence[str]
    wish: dict[str, str]
    """`want` and `task`."""
    out: Path | None
    speaks: bool
    """Whether the answer may hold speech."""
    as_json: bool
    model: str
    device: str
    dtype: str
    settings: dict[str, Any]
    """How ids are drawn and how they are said."""
    shown: Shown | None = None
    """Examples of the task."""
    chain: bool = False
    """Whether text comes between what is heard and what is said."""

    def report(self, segments: list[dict[str, Any]], seconds: float, **more: Any) -> None:
        """Print the answer as JSON."""
        asked = {"model": self.model, **self.wish, "seed": self.settings["seed"]}
        written = str(self.out) if seconds and self.out is not None else None
        print_json({**asked, "out": written, "seconds": seconds, **more, "segments": segments})


def whole_answer(request: Request) -> None:
    """Generate, then write."""
    from spirit.audio import check_writable, read_audio, write_audio
    from spirit.units import SAMPLE_RATE

    out, settings = request.out, dict(request.settings)
    if out is not None:
        check_writable(out)
    elif request.speaks:
        optional = request.wish == {"want": "any", "task": "continue"}
        raise ValueError(
            "the answer may hold speech; say where it goes, --out reply.wav"
            + (", or --want text" if optional else "")
        )
    waves = iter([read_audio(path) for path in request.recordings])
    spirit = load(request.model, request.device, request.dtype)
    check_task(spirit, request.wish["task"], request.shown)
    said_so = {name: settings.pop(name) for name in ("rate", "pitch")}
    voice = {"speaker": settings.pop("speaker"), "style": settings.pop("style")}
    if request.speaks:
        voice["style"] = choose_style(spirit, voice["style"], settings["seed"])
        spirit.check_voice(**voice)
        check_manner(**said_so)
    texts = iter(request.texts)
    prompt = [
        next(texts).strip() if name == "prompt_text" else spirit.hear(next(waves))
        for name in request.order
    ]
    settings["max_seconds"] = settings.pop("seconds")
    settings["examples"] = request.shown and request.shown.heard(spirit)
    answer: list[dict[str, Any]] = []
    speech: list[Any] = []
    said = 0
    settings["rate"] = said_so["rate"]  # the seconds are those that are heard
    segments, told = _answered(request, spirit, prompt, {**voice, **settings}, stream=False)
    for segment in segments:
        if isinstance(segment, str):
            shown = _written(request, segment, answer)
        else:
            speech.append(spirit.speak(segment, **voice, **said_so))
            start, said = said / SAMPLE_RATE, said + len(speech[-1])
            shown = _spoken(request, segment, start, said / SAMPLE_RATE, answer)
        if not request.as_json:
            click.echo(shown)
    if said and out is not None:
        import numpy as np

        write_audio(out, np.concatenate(speech))
    elif out is not None:
        _check_speech(request)
        click.echo(f"spirit: the answer holds no speech, {out} is not written", err=True)
    if request.as_json:
        request.report(answer, said / SAMPLE_RATE, **told)
    elif not answer:
        click.echo()
        if request.wish["task"] == "transcribe":
            click.echo("spirit: no words are heard in the recording", err=True)


def _answered(
    request: Request, spirit: Any, prompt: list[Any], settings: dict[str, Any], *, stream: bool
) -> tuple[Iterator[Any], dict[str, str]]:
    """The pieces of an answer, and what the report says beside them."""
    if not request.chain:
        generate = spirit.stream if stream else spirit.generate
        return generate(prompt, **request.wish, **settings), {}
    del settings["examples"]
    words = spirit.write_down(prompt, settings["truncate"])
    if not words and request.recordings:
        click.echo("spirit: no words are heard in the prompt; the model begins by itself", err=True)
    chain = spirit.stream_chain if stream else spirit.chain
    return chain([words], request.wish["want"], **settings), {"prompt": words}


def check_asked(request: Request, typed: Collection[str], tries: int | None) -> None:
    """Refuse, before any work, options that would change nothing."""
    speaks = request.wish["task"] == "speak" or (request.chain and request.speaks)
    if request.chain and request.wish["task"] != "continue":
        raise ValueError(
            f"--chain is for going on, and --task {request.wish['task']} does not; leave one out"
        )
    if tries is not None and tries > 1:
        if not speaks:
            raise ValueError(
                "--tries is for --task speak or --chain, whose speech is compared; leave it out"
            )
        if request.shown is not None:
            raise ValueError("which try is the best is not known by examples; leave out --tries")
    for name in ("speaker", "style", "pitch", "rate"):
        if name in typed and not request.speaks:
            raise ValueError(f"--{name} is for speech, and this answer is text; leave it out")


def check_streaming(request: Request, stream: bool, play: bool, tries: int | None) -> None:
    """Refuse what cannot go together, before any work."""
    from spirit.cli.sinks import STDOUT, check

    option = "--stream" if stream else "--play"
    if not request.speaks:
        raise ValueError(f"{option} is for speech, and this answer is text; leave it out")
    if stream and request.out is None and not play:
        raise ValueError(
            "--stream needs to know where speech goes: --out reply.wav, --out - (standard output), "
            "or --play"
        )
    if tries is not None and tries > 1:
        raise ValueError(
            f"which of {tries} answers is the best shows when all are complete; leave out --tries "
            f"or {option}"
        )
    if request.out == STDOUT and request.as_json:
        raise ValueError("--json and --out - both want standard output; name a file")
    if request.out is not None:
        check(request.out)


def stream_answer(request: Request, play: bool, look_ahead: float | None) -> None:
    """Write and play speech while what follows is still being generated."""
    from spirit.cli.sinks import STDOUT, Sink, Written, player
    from spirit.units import SAMPLE_RATE, Units

    sinks: list[Sink] = [player()] if play else []
    spirit = load(request.model, request.device, request.dtype)
    check_task(spirit, request.wish["task"], request.shown)
    settings = dict(request.settings)
    settings["style"] = choose_style(spirit, settings["style"], settings["seed"])
    spirit.check_voice(settings["speaker"], settings["style"])
    check_manner(settings["rate"], settings["pitch"])
    settings["max_seconds"] = settings.pop("seconds")
    settings["examples"] = request.shown and request.shown.heard(spirit)
    prompt, begun = list(_heard(request, spirit)), time.perf_counter()
    prompt = [part if isinstance(part, str) else part.finish().merge() for part in prompt]
    answer: list[dict[str, Any]] = []
    said, start, first = 0, 0.0, None
    settings["look_ahead"] = look_ahead
    pieces, told = _answered(request, spirit, prompt, settings, stream=True)
    for piece in pieces:
        if isinstance(piece, str):
            shown = _written(request, piece, answer)
        elif isinstance(piece, Units):
            stop = said / SAMPLE_RATE
            shown = _spoken(request, piece, start, stop, answer)
            start = stop
        else:
            if first is None:
                first = time.perf_counter() - begun
                if request.out is not None:
                    sinks.append(Written(request.out))
            said += len(piece)
            for sink in sinks:
                sink.write(piece)
            continue
        if not request.as_json:
            click.echo(shown, err=request.out == STDOUT)
    whole = time.perf_counter() - begun
    for sink in sinks:
        sink.close()
    if not said:
        _check_speech(request)
        click.echo("spirit: the answer holds no speech, none is written", err=True)
    if request.as_json:
        times = {"first_audio_seconds": first and round(first, 4), "all_seconds": round(whole, 4)}
        request.report(answer, said / SAMPLE_RATE, **told, **times)


def _heard(request: Request, spirit: Any) -> Iterator[Any]:
    """The parts of a prompt: texts, and recordings that are heard while they are read."""
    from spirit.audio import read_into

    texts, recordings = iter(request.texts), iter(request.recordings)
    for name in request.order:
        if name == "prompt_text":
            yield next(texts).strip()
            continue
        listening = spirit.listen()
        read_into(next(recordings), listening.push, hashed=False)
        yield listening


def choose_style(spirit: Any, style: str | None, seed: int) -> str | None:
    """The name of a style: as given, heard in a recording, or drawn.

    Raises ValueError for a recording that cannot be read, and where there are no styles.
    """
    names = spirit.styles
    if style is None or style in names:
        return style
    if style == SAMPLED and names:
        import numpy as np

        return str(names[np.random.default_rng(seed).integers(len(names))])
    if Path(style).is_file():
        from spirit.audio import read_audio

        return str(spirit.style_of(read_audio(style)))
    return style  # `check_voice` says which there are


def check_manner(rate: float, pitch: float) -> None:
    """Raise ValueError, before anything is generated, for a rate or pitch that cannot be said."""
    from spirit.vocoder.stream import check_prosody

    check_prosody(None, rate, pitch)


def _written(request: Request, text: str, answer: list[dict[str, Any]]) -> str:
    answer.append({"type": "text", "text": text})
    return " ".join(text.split()) if request.wish["task"] == "transcribe" else text.strip()


def _spoken(
    request: Request, units: Any, start: float, stop: float, answer: list[dict[str, Any]]
) -> str:
    answer.append({"type": "speech", "start": start, "stop": stop, "units": str(units)})
    of = "" if request.out is None else f" of {request.out}"
    return f"[speech, {start:.2f} to {stop:.2f} s{of}]"


def _check_speech(request: Request) -> None:
    if request.wish["want"] == "speech" or request.wish["task"] == "speak":
        raise ValueError("the model answered without speech; try another --seed")
