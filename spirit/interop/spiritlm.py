"""The Python names of the released Spirit LM for its speech tokenizer and vocoders.

With SPIRITLM_CHECKPOINTS_DIR set to the folder of the released checkpoints, `spiritlm_base()` and
`spiritlm_expressive()` take the place of the functions of those names in the release.
"""

from collections.abc import Mapping
from functools import cached_property
from os import PathLike
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from spirit.audio import read_audio
from spirit.engine import device
from spirit.formats import spiritlm
from spirit.formats.spiritlm_speech import ReleasedEncoder
from spirit.formats.spiritlm_vocoder import ReleasedVocoder
from spirit.units import Kind

Audio = str | PathLike[str] | np.ndarray | Tensor


class SpiritLMTokenizer:
    """Recordings to units and token strings, as the release makes them.

    Audio is the path of a recording, or an array at 16 kHz of shape (samples,), (1, samples) or
    (2, samples), whose channels are averaged. Recordings at other rates are resampled by soxr,
    where the release uses torchaudio: their units may differ in a few frames. Silence has units,
    where the release raises IndexError.
    """

    def __init__(
        self, encoder: ReleasedEncoder, vocoder: Path, *, speaker: int = 2, style: int = 8
    ) -> None:
        """`vocoder` is its folder, read when something is to be spoken."""
        self.encoder = encoder
        self.speaker, self.style = speaker, style
        self._folder = vocoder

    @cached_property
    def vocoder(self) -> ReleasedVocoder:
        """What speaks. Raises ValueError if its files are missing or damaged."""
        return ReleasedVocoder.load(self._folder, device())

    def load_audio(self, path: str | PathLike[str]) -> Float[np.ndarray, " samples"]:
        """A recording as 16 kHz mono. Raises `AudioError` if it cannot be used."""
        return read_audio(Path(path))

    def encode_units(self, audio: Audio, channel_id: int | None = None) -> dict[str, str]:
        """Undeduplicated units, as numbers with spaces between, under `hubert`, and `pitch` and
        `style` in the expressive variant; the path of a recording under `audio`.

        `channel_id` (0 or 1) takes one channel of a stereo array. Raises ValueError for audio that
        cannot be used, or a channel of a file: read the file first.
        """
        units = {}
        if isinstance(audio, str | PathLike):
            if channel_id is not None:
                raise ValueError(
                    f"{audio}: a channel can be taken of an array only; read the recording first"
                )
            units["audio"] = str(Path(audio).absolute())
            wave = self.load_audio(audio)
        else:
            wave = _mono(audio, channel_id)
        tracks = self.encoder.encode(wave).by_kind
        for kind in (Kind.HUBERT, Kind.PITCH, Kind.STYLE):
            if kind in tracks:
                units[kind.key] = " ".join(map(str, tracks[kind].unit.tolist()))
        return units

    def encode_string(self, audio: Audio) -> str:
        """The token string of a recording or array: `[St7][Pi15][Hu1][Hu2][Pi20][Hu3]`."""
        return self.units2string(self.encode_units(audio))

    __call__ = encode_string

    def units2string(self, units: Mapping[str, str]) -> str:
        """Units from `encode_units` as a token string: ordered by time, runs of HuBERT units and
        pitch as one."""
        kinds = [kind for kind in self.encoder.counts if kind.key in units]
        return str(
            spiritlm.tracks(
                {kind: list(map(int, units[kind.key].split())) for kind in kinds}
            ).merge()
        )

    def string2units(self, string: str) -> dict[str, str]:
        """The units of a token string, one pitch and one style for every HuBERT unit.

        Where a string has pitch but no style, the release draws one of its three most common
        styles; here it is always the first of them.
        """
        expanded = spiritlm.expand(spiritlm.parse(string))
        return {kind.key: " ".join(map(str, row)) for kind, row in expanded.items()}

    def decode(
        self, code: str | Mapping[str, str], speaker_id: int | None = None, dur_pred: bool = True
    ) -> Float[np.ndarray, " samples"]:
        """The 16 kHz wave of a token string, or of units from `encode_units`.

        With `dur_pred` the duration of every unit is predicted, of undeduplicated ones too, as in
        the release; units with pitch at its own rate are one frame each. Without `speaker_id` the
        default speaker speaks. Raises ValueError for a unit or speaker that the vocoder lacks.
        """
        units = self.string2units(code) if isinstance(code, str) else code
        rows = {kind: list(map(int, units[kind.key].split())) for kind in Kind if kind.key in units}
        own_rate = len(rows.get(Kind.PITCH, rows[Kind.HUBERT])) != len(rows[Kind.HUBERT])
        return self.vocoder.speak(
            rows,
            speaker=self.speaker if speaker_id is None else speaker_id,
            style=self.style,
            predict_durations=dur_pred and not (own_rate and self.vocoder.expressive),
        )


def spiritlm_base(default_speaker: int = 2, default_style: int = 8) -> SpiritLMTokenizer:
    """The tokenizer of Spirit LM Base: HuBERT units. On a GPU where there is one.

    Raises ValueError if SPIRITLM_CHECKPOINTS_DIR is not set or a file is missing or damaged.
    """
    folder, where = spiritlm.speech_tokenizer_folder(), device()
    return SpiritLMTokenizer(
        ReleasedEncoder.load(folder, "base", where),
        folder / "hifigan_spiritlm_base",
        speaker=default_speaker,
        style=default_style,
    )


def spiritlm_expressive(f0_backbone: str = "fcpe", default_speaker: int = 2) -> SpiritLMTokenizer:
    """The tokenizer of Spirit LM Expressive: HuBERT, pitch and style units, F0 by FCPE.

    Raises ValueError if SPIRITLM_CHECKPOINTS_DIR is not set, a file is missing or damaged, or F0 is
    wanted from elsewhere.
    """
    if f0_backbone != "fcpe":
        raise ValueError(f"f0_backbone {f0_backbone!r} is not available; use 'fcpe'")
    folder, where = spiritlm.speech_tokenizer_folder(), device()
    return SpiritLMTokenizer(
        ReleasedEncoder.load(folder, "expressive", where),
        folder / "hifigan_spiritlm_expressive_w2v2",
        speaker=default_speaker,
    )


def _mono(audio: np.ndarray | Tensor, channel: int | None) -> Float[np.ndarray, " samples"]:
    samples = np.asarray(audio.detach().cpu() if isinstance(audio, Tensor) else audio)
    if not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(f"audio of {samples.dtype}: samples are floats between -1 and 1")
    if samples.ndim == 2 and len(samples) in (1, 2):
        if channel is not None and not 0 <= channel < len(samples):
            raise ValueError(f"channel {channel}: the audio has {len(samples)}, counted from 0")
        samples = samples.mean(0) if channel is None else samples[channel]
    if samples.ndim != 1:
        raise ValueError(f"audio of shape {samples.shape}: give (samples,) or (2, samples)")
    return samples.astype(np.float32)
