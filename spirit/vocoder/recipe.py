"""What a vocoder recipe may say, and the networks that it makes."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from spirit.engine import TrainingConfig
from spirit.vocoder.frames import CHANGES

POINTS = 4
"""Points of the pitch contour per frame."""


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The generator and its predictors; see `spirit.vocoder.generator.Generator`."""

    unit_width: int = 128
    """Channels of the unit embedding."""
    pitch_width: int = 128
    """Channels of the pitch embedding; 0 leaves pitch out."""
    style_width: int = 128
    """Channels of the style embedding; 0 leaves style out."""
    speaker_width: int = 128
    """Channels of the speaker embedding."""
    channels: tuple[int, ...] = (512, 256, 128, 64, 32, 16)
    """Width at the rate of units, then after every upsampling."""
    rates: tuple[int, ...] = (5, 4, 4, 4, 2)
    """Upsampling factors."""
    kernels: tuple[int, ...] = (11, 8, 8, 8, 4)
    """Kernels of the upsampling."""
    block_kernels: tuple[int, ...] = (3, 7, 11)
    """Kernels of the parallel residual blocks of every stage."""
    block_dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    """Dilations of each of them."""
    block_pairs: bool = True
    """Whether a plain convolution follows each dilated one (HiFi-GAN's residual block "1")."""
    pre_kernel: int = 7
    """Kernel of the first convolution."""
    pre_dilations: tuple[int, ...] = ()
    """Dilations of more residual convolutions at the rate of units; they look back only."""
    post_kernel: int = 7
    """Kernel of the last convolution."""
    head: str = "wave"
    """wave (samples) or istft (short-time spectra)."""
    hop: int = 1
    """Samples per short-time spectrum."""
    n_fft: int = 4
    """Samples that a short-time spectrum covers."""
    source: bool = False
    """Whether spectra are filters for pulses at the predicted pitch, and for noise."""
    right: tuple[int, ...] | None = None
    """Frames that the convolutions of each stage look ahead; none given: half their kernels."""
    duration_hidden: int = 256
    """Channels of the duration predictor."""
    contour_hidden: int = 128
    """Channels of the pitch contour, where there is a source."""


@dataclass(frozen=True, kw_only=True)
class JudgesConfig:
    """The discriminators, and when and how they join."""

    start: int
    """First step with them."""
    every: int = 1
    """Steps from one to the next with them."""
    batch: int = 8
    """Segments that they judge."""
    frames: int = 16
    """Frames of each that they judge."""
    weight: float = 0.05
    """Of being taken for real, against 1 for the spectral distance."""
    feature_weight: float = 0.1
    """Of the distance of the discriminators' features."""
    lr: float = 2e-4
    """Their peak learning rate."""
    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    """Periods of the multi-period discriminator."""
    period_channels: tuple[int, ...] = (32, 128, 512, 1024)
    """Its widths."""
    sizes: tuple[int, ...] = (1024, 512, 256)
    """Window sizes of the spectrogram discriminator."""
    size_channels: tuple[int, ...] = (32, 32, 32, 32)
    """Its widths."""


@dataclass(frozen=True, kw_only=True)
class VocoderRecipe:
    """How a vocoder is trained."""

    units: Path
    """Folder of unit shards."""
    audio: Path
    """Folder that their audio paths start from."""
    out: Path
    """Where state, logs and the finished `vocoder` go."""
    without: str = ""
    """Regular expression; rows whose id matches are left out (copies with noise, say)."""
    styles: Literal["labels"] | None = None
    """labels: learn the style by which the corpus labels each recording, for a base model, which
    writes no style units (the vocoder then knows styles by name); else style units, if any."""
    batch: int = 16
    """Segments per step."""
    frames: int = 16
    """Frames per segment."""
    before: int = 16
    """Frames of units read before a segment."""
    written: float = 0.5
    """Share of segments that read pitch and style as a generated stream gives them."""
    drop: float = 0.05
    """Share of segments without pitch, and as many without style, for streams that lack them."""
    sizes: tuple[int, ...] = (1024, 512, 256)
    """Window sizes of the spectral distance."""
    duration_weight: float = 0.1
    """Of the durations' squared error."""
    contour_weight: float = 1.0
    """Of the pitch contour's error."""
    init: Path | None = None
    """A vocoder to go on from, with the same generator: a released one (generator.pt) or ours."""
    ears: Path | None = None
    """A tokenizer or a folder of `fit units`: its HuBERT, frozen, hears what is made as it hears
    the recording. Spectra alone do not say what a listener needs to tell phones apart."""
    ears_weight: float = 1.0
    """Of the distance between what `ears` hear in both, in units of its variance."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    """Sizes of the networks."""
    judges: JudgesConfig
    """The discriminators."""
    training: TrainingConfig
    """Steps, learning rate and the like, of the generator."""
    validate_every: int = 1000
    """Steps between two looks at the clips that training leaves out."""
    validate_clips: int = 8
    """How many clips are left out."""


def parts(network: NetworkConfig, alphabet: Mapping[str, int], speakers: int) -> dict[str, Any]:
    """Return the arguments of `Voice`; pitch and style have one more row, for their absence."""
    names = [name for name in ("unit", "pitch", "style") if alphabet[name]]
    rows = {name: alphabet[name] + (name != "unit") for name in names} | {"speaker": speakers}
    inputs = {name: (count, getattr(network, f"{name}_width")) for name, count in rows.items()}
    inputs = {name: shape for name, shape in inputs.items() if shape[1]}
    own = ("duration_hidden", "contour_hidden")
    sizes = {k: v for k, v in asdict(network).items() if not k.endswith("_width") and k not in own}
    contour = {"hidden": network.contour_hidden, "points": POINTS}
    return {
        "generator": {"inputs": inputs, **sizes},
        "durations": {"hidden": network.duration_hidden, "changes": CHANGES + 1},
        "duration_inputs": list(inputs),
        "contour": contour if network.source else None,
    }
