"""Training of HuBERT by masked prediction, one iteration at a time."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spirit import commit
from spirit.config import dump
from spirit.data.corpus import Utterance, read_corpus
from spirit.engine import (
    Engine,
    TrainingConfig,
    device,
    finished,
    main_process,
    rank,
    train,
    world,
)
from spirit.fit.measure import keep_labels
from spirit.formats.encoders import digest, find_encoder
from spirit.speech.augment import augment
from spirit.speech.crops import UNKNOWN, Crops
from spirit.speech.discriminant import UNLABELED, discriminant, phone_states
from spirit.speech.hubert import SHAPE, Hubert
from spirit.speech.level import Level
from spirit.speech.listen import Listener, Wave, draw, features, load_waves
from spirit.speech.prediction import MaskedPrediction, draw_mask
from spirit.speech.quantizer import KMeans
from spirit.units import SAMPLE_RATE


@dataclass(frozen=True, kw_only=True)
class HubertShape:
    """The sizes of a HuBERT; the product of the strides is its hop in samples."""

    hidden: int = 256
    """Channels of the transformer."""
    layers: int = 4
    """Transformer layers."""
    heads: int = 4
    """Attention heads."""
    ffn: int = 1_024
    """Channels inside a feed-forward block."""
    conv_dim: tuple[int, ...] = (256, 256, 256)
    """Channels of the convolutions over the wave."""
    conv_kernel: tuple[int, ...] = (400, 4, 4)
    """Their widths, in samples of their own input."""
    conv_stride: tuple[int, ...] = (160, 2, 2)
    """Their steps."""
    position_kernel: int = 16
    """Width of the convolution that tells positions, in frames."""
    position_groups: int = 16
    """Groups of that convolution."""


@dataclass(frozen=True, kw_only=True)
class HubertFitConfig:
    """One iteration of HuBERT (Hsu et al. 2021)."""

    corpus: Path
    """A JSONL manifest or a folder of recordings."""
    out: Path
    """The folder for `hubert.safetensors`, `hubert.json`, logs and state."""
    training: TrainingConfig
    """Steps, learning rate and the rest."""
    network: HubertShape = HubertShape()
    """Sizes."""
    teacher: Path | None = None
    """The iteration before, or another encoder that `fit units` takes, whose features are clustered
    into targets; none: MFCC."""
    teacher_layer: int = 0
    """Which of its layers; 0 is the last."""
    warm: bool = False
    """Whether to go on from the teacher's weights; else from nothing, as in the paper. A short
    training gets further from there."""
    level: bool = False
    """Whether the features of all speakers get the same mean and covariance before they are
    clustered, where the corpus names speakers: HuBERT then learns what is said, not by whom."""
    phones: bool = False
    """Whether features are projected to where phones and their states differ most (LDA) before they
    are clustered; for a corpus that knows its phones."""
    supervised: bool = False
    """Whether the targets are the phones that the corpus knows, each in three states, instead of
    clusters. Frames whose phone is not known teach nothing. What a HuBERT learns to name is what
    its units keep: tokens from an encoder that was taught to transcribe are understood better than
    those of an encoder that was taught nothing (CosyVoice, Du et al. 2024, arXiv 2407.05407)."""
    clusters: int = 100
    """How many clusters the targets have."""
    cluster_seconds: float = 3_600.0
    """How much speech the clusters are fitted to."""
    frames: int = 50
    """Length of a training crop, in frames."""
    batch: int = 32
    """Crops in a step of one process."""
    mask_start: float = 0.12
    """Probability that a frame begins a masked span."""
    mask_span: int = 5
    """Length of a masked span, in frames."""
    seen: float = 1.0
    """Weight of the loss on frames that are not masked; it teaches the convolutions early."""
    degraded: float = 0.5
    """Share of the crops that get noise and a limited band; targets come from clean speech."""


def fit_hubert(config: HubertFitConfig) -> None:
    """Train a HuBERT from nothing into `config.out`; can be stopped, and then goes on."""
    out, training = config.out, config.training
    if (out / SHAPE).is_file() and finished(out, training, config):
        return
    torch.manual_seed(training.seed)
    hubert = _begin(config)
    utterances = list(read_corpus(config.corpus))
    waves = load_waves(utterances)
    if config.supervised:
        targets = _states(utterances, [hubert.frames(len(wave)) for wave in waves], hubert.hop)
        classes = 1 + max(int(row.max()) for row in targets)
    else:
        where = device(training.device)
        targets, classes = _targets(config, utterances, waves, hubert.hop, where), config.clusters
    torch.manual_seed(training.seed)  # targets that were kept took no random numbers
    engine = Engine(MaskedPrediction(hubert, classes), training)
    crops = Crops(
        waves,
        targets,
        hop=hubert.hop,
        frames=config.frames,
        batch=config.batch,
        seed=training.seed,
        rank=rank(),
        world=world(),
    )

    def step(number: int) -> dict[str, float | Tensor]:
        wave, targets, rng = crops.draw(number)
        sound = augment(torch.from_numpy(wave), rng, config.degraded)
        masked = draw_mask(
            config.batch, config.frames, rng, start=config.mask_start, span=config.mask_span
        )
        parts = (hubert.widen(sound), torch.from_numpy(masked), torch.from_numpy(targets))
        metrics = engine(*(part.to(engine.device) for part in parts), seen=config.seen)
        return {
            **metrics,
            **engine.update(metrics["loss"]),
            "seconds": wave.size * world() / SAMPLE_RATE,
        }

    train(step, {"hubert": engine}, training, out, recipe=config, unit="seconds")
    if main_process():
        commit.text(out / "recipe.toml", dump(config))
        hubert.save(out)


def _begin(config: HubertFitConfig) -> Hubert:
    if not config.warm:
        return Hubert.new(**dataclasses.asdict(config.network))
    if config.teacher is None:
        raise ValueError("warm = true goes on from a teacher's weights, but `teacher` is not set")
    return Hubert.load(config.teacher).train()


def _states(utterances: Sequence[Utterance], frames: Sequence[int], hop: int) -> list[np.ndarray]:
    """The phone and its state of every frame of each recording, by number."""
    states = phone_states([utterance.phones for utterance in utterances], frames, hop)
    if not (states >= 0).any():
        raise ValueError(UNLABELED)
    known = np.where(states >= 0, states, UNKNOWN)
    return np.split(known, np.cumsum(frames)[:-1])


def _targets(
    config: HubertFitConfig,
    utterances: Sequence[Utterance],
    waves: Sequence[Wave],
    hop: int,
    where: torch.device,
) -> list[np.ndarray]:
    """The cluster of every frame of the clean recordings; made once, by the main process."""
    speakers = [utterance.speaker if config.level else "" for utterance in utterances]
    source = digest(config.teacher) if config.teacher else "mfcc"
    told = [
        source,
        hop,
        config.training.seed,
        config.training.dtype,
        config.teacher_layer,
        config.clusters,
        config.cluster_seconds,
        speakers if config.level else None,
        config.phones,
        [len(w) for w in waves],
    ]

    def make() -> list[np.ndarray]:
        teacher = None
        if config.teacher:
            teacher = find_encoder(config.teacher, config.teacher_layer).to(where)
        if teacher is not None and teacher.hop != hop:
            raise ValueError(
                f"{config.teacher} has a frame every {teacher.hop} samples, this network every "
                f"{hop}; a teacher must keep the time of its pupil"
            )
        listener = Listener(teacher, hop, bf16=config.training.dtype == "bf16")
        seed = config.training.seed
        some = draw([len(wave) for wave in waves], config.cluster_seconds, seed)
        rows = listener([waves[i] for i in some], features)
        level = Level.fit(rows, [speakers[i] for i in some]) if config.level else None

        def leveled(row: Tensor, speaker: str) -> Tensor:
            return level(row, speaker) if level else row

        frames = np.concatenate(
            [leveled(torch.from_numpy(rows[n]), speakers[i]).numpy() for n, i in enumerate(some)]
        )
        projection = None
        if config.phones:
            spoken = [utterances[i].phones for i in some]
            states = phone_states(spoken, [len(row) for row in rows], hop)
            projection = discriminant(frames, states)
        clusters = KMeans.fit(frames, config.clusters, seed=seed, projection=projection).to(where)
        labels: dict[int, np.ndarray] = {}
        by_speaker: dict[str, list[int]] = {}
        for i, speaker in enumerate(speakers):
            by_speaker.setdefault(speaker, []).append(i)
        for speaker, own in sorted(by_speaker.items()):

            def label(rows: Tensor, speaker: str = speaker) -> np.ndarray:
                return clusters.units(leveled(rows, speaker))

            labels |= zip(own, listener([waves[i] for i in own], label), strict=True)
        return [labels[i] for i in range(len(waves))]

    return keep_labels(config.out / "targets.safetensors", told, make, where)
