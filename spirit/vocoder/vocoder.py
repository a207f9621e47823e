"""Units to speech: the generator with its durations and pitch contour, as one file on disk."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils import parametrize

from spirit import commit
from spirit.units import Kind, Track, Tracks, Units
from spirit.vocoder.frames import NONE, hold, lay_out, runs
from spirit.vocoder.source import excite, noise
from spirit.vocoder.voice import Voice, fold

FORMAT = "spirit-vocoder-1"


class Vocoder:
    """Speaks units of one alphabet with the voices that it knows by name.

    `alphabet` says how many units, pitches and styles exist. A pitch or style that a stream lacks
    is read as `absent` of that name, which training has seen, too. `pace` stretches all durations.
    `usage` counts how often each speaker said each unit in training: units keep something of the
    voice they came from, and where nobody is named the most likely speaker says them.
    """

    def __init__(
        self,
        voice: Voice,
        speakers: Sequence[str],
        alphabet: Mapping[str, int],
        *,
        absent: Mapping[str, int],
        pace: float = 1.0,
        usage: Int[Tensor, "speakers units"] | None = None,
    ) -> None:
        self.voice = voice.eval()
        self.speakers = tuple(speakers)
        self.alphabet, self.absent, self.pace = dict(alphabet), dict(absent), pace
        self.device = next(voice.parameters()).device
        self.usage = usage

    @classmethod
    def load(cls, folder: Path, device: str | torch.device = "cpu") -> "Vocoder":
        """Read the folder that `save` wrote.

        Raises ValueError if it is no such folder or its weights do not fit its config.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        for name in ("config.json", "model.safetensors"):
            if not (folder / name).is_file():
                raise ValueError(f"{folder} is no vocoder: {name} is missing")
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            if config.get("format") != FORMAT:
                raise ValueError(f"config.json is not of format {FORMAT}")
            voice = Voice(**config["voice"])
            fold(voice)
            weights = load_file(folder / "model.safetensors")
            usage = weights.pop("usage", None)
            voice.load_state_dict({key: value.float() for key, value in weights.items()})
            facts = {key: config[key] for key in ("speakers", "alphabet", "absent", "pace")}
            return cls(voice.to(device), **facts, usage=usage)
        except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{folder} is no whole vocoder: {reason}") from None

    def save(self, folder: Path) -> None:
        """Write config.json and model.safetensors (16-bit floats, weight norm folded in)."""
        from safetensors.torch import save_file

        voice = Voice(**self.voice.config)  # folding would change the class of a copy's original
        if parametrize.is_parametrized(self.voice.generator.conv_pre.conv):
            voice.load_state_dict(self.voice.state_dict())
            fold(voice)
        else:
            fold(voice)
            voice.load_state_dict(self.voice.state_dict())
        weights = {
            key: value.cpu().half().contiguous() for key, value in voice.state_dict().items()
        }
        if self.usage is not None:
            weights["usage"] = self.usage.cpu().int().contiguous()
        with commit.folder(folder) as partial:
            save_file(weights, partial / "model.safetensors")
            facts = {
                "format": FORMAT,
                "speakers": list(self.speakers),
                "alphabet": self.alphabet,
                "absent": self.absent,
                "pace": self.pace,
                "voice": voice.config,
            }
            commit.json_file(partial / "config.json", facts)

    def speak(
        self,
        units: Units,
        speaker: str | int | None = None,
        style: int | None = None,
        rate: float = 1.0,
    ) -> Float[np.ndarray, " samples"]:
        """Return the wave of deduplicated units, with predicted durations.

        `style` replaces the styles of the stream; `rate` 2 is twice as fast. Without a speaker the
        likeliest speaks. Raises ValueError for an unknown speaker, and for units it was not trained
        on.
        """
        if speaker is None:
            speaker = self.likeliest(units.of(Kind.HUBERT))
        return self.synthesize(self.predict_tracks(units, speaker, style, rate), speaker)

    def predict_tracks(
        self,
        units: Units,
        speaker: str | int | None = None,
        style: int | None = None,
        rate: float = 1.0,
    ) -> Tracks:
        """Lay deduplicated units out in time; all tracks have one entry per HuBERT frame."""
        frames = lay_out(units, self.durations(units, speaker, style, rate))
        if style is not None:
            frames = replace(frames, style=np.full(len(frames), style))
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

    @torch.inference_mode()
    def durations(
        self,
        units: Units,
        speaker: str | int | None = None,
        style: int | None = None,
        rate: float = 1.0,
    ) -> Int[np.ndarray, " runs"]:
        """Return how many frames each HuBERT unit of a deduplicated stream lasts, at least one."""
        if not 0 < rate < float("inf"):
            raise ValueError(f"a speaking rate of {rate:g} is not above 0; 1 is the natural one")
        if style is not None and style < 0:
            raise ValueError(f"style {style} is below 0")
        heads = runs(units)
        if not len(heads.unit):
            return np.zeros(0, np.int64)
        styles = heads.style if style is None else np.full(len(heads.unit), style)
        ids = self._ids(heads.unit, heads.pitch, styles, speaker)
        ids["changes"] = torch.from_numpy(heads.changes).to(self.device)[None]
        logs = self.voice.log_durations(ids, torch.ones_like(ids["unit"], dtype=torch.bool))
        exact = (torch.exp(logs[0].double()) - 1).cpu().numpy()
        stretch = self.pace / rate
        if stretch == 1.0:
            return np.maximum(np.round(exact), 1).astype(np.int64)
        # What rounding takes from one unit goes to the next, so that the whole keeps its length.
        durations, owed = [], 0.0
        for frames in np.maximum(exact, 0) * stretch:
            owed += frames
            durations.append(max(1, round(owed)))
            owed -= durations[-1]
        return np.array(durations, np.int64)

    @torch.inference_mode()
    def synthesize(
        self, tracks: Tracks, speaker: str | int | None = None
    ) -> Float[np.ndarray, " samples"]:
        """Return the wave of tracks at their own durations, a whole number of HuBERT frames."""
        frames = hold(tracks)
        if not len(frames):
            return np.zeros(0, np.float32)
        ids = self._ids(frames.unit, frames.pitch, frames.style, speaker)
        real = torch.ones_like(ids["unit"], dtype=torch.bool)
        wave = self.voice.generator(ids, self._excitation(ids, real), real)[0]
        clipped: np.ndarray = wave.clamp(-1, 1).float().cpu().numpy()
        return clipped

    def _excitation(
        self, ids: Mapping[str, Int[Tensor, "1 frames"]], real: Bool[Tensor, "1 frames"]
    ) -> Float[Tensor, "1 2 samples"] | None:
        if self.voice.contour is None:
            return None
        log_f0, voiced = self.voice.contour(self.voice.generator.join(ids), real)
        pulses, _ = excite(torch.exp(log_f0), torch.sigmoid(voiced), self.voice.hop)
        hiss = noise(pulses.shape[1]).to(self.device)[None]
        return torch.stack([pulses, hiss], dim=1)

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
            rows[name] = np.where(row == NONE, self.absent.get(name, 0), row)
            beyond = row[(row < NONE) | (row >= known)]
            if known and len(beyond):
                worst = beyond[0]
                raise ValueError(
                    f"{name} {worst} is outside the vocoder's alphabet of {known}; "
                    "use the vocoder that was trained with this tokenizer"
                )
        named = self.likeliest(unit) if speaker is None else self._speaker(speaker)
        rows["speaker"] = np.full(len(unit), named)
        return {
            name: torch.from_numpy(np.asarray(row, np.int64)).to(self.device)[None]
            for name, row in rows.items()
        }

    def _speaker(self, speaker: str | int) -> int:
        if isinstance(speaker, str) and speaker in self.speakers:
            return self.speakers.index(speaker)
        if isinstance(speaker, int) and 0 <= speaker < len(self.speakers):
            return speaker
        raise ValueError(
            f"no speaker {speaker!r} in this vocoder; it has {', '.join(self.speakers)}"
        )
