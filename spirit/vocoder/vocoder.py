"""Units to speech: the generator with its durations and pitch contour, as one file on disk."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils import parametrize

from spirit.units import Kind, Track, Tracks, Units
from spirit.vocoder import files
from spirit.vocoder.flow import Flow
from spirit.vocoder.frames import NONE, Frames, Runs, hold, lay_out, runs, stretched
from spirit.vocoder.kernels import Kernels
from spirit.vocoder.render import render
from spirit.vocoder.stream import CHUNK, Stream, check_prosody
from spirit.vocoder.timeline import Timeline, rounded
from spirit.vocoder.voice import Voice


class Vocoder:
    """Speaks units of one alphabet with the voices that it knows by name.

    `alphabet` says how many units, pitches and styles exist. A pitch or style that a stream lacks
    is read as `absent` of that name, which training has seen, too. `pace` stretches all durations.
    `usage` counts how often each speaker said each unit in training: units keep something of the
    voice they came from, and where nobody is named the most likely speaker says them. `styles` are
    the names of styles that a whole utterance is said in, where they are no units.
    """

    spread = True
    """Whether pitches and styles that are written after a unit spread over it; else they are in
    force from the next one on, as in the release."""

    def __init__(
        self,
        voice: Voice,
        speakers: Sequence[str],
        alphabet: Mapping[str, int],
        *,
        absent: Mapping[str, int],
        pace: float = 1.0,
        usage: Int[Tensor, "speakers units"] | None = None,
        styles: Sequence[str] = (),
    ) -> None:
        self.voice = voice.eval()
        self.speakers = tuple(speakers)
        self.alphabet, self.absent, self.pace = dict(alphabet), dict(absent), pace
        self.device = next(voice.parameters()).device
        self.usage = usage
        self.styles = tuple(styles)
        self._kernels: Kernels | None = None

    @classmethod
    def load(cls, folder: Path, device: str | torch.device = "cpu") -> "Vocoder":
        """Read the folder that `save` wrote.

        Raises ValueError if it is no such folder or its weights do not fit its config.
        """
        return cls(**files.read(folder, device))

    def save(self, folder: Path) -> None:
        """Write config.json and model.safetensors (16-bit floats, weight norm folded in)."""
        facts: dict[str, Any] = {
            "speakers": list(self.speakers),
            "alphabet": self.alphabet,
            "absent": self.absent,
            "pace": self.pace,
        }
        if self.styles:
            facts["styles"] = list(self.styles)
        files.write(folder, self.voice, facts, self.usage)

    def speak(
        self,
        units: Units,
        speaker: str | int | None = None,
        style: int | None = None,
        rate: float = 1.0,
        pitch: float = 0.0,
    ) -> Float[np.ndarray, " samples"]:
        """Return the wave of deduplicated units, with predicted durations.

        `style` replaces the styles of the stream; `rate` 2 is twice as fast; `pitch` is higher by
        so many semitones. Without a speaker the likeliest speaks. Raises ValueError for an unknown
        speaker, and for units it was not trained on.
        """
        return self.speak_many([units], [speaker], style, rate, pitch)[0]

    def speak_many(
        self,
        utterances: Sequence[Units],
        speakers: Sequence[str | int | None] | None = None,
        style: int | None = None,
        rate: float = 1.0,
        pitch: float = 0.0,
    ) -> list[Float[np.ndarray, " _"]]:
        """Return the waves of several streams of units, side by side: each is what `speak` gives,
        within rounding."""
        named = [
            self.likeliest(units.of(Kind.HUBERT)) if speaker is None else self.speaker(speaker)
            for units, speaker in zip(utterances, speakers or [None] * len(utterances), strict=True)
        ]
        laid = [
            self._lay_out(units, number, style, rate)
            for units, number in zip(utterances, named, strict=True)
        ]
        return self._render(laid, named, pitch)

    def stream(
        self,
        speaker: str | int,
        style: int | None = None,
        rate: float = 1.0,
        pitch: float = 0.0,
        *,
        look_ahead: float | None = None,
        chunk: float = CHUNK,
        kinds: Collection[Kind] = tuple(Kind),
    ) -> Stream:
        """Speak units that are still being written, in chunks of so many seconds.

        Without a `look_ahead` (seconds) a sample comes once nothing can change it any more; a
        shorter one brings it sooner, and the last unit known stands for those that follow. The
        first pitch and style are waited for where they are among `kinds`. Raises ValueError as
        `speak` does.
        """
        check_prosody(style, rate, pitch)
        if not chunk > 0:
            raise ValueError(f"a chunk of {chunk:g} seconds holds nothing")
        if look_ahead is not None and not look_ahead >= 0:
            raise ValueError(f"a look-ahead of {look_ahead:g} seconds is below 0")
        number = self.speaker(speaker)
        left, right = self.voice.durations.reach()
        shift, factor = self._shift(pitch)
        timeline = Timeline(
            lambda heads: self._lengths(heads, number, style),
            (left, right + (self.voice.durations.changes is not None)),
            pace=self.pace,
            rate=rate,
            awaited=self._awaited(style) & set(kinds),
            spread=self.spread,
        )
        return Stream(
            timeline,
            Flow(self.kernels(), shift=shift),
            lambda frames: self._join(frames, number),
            style=self._style(style),
            look_ahead=look_ahead,
            chunk=chunk,
            factor=factor,
        )

    def predict_tracks(
        self,
        units: Units,
        speaker: str | int | None = None,
        style: int | None = None,
        rate: float = 1.0,
    ) -> Tracks:
        """Lay deduplicated units out in time; all tracks have one entry per HuBERT frame."""
        frames = self._lay_out(units, speaker, style, rate)
        rows = {Kind.HUBERT: frames.unit, Kind.PITCH: frames.pitch, Kind.STYLE: frames.style}
        hop = Fraction(self.voice.generator.frame)
        known = {kind: row for kind, row in rows.items() if not (row == NONE).any()}
        return Tracks({kind: Track(kind, row, hop) for kind, row in known.items()})

    def likeliest(self, unit: Int[np.ndarray, " units"]) -> int:
        """Return the speaker in whose training speech these HuBERT units are most probable."""
        if self.usage is None:
            return 0
        counts = self.usage.double() + 1
        shares = (counts / counts.sum(1, keepdim=True)).log()
        known = torch.from_numpy(np.asarray(unit, np.int64))
        known = known[(known >= 0) & (known < shares.shape[1])]
        return int(shares[:, known].sum(1).argmax())

    def durations(
        self,
        units: Units,
        speaker: str | int | None = None,
        style: int | None = None,
        rate: float = 1.0,
    ) -> Int[np.ndarray, " runs"]:
        """Return how many frames each HuBERT unit of a deduplicated stream lasts: at least one, or
        none of some at a rate above 1."""
        check_prosody(style, rate)
        exact = self._lengths(runs(units), speaker, style)
        return rounded(exact, self.pace, rate)[0]

    def synthesize(
        self,
        tracks: Tracks,
        speaker: str | int | None = None,
        style: int | None = None,
        rate: float = 1.0,
        pitch: float = 0.0,
    ) -> Float[np.ndarray, " samples"]:
        """Return the wave of tracks at their own durations, a whole number of HuBERT frames.

        `style`, `rate` and `pitch` are as of `speak`.
        """
        check_prosody(style, rate, pitch)
        frames = self._styled(stretched(hold(tracks), 1 / rate), style)
        named = self.likeliest(frames.unit) if speaker is None else self.speaker(speaker)
        return self._render([frames], [named], pitch)[0]

    def kernels(self) -> Kernels:
        """Return the weights laid out for speaking: once if they are folded, else as they are."""
        if parametrize.is_parametrized(self.voice.generator.conv_pre.conv):
            return Kernels.of(self.voice)  # they are still being trained
        if self._kernels is None:
            self._kernels = Kernels.of(self.voice)
        return self._kernels

    def _render(
        self, utterances: Sequence[Frames], speakers: Sequence[int], pitch: float
    ) -> list[Float[np.ndarray, " _"]]:
        shift, factor = self._shift(pitch)
        longer = [stretched(frames, factor) for frames in utterances]
        return render(
            self.kernels(),
            longer,
            lambda number, frames: self._join(frames, speakers[number]),
            shift=shift,
            factor=factor,
        )

    def _shift(self, pitch: float) -> tuple[float, float]:
        """How much the pitch of the source is raised, and how much faster the sound is played."""
        ratio = 2.0 ** (pitch / 12)
        return (1.0, ratio) if self.voice.contour is None else (ratio, 1.0)

    def _lay_out(
        self, units: Units, speaker: str | int | None, style: int | None, rate: float
    ) -> Frames:
        frames = lay_out(units, self.durations(units, speaker, style, rate), self.spread)
        return self._styled(frames, style)

    def _style(self, style: int | None) -> int | None:
        """What stands in place of the styles of a stream, which may mean nothing here."""
        return NONE if style is None and self.styles else style

    def _awaited(self, style: int | None) -> set[Kind]:
        """The kinds of unit that its first frames depend on."""
        read = {Kind.PITCH: "pitch", Kind.STYLE: "style"}
        needed = {kind for kind, name in read.items() if name in self.voice.generator.embed}
        return needed if self._style(style) is None else needed - {Kind.STYLE}

    def _styled(self, frames: Frames, style: int | None) -> Frames:
        number = self._style(style)
        return frames if number is None else replace(frames, style=np.full(len(frames), number))

    def _join(self, frames: Frames, speaker: int) -> Float[Tensor, "1 frames width"]:
        return self.voice.generator.join(
            self._ids(frames.unit, frames.pitch, frames.style, speaker)
        )

    @torch.inference_mode()
    def _lengths(
        self, heads: Runs, speaker: str | int | None, style: int | None
    ) -> Float[np.ndarray, " runs"]:
        """How many frames each run lasts, not rounded yet.

        In double precision, so that rounding comes out alike however many runs are asked of at
        once.
        """
        if not len(heads.unit):
            return np.zeros(0)
        number = self._style(style)
        styles = heads.style if number is None else np.full(len(heads.unit), number)
        ids = self._ids(heads.unit, heads.pitch, styles, speaker)
        ids["changes"] = torch.from_numpy(heads.changes).to(self.device)[None]
        logs = self.voice.exact_log_durations(ids)
        exact: np.ndarray = (torch.exp(logs[0]) - 1).cpu().numpy()
        return exact

    def _ids(
        self,
        unit: Int[np.ndarray, " frames"],
        pitch: Int[np.ndarray, " frames"],
        style: Int[np.ndarray, " frames"],
        speaker: str | int | None,
    ) -> dict[str, Tensor]:
        rows = {"unit": unit, "pitch": pitch, "style": style}
        for name, row in rows.items():
            known = self.alphabet.get(name, 0)
            if name == "style" and self.styles:
                known = len(self.styles)
            rows[name] = np.where(row == NONE, self.absent.get(name, 0), row)
            beyond = row[(row < NONE) | (row >= known)]
            if known and len(beyond):
                worst = beyond[0]
                raise ValueError(
                    f"{name} {worst} is outside the vocoder's alphabet of {known}; "
                    "use the vocoder that was trained with this tokenizer"
                )
        named = self.likeliest(unit) if speaker is None else self.speaker(speaker)
        rows["speaker"] = np.full(len(unit), named)
        return {
            name: torch.from_numpy(np.asarray(row, np.int64)).to(self.device)[None]
            for name, row in rows.items()
        }

    def speaker(self, speaker: str | int) -> int:
        """Return the number of a speaker. Raises ValueError for one that it has not."""
        if isinstance(speaker, str) and speaker in self.speakers:
            return self.speakers.index(speaker)
        if isinstance(speaker, int) and 0 <= speaker < len(self.speakers):
            return speaker
        raise ValueError(
            f"no speaker {speaker!r} in this vocoder; it has {', '.join(self.speakers)}"
        )
