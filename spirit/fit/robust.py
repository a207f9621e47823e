"""Robust units: a CTC-linear quantizer that hears in bad recordings what it hears in good ones."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spirit import commit
from spirit.config import dump, plain
from spirit.engine import Engine, TrainingConfig, device, finished, main_process, rank, train, world
from spirit.fit.heard import Heard, divide, edit_distances, unit_figures
from spirit.fit.measure import keep_labels
from spirit.fit.units import REPORT
from spirit.formats.encoders import digest, find_encoder
from spirit.formats.quantizers import read_quantizer
from spirit.speech.crops import Crops
from spirit.speech.distillation import Distillation, layer_sizes
from spirit.speech.distort import WAYS, distort
from spirit.speech.hubert import Hubert
from spirit.speech.listen import Listener, Wave, features, load_waves
from spirit.speech.pretrained import Pretrained, in_bf16
from spirit.speech.quantizer import CTCLinear, KMeans
from spirit.units import SAMPLE_RATE

FIRST_SECONDS = 120.0
"""Speech from which the mean and the spread of each channel are taken."""


@dataclass(frozen=True, kw_only=True)
class RobustFitConfig:
    """A quantizer that is taught the units of clean speech from worse recordings (Gat et al. 2023,
    "Augmentation invariant discrete representation for generative spoken language modeling")."""

    corpus: Path
    """A JSONL manifest or a folder of recordings, as clean as can be had."""
    units: Path
    """The teacher with its HuBERT: a folder of `fit units`, or of `fit robust` for one more
    iteration."""
    out: Path
    """The folder for HuBERT, the quantizer (`units.safetensors`), the report, logs and state."""
    training: TrainingConfig
    """Steps, learning rate and the rest."""
    ways: tuple[str, ...] = tuple(WAYS)
    """How recordings are made worse: stretch (tempo), reverb, noise, band, level."""
    share: float = 0.5
    """Share of the crops to which each of these happens."""
    frames: int = 100
    """Length of a training crop, in frames."""
    batch: int = 16
    """Crops in a step of one process."""
    hidden: tuple[int, ...] = ()
    """Channels between the linear layers; none: two widths in even steps, as in Spirit LM."""
    timing: float = 0.3
    """Weight of a cross-entropy that keeps units where they are heard; 0 is CTC alone, as in the
    paper, after which a unit may lie anywhere near its sound."""
    report_seconds: float = 900.0
    """How much other speech to measure on, at most a fifth of the corpus."""

    def __post_init__(self) -> None:
        if unknown := [way for way in self.ways if way not in WAYS]:
            raise ValueError(f"ways: {unknown[0]!r} is none of {', '.join(WAYS)}")
        if self.timing < 0:
            raise ValueError(f"timing must be at least 0, not {self.timing:g}")
        if not self.ways or not 0 < self.share <= 1:
            raise ValueError("ways must name at least one, and share lie above 0 and up to 1")
        if self.frames < 1 or self.batch < 1 or any(width < 1 for width in self.hidden):
            raise ValueError("frames, batch and the widths in hidden must be at least 1")


def fit_robust(config: RobustFitConfig) -> dict[str, float]:
    """Train a quantizer into `config.out`, a folder like that of `fit units`; can be stopped, and
    then goes on; a finished one is not made again.

    Gives the figures of `fit units` for the quantizer, from recordings that it was not trained on,
    and `ued_WAY`: by how many per cent of its units a recording made worse differs; the same of the
    teacher begins with `teacher_`.
    """
    out, training = config.out, config.training
    if (out / REPORT).is_file() and finished(out, training, config):
        kept = json.loads((out / REPORT).read_text(encoding="utf-8"))
        if kept["config"] == plain(config):
            done: dict[str, float] = kept["figures"]
            return done
    if out.resolve() == config.units.resolve():
        raise ValueError(f"{out} is the folder of the teacher; give a new one")
    torch.manual_seed(training.seed)
    where = device(training.device)
    encoder = find_encoder(config.units).to(where).eval()
    teacher = read_quantizer(config.units / "units.safetensors").to(where)
    if teacher.channels != encoder.channels:
        raise ValueError(
            f"{config.units}: its units were fitted on {teacher.channels} channels but its HuBERT "
            f"has {encoder.channels}; fit them again"
        )
    rest, apart = divide(config.corpus, training.seed)
    waves = load_waves(rest)
    listener = Listener(encoder, encoder.hop, bf16=training.dtype == "bf16")
    pupil = _begin(config, teacher, listener, waves)
    engine = Engine(Distillation(pupil, config.timing), training)
    _learn(config, engine, encoder, waves, _clean_units(config, teacher, listener, waves))
    if not main_process():
        return {}
    control = Heard.read(apart, config.report_seconds, encoder.hop)
    return _finish(config, encoder, (pupil.eval(), teacher), control)


def _begin(
    config: RobustFitConfig,
    teacher: KMeans | CTCLinear,
    listener: Listener,
    waves: Sequence[Wave],
) -> CTCLinear:
    """A new quantizer that sees every channel with mean 0 and variance 1 at first."""
    units = len(teacher) - isinstance(teacher, CTCLinear)
    first, *between, last = layer_sizes(teacher.channels, units)
    quantizer = CTCLinear([first, *(config.hidden or between), last])
    ends = np.cumsum([len(wave) for wave in waves]) / SAMPLE_RATE
    some = waves[: 1 + int(np.searchsorted(ends, FIRST_SECONDS))]
    rows = torch.from_numpy(np.concatenate(listener(some, features)))
    mean, spread = rows.mean(0), rows.std(0).clamp(min=1e-3)
    layer = quantizer.layers[0]
    assert isinstance(layer, torch.nn.Linear)
    with torch.no_grad():
        layer.weight.div_(spread)
        layer.bias.sub_(layer.weight @ mean)
    return quantizer


def _clean_units(
    config: RobustFitConfig,
    teacher: KMeans | CTCLinear,
    listener: Listener,
    waves: Sequence[Wave],
) -> list[np.ndarray]:
    """The teacher's unit of every frame of the clean recordings."""
    told = [
        digest(config.units),
        config.training.seed,
        config.training.dtype,
        [len(wave) for wave in waves],
    ]
    path = config.out / "targets.safetensors"
    where = device(config.training.device)
    return keep_labels(path, told, lambda: listener(waves, teacher.units), where)


def _learn(
    config: RobustFitConfig,
    engine: Engine,
    encoder: Hubert | Pretrained,
    waves: Sequence[Wave],
    units: Sequence[np.ndarray],
) -> None:
    training, task = config.training, engine.module
    assert isinstance(task, Distillation)
    crops = Crops(
        waves,
        units,
        hop=encoder.hop,
        frames=config.frames,
        batch=config.batch,
        seed=training.seed,
        rank=rank(),
        world=world(),
    )
    listening = in_bf16(encoder) if training.dtype == "bf16" else encoder

    def step(number: int) -> dict[str, float | Tensor]:
        sound, wanted, rng = crops.draw(number)
        worse, targets = [], []
        for wave, row in zip(sound, wanted, strict=True):
            # A recording shorter than the crop lies in silence, which is no part of it.
            known = np.flatnonzero(row >= 0)
            heard = wave[known[0] * encoder.hop : (known[-1] + 1) * encoder.hop]
            worse.append(distort(heard, rng, config.ways, config.share))
            targets.append(row[known])
        # Inference tensors take no part in a backward pass.
        rows = [row.clone() for row in listening.features(worse)]
        batch = task.batch(rows, targets)
        metrics = engine(*batch)
        return {
            **metrics,
            **engine.update(metrics["loss"]),
            "seconds": sound.size * world() / SAMPLE_RATE,
        }

    train(step, {"quantizer": engine}, training, config.out, recipe=config, unit="seconds")


def _finish(
    config: RobustFitConfig,
    encoder: Hubert | Pretrained,
    quantizers: tuple[CTCLinear, KMeans | CTCLinear],
    control: Heard,
) -> dict[str, float]:
    """Measure in single precision, as tokenizers hear, and write what `fit units` writes."""
    listener, (pupil, teacher) = Listener(encoder, encoder.hop), quantizers
    own, others = edit_distances(listener, quantizers, control, config.ways)
    figures = unit_figures(listener, pupil, control) | own
    before = unit_figures(listener, teacher, control) | others
    figures |= {f"teacher_{name}": value for name, value in before.items()}
    commit.text(config.out / "recipe.toml", dump(config))
    encoder.save(config.out)
    pupil.save(config.out / "units.safetensors")
    report = {"figures": figures, "layer": encoder.layer, "config": plain(config)}
    commit.json_file(config.out / REPORT, report)
    return figures
