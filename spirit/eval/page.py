"""One self-contained page of everything that was measured: figures with their intervals as bars,
and what was said and heard, to be played beside the tokens."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from spirit.eval.figures import Figure
from spirit.eval.report import UNITS, shown

Wave = Float[np.ndarray, " samples"]

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #22303c; margin: 2rem auto; max-width: 62rem;
  padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; margin-bottom: 2rem; }
td, th { padding: .3rem .6rem; text-align: left; border-bottom: 1px solid #dde3e8; }
svg { display: block; }
.clip { border: 1px solid #dde3e8; border-radius: .5rem; padding: .6rem 1rem; margin: 1rem 0; }
.tokens { font: 12px/1.6 monospace; color: #5a6a77; max-height: 6.4em; overflow-y: auto;
  word-break: break-all; }
audio { width: 100%; height: 2.2rem; }
"""


@dataclass(frozen=True, eq=False)
class Line:
    """Something of a clip: what it is, the words, the 16 kHz sound and the tokens, where known."""

    title: str
    text: str = ""
    wave: Wave | None = None
    tokens: str = ""


def page(
    title: str,
    figures: Mapping[str, Mapping[str, Figure]],
    missing: Sequence[str],
    clips: Sequence[Sequence[Line]],
    left_out: Mapping[str, str] | None = None,
) -> str:
    """The page as HTML; nothing in it is fetched from elsewhere. `left_out` says by suite what its
    figures are not taken over."""
    parts = [f"<h1>{html.escape(title)}</h1>"]
    for suite, of in figures.items():
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{'' if name in UNITS else _bar(figure)}</td>"
            f"<td>{shown(name, figure)}</td><td>{figure.count}</td></tr>"
            for name, figure in of.items()
        )
        parts.append(
            f"<h2>{html.escape(suite)}</h2><table><tr><th>figure</th><th></th>"
            f"<th>value (95 % interval)</th><th>items</th></tr>{rows}</table>"
        )
        if told := (left_out or {}).get(suite):
            parts.append(f"<p>Left out of {html.escape(suite)}: {html.escape(told)}.</p>")
    if missing:
        parts.append(f"<p>Not measured: {html.escape(', '.join(missing))}.</p>")
    if clips:
        parts.append("<h2>To listen to</h2>")
    for clip in clips:
        parts.append('<div class="clip">' + "".join(map(_line, clip)) + "</div>")
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}'
        f"</title><style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _bar(figure: Figure) -> str:
    """The value as a bar from 0 to 1, the interval as a line over it."""
    width, height = 240, 14
    at = [float(np.clip(x, 0, 1)) * width for x in (figure.value, figure.low, figure.high)]
    return (
        f'<svg width="{width}" height="{height}" role="img" aria-label="{figure.percent()}">'
        f'<rect width="{width}" height="{height}" fill="#eef2f5"/>'
        f'<rect width="{at[0]:.1f}" height="{height}" fill="#7fa7c9"/>'
        f'<line x1="{at[1]:.1f}" x2="{at[2]:.1f}" y1="7" y2="7" stroke="#22303c" stroke-width="2"/>'
        "</svg>"
    )


def _line(line: Line) -> str:
    parts = [f"<p><b>{html.escape(line.title)}</b> {html.escape(line.text)}</p>"]
    if line.wave is not None and len(line.wave):
        parts.append(f'<audio controls preload="none" src="{_sound(line.wave)}"></audio>')
    if line.tokens:
        parts.append(f'<div class="tokens">{html.escape(line.tokens)}</div>')
    return "".join(parts)


def _sound(wave: Wave) -> str:
    """A wave inside the page: FLAC, which every browser plays."""
    import soundfile

    stream = io.BytesIO()
    soundfile.write(stream, np.clip(wave, -1, 1), 16_000, format="FLAC")
    return "data:audio/flac;base64," + base64.b64encode(stream.getvalue()).decode()
