"""The main job on the bundled model, and a picture of its answer: `python -m spirit.demo`."""

import sys
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from spirit import commit
from spirit.audio import read_audio, write_audio
from spirit.codec import Segment
from spirit.pipeline import Spirit, find
from spirit.units import SAMPLE_RATE, Kind, Track, Tracks

INK, PAPER, FAINT = "#22303c", "#ffffff", "#8a97a3"
ROOMS = {"asked": "#e8eef4", "text": "#fdf1d3", "speech": PAPER}
"""Background of what was asked, of a written and of a spoken segment of the answer."""


@dataclass(frozen=True, eq=False)
class Block:
    """A stretch of the picture: text takes the room of its letters, speech its time."""

    role: str
    """asked, text or speech: how it is coloured."""
    title: str
    text: str = ""
    wave: Float[np.ndarray, " samples"] = field(default_factory=lambda: np.zeros(0, np.float32))
    tracks: Tracks = field(default_factory=lambda: Tracks({}))
    """Units at the times at which they sound in `wave`."""

    @property
    def lines(self) -> list[str]:
        """The text in lines, about as wide as high, without what cannot be drawn."""
        text = "".join(c if c.isprintable() else "\N{MIDDLE DOT}" for c in self.text)
        return textwrap.wrap(text, max(14, round(2.2 * len(text) ** 0.5))) or [""]

    @property
    def seconds(self) -> float:
        """The width in the picture."""
        if self.role == "speech":
            return len(self.wave) / SAMPLE_RATE
        return max(0.6, 0.037 * max(map(len, [self.title, *self.lines])) + 0.12)


def picture(path: Path, blocks: Sequence[Block], heading: str) -> None:
    """Draw blocks side by side on one time axis: wave, spectrogram, pitch, tokens."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    blocks = [block for block in blocks if block.seconds]  # units without a sound have no room
    edges = np.concatenate([[0.0], np.cumsum([block.seconds for block in blocks])])
    scale = float(np.clip(28 / edges[-1], 1.2, 2.6))  # inches per second
    figure = Figure(figsize=(max(9.0, edges[-1] * scale + 1.5), 8.6), facecolor=PAPER)
    FigureCanvasAgg(figure)
    heights = {"height_ratios": [1.1, 2.2, 1.5, 2.0], "hspace": 0.09}
    axes = list(figure.subplots(4, 1, sharex=True, gridspec_kw=heights))
    inch = 1 / figure.get_figwidth()
    figure.subplots_adjust(left=1.2 * inch, right=1 - 0.3 * inch, top=0.87, bottom=0.075)
    for axis, name in zip(axes, ("wave", "frequency\nkHz", "pitch\nHz", "tokens"), strict=True):
        _bare(axis, name)
    _frame(axes, blocks)
    spoken = 0.0
    marks = []
    for block, start in zip(blocks, edges[:-1], strict=True):
        _background(axes, block, start)
        if block.role == "speech":
            _wave(axes[0], block, start)
            _spectrogram(axes[1], block, start)
            _pitch(axes[2], block, start)
            _tokens(axes[3], block, start, scale)
            steps = np.arange(0.0, block.seconds, 0.5)
            marks += [(start + step, f"{spoken + step:.1f}") for step in steps]
            spoken += block.seconds
    axes[3].set_xticks([at for at, _ in marks], [name for _, name in marks])
    axes[3].set_xlabel("seconds of speech", color=FAINT)
    axes[3].set_xlim(0, edges[-1])
    figure.suptitle(heading, x=1.2 * inch, y=0.975, ha="left", color=INK, size=15)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a letter that the font lacks is a box
        figure.savefig(path, dpi=110, format="png")


def _bare(axis: Any, name: str) -> None:
    axis.set_facecolor(PAPER)
    axis.annotate(
        name,
        (0, 0.5),
        (-80, 0),
        xycoords="axes fraction",
        textcoords="offset points",
        va="center",
        color=INK,
    )
    axis.tick_params(colors=FAINT, labelsize=8, length=2)
    for spine in axis.spines.values():
        spine.set_visible(False)


def _frame(axes: Sequence[Any], blocks: Sequence[Block]) -> None:
    """Scales that all blocks share."""
    loudest = max((float(np.abs(b.wave).max(initial=0)) for b in blocks), default=0.0)
    axes[0].set_ylim(-1.1 * max(loudest, 0.1), 1.1 * max(loudest, 0.1))
    axes[0].set_yticks([])
    axes[1].set_ylim(0, 8)
    axes[2].set_yscale("log")
    axes[2].set_ylim(60, 400)
    axes[2].set_yticks([75, 100, 150, 200, 300], ["75", "100", "150", "200", "300"])
    axes[2].minorticks_off()
    axes[3].set_ylim(-0.1, 3.0)
    axes[3].set_yticks([0.45, 1.45, 2.45], ["style", "pitch", "HuBERT"])


def _background(axes: Sequence[Any], block: Block, start: float) -> None:
    middle = start + block.seconds / 2
    top = axes[0].get_ylim()[1]
    axes[0].annotate(
        block.title,
        (middle, top),
        (0, 6),
        textcoords="offset points",
        ha="center",
        va="bottom",
        color=INK if block.role != "asked" else FAINT,
        size=10,
        weight="bold" if block.role != "asked" else "normal",
        annotation_clip=False,
    )
    for axis in axes:
        axis.axvspan(start, start + block.seconds, color=ROOMS[block.role], lw=0, zorder=0)
        axis.axvline(start, color="#d5dce2", lw=0.8, zorder=3)
    if block.role != "speech":
        low, high = axes[1].get_ylim()
        axes[1].text(
            middle,
            (low + high) / 2,
            "\n".join(block.lines),
            ha="center",
            va="center",
            color=INK,
            size=11,
            style="italic" if block.role == "asked" else "normal",
            clip_on=False,
            zorder=6,
        )


def _wave(axis: Any, block: Block, start: float) -> None:
    size = 40  # samples under one point of the outline: 2.5 ms
    padded = np.pad(block.wave, (0, -len(block.wave) % size)).reshape(-1, size)
    time = start + (np.arange(len(padded)) + 0.5) * size / SAMPLE_RATE
    axis.fill_between(time, padded.min(1), padded.max(1), color="#2f6f9f", lw=0, zorder=2)


def _spectrogram(axis: Any, block: Block, start: float) -> None:
    window, hop, bins = 320, 80, 512
    padded = np.pad(block.wave, (window // 2, window))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    frames = frames[: -(-len(block.wave) // hop)] * np.hanning(window)
    level = 20 * np.log10(np.abs(np.fft.rfft(frames, bins)).T + 1e-4)
    axis.imshow(
        np.clip(level - level.max(), -65, 0),
        origin="lower",
        aspect="auto",
        extent=(start, start + block.seconds, 0, 8),
        cmap="magma",
        interpolation="bilinear",
        zorder=1,
    )


def _pitch(axis: Any, block: Block, start: float) -> None:
    import torch

    from spirit.speech.f0 import HOP, Autocorrelation

    f0 = Autocorrelation()(torch.from_numpy(block.wave)).numpy()
    time = start + np.arange(len(f0)) * HOP / SAMPLE_RATE
    voiced = np.where(f0 > 0, f0, np.nan)
    axis.plot(time, voiced, color="#d1495b", lw=2.4, solid_capstyle="round", zorder=2)
    for hertz in (75, 100, 150, 200, 300):
        axis.plot([start, start + block.seconds], [hertz] * 2, color="#e6eaee", lw=0.6, zorder=1)


def _tokens(axis: Any, block: Block, start: float, scale: float) -> None:
    from matplotlib.colors import hsv_to_rgb

    for kind, track in block.tracks.by_kind.items():
        for begin, end, unit in _cells(track):
            end = min(end, block.seconds)
            hue = (unit * 0.618034) % 1.0  # neighbours in number are far apart in colour
            color = hsv_to_rgb([hue, 0.42 if kind is Kind.HUBERT else 0.3, 0.94])
            box = {"color": color, "lw": 0, "zorder": 2}
            axis.fill_between([start + begin, start + end], kind + 0.02, kind + 0.88, **box)
            axis.plot([start + begin] * 2, [kind + 0.02, kind + 0.88], color=INK, lw=0.7, zorder=3)
            room = (end - begin) * scale * 72  # points
            axis.text(
                start + (begin + end) / 2,
                kind + 0.45,
                f"{kind.tag}{unit}" if room > 26 else str(unit),
                ha="center",
                va="center",
                size=min(7.5, max(4.0, room * 0.9)),
                rotation=0 if room > 16 else 90,
                color=INK,
                zorder=4,
            )


def _cells(track: Track) -> Iterator[tuple[float, float, int]]:
    """Begin, end in seconds and unit of each run."""
    first = np.diff(track.unit, prepend=-1) != 0
    onsets = np.flatnonzero(first)
    for onset, after in zip(onsets, [*onsets[1:], len(track)], strict=True):
        begin, end = ((track.start + int(i) * track.hop) / SAMPLE_RATE for i in (onset, after))
        yield float(begin), float(end), int(track.unit[onset])


SPOKEN, WRITTEN = Path("demo/prompt.flac"), "the weather in paris is"
SAID = "she plays hockey"
"""What is said in that recording (demo/README.md)."""


def run(folder: str | Path = "bundled", out: Path = Path("demo")) -> None:
    """Ask a model by voice and in writing; print and draw what it heard and answered.

    Writes reply.wav, the speech of both answers, and reply.png into `out`.
    """
    spirit = Spirit.load(folder)
    heard = spirit.hear(read_audio(SPOKEN))
    words = spirit.write_down([heard])
    print(f"spoken    {SPOKEN}: {SAID}")
    print(f"heard     {words}")
    blocks = [Block("asked", "you said", words), *_shown(spirit, spirit.chain([words]))]
    print(f"read      {WRITTEN}")
    # A whole sentence may be answered by a breath, which would show nothing.
    answer = spirit.generate([WRITTEN], want="speech", min_seconds=1.0)
    blocks += [Block("asked", "you wrote", WRITTEN), *_shown(spirit, answer)]
    write_audio(out / "reply.wav", np.concatenate([block.wave for block in blocks]))
    with commit.file(out / "reply.png") as partial:
        picture(partial, blocks, f"{find(folder).name} hears, reads, writes and speaks")
    print(f"written   {out / 'reply.wav'}, {out / 'reply.png'}")


def _shown(spirit: Spirit, answer: Iterable[Segment]) -> Iterator[Block]:
    for segment in answer:
        if isinstance(segment, str):
            print(f"answered  {segment.strip()}")
            yield Block("text", "it writes", segment.strip())
        else:
            wave, tracks = spirit.speak(segment), spirit.lay_out(segment)
            print(f"answered  [{len(wave) / SAMPLE_RATE:.2f} s of speech, {len(segment)} tokens]")
            yield Block("speech", "it says", wave=wave, tracks=tracks)


if __name__ == "__main__":
    try:
        run()
    except KeyboardInterrupt:
        sys.exit("spirit: interrupted")
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"spirit: {error}")
