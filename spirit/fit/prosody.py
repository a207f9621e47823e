"""Training of the pitch and style tokenizers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from spirit.audio import read_audio
from spirit.data.corpus import Utterance
from spirit.engine import Engine, TrainingConfig, device, main_process, rank, train
from spirit.fit.measure import draw_utterances, keep_labels, measure, read_report, write_report
from spirit.fit.styles import beside_usual, cluster, cluster_figures
from spirit.formats.encoders import digest, find_encoder
from spirit.speech.encoder import hear
from spirit.speech.pitch import PitchFormat, PitchTokenizer
from spirit.speech.style import StyleFormat, StyleTokenizer, pool_f0, pool_features
from spirit.units import SAMPLE_RATE


@dataclass(frozen=True, kw_only=True)
class PitchConfig:
    """How a pitch tokenizer is trained."""

    corpus: Path
    """JSONL manifest or folder of recordings to train on."""
    heldout: Path
    """Recordings for the figures."""
    out: Path
    """Where pitch.json, pitch.safetensors and report.json go."""
    hours: float = 2.0
    """How much of the corpus is heard, drawn at random."""
    batch: int = 64
    """Excerpts per step."""
    frames: int = 512
    """Length of an excerpt in F0 frames (1/200 s); a multiple of 16."""
    commitment: float = 0.02
    """Weight of the loss that keeps the encoder near its codes."""
    unvoiced: float = 0.05
    """Weight of the contour where nothing is voiced, against 1 where something is."""
    form: PitchFormat = field(default_factory=PitchFormat)
    """How F0 is heard and normalized, and the size of the network."""
    training: TrainingConfig
    """Steps, learning rate and the like."""

    def __post_init__(self) -> None:
        if self.frames < 1 or self.frames % 2**self.form.halvings:
            raise ValueError(
                f"frames must be a multiple of {2**self.form.halvings}, not {self.frames}"
            )
        if self.batch < 1 or self.hours <= 0:
            raise ValueError("batch must be at least 1 and hours above 0")


@dataclass(frozen=True, kw_only=True)
class StyleConfig:
    """How a style tokenizer is trained: from the styles that a corpus names, or from clusters."""

    corpus: Path
    """JSONL manifest with a style for every recording to train on; `styles` needs none."""
    heldout: Path
    """Recordings for the figures."""
    hubert: Path
    """Folder of the HuBERT whose features are pooled."""
    layer: int = 0
    """Its layer, the same as of the units; 0 is the one its folder names."""
    pitch: Path
    """Folder of the pitch tokenizer, which says who hears F0."""
    out: Path
    """Where style.json, style.safetensors and report.json go."""
    styles: int = 0
    """How many styles to find, where none are named: k-means of seconds beside what is usual for
    their speaker. 0 takes the styles that the corpus names."""
    hours: float = 2.0
    """How much of the corpus is heard, drawn at random."""
    batch: int = 64
    """Recordings per step."""
    hidden: int = 64
    """Channels inside the classifier."""
    context: int = 2
    """Seconds before and after a second that have a say in its style."""
    narrow: int = 16
    """Channels that HuBERT's features have to pass, see `StyleFormat`; 0: they need not."""
    drop: float = 0.65
    """Share of the features that each step does without, where they have to pass."""
    training: TrainingConfig
    """Steps, learning rate and the like."""

    def __post_init__(self) -> None:
        if self.batch < 1 or self.hours <= 0:
            raise ValueError("batch must be at least 1 and hours above 0")
        if self.styles < 0 or self.styles == 1:
            raise ValueError("styles must be 0 (those that the corpus names) or at least 2")
        if self.narrow < 0:
            raise ValueError(f"narrow is a number of channels or 0, not {self.narrow}")
        if not 0 <= self.drop < 1:
            raise ValueError(f"drop is a share below 1, not {self.drop:g}")


def fit_pitch(config: PitchConfig) -> dict[str, float]:
    """Train a pitch tokenizer and give its figures on held-out recordings.

    `codes_used` is the share of codes that occur, `correlation` that of the decoded with the heard
    log F0 over voiced frames (mean over recordings), `voicing_error` the share of frames whose
    voicing is decoded wrongly. Can be stopped and goes on; a finished one is not done again.
    """
    if (report := read_report(config.out, config, config.training)) is not None:
        return report
    where = device(config.training.device)
    listen = config.form.hear(where)

    def f0(utterance: Utterance) -> Float[np.ndarray, "frames 1"]:
        return listen(torch.from_numpy(read_audio(utterance.audio))).cpu().numpy()[:, None]

    utterances = draw_utterances(config.corpus, config.hours, config.training.seed)
    heldout = draw_utterances(config.heldout, 0.5, 0)
    key = f"f0 {config.form.extractor}"
    heard = measure(utterances, config.out / "f0-train", key, f0)
    control = measure(heldout, config.out / "f0-heldout", key, f0)
    contours = [config.form.contour(h[:, 0], max(len(h), config.frames)) for h in heard]
    network = config.form.network()
    engine = Engine(network, config.training)
    network.train()

    def step(i: int) -> dict[str, float | Tensor]:
        rng = np.random.default_rng([config.training.seed, i, rank()])
        batch = torch.from_numpy(_excerpts(contours, config, rng)).to(engine.device)
        decoded, commitment, hidden, codes = engine(batch)
        weight = batch[:, 1] + config.unvoiced * (1 - batch[:, 1])
        contour = (weight * (decoded[:, 0].float() - batch[:, 0]).square()).sum() / weight.sum()
        voicing = (decoded[:, 1].float() - batch[:, 1]).square().mean()
        loss = contour + voicing + config.commitment * commitment
        metrics = engine.update(loss)
        seeds = torch.Generator().manual_seed(config.training.seed * 1_000_003 + i)
        restarted = network.codebook.update(hidden, codes, seeds)
        return {
            **metrics,
            "loss": loss,
            "contour": contour,
            "voicing": voicing,
            "restarted": float(restarted),
            "used": codes.unique().numel() / config.form.codes,
            "seconds": batch.shape[0] * batch.shape[2] / 200,
        }

    train(step, {"pitch": engine}, config.training, config.out, recipe=config, unit="seconds")
    tokenizer = PitchTokenizer(config.form, network.float(), listen)
    report = tokenizer.figures([h[:, 0] for h in control])
    if main_process():
        tokenizer.save(config.out)
        write_report(config.out, config, report)
    return report


def fit_style(config: StyleConfig) -> dict[str, float]:
    """Train a style tokenizer and give its figures on held-out recordings.

    `accuracy_second` is the share of seconds with the right style, `accuracy_recording` that of
    recordings by their seconds' mean, `chance` what naming the most frequent style would reach.
    Of styles that were found, see `cluster_figures`.
    Can be stopped and goes on; a finished one is not done again.
    """
    if (report := read_report(config.out, config, config.training)) is not None:
        return report
    drawn = draw_utterances(config.corpus, config.hours, config.training.seed)
    utterances = drawn if config.styles else _labelled(drawn, config.corpus)
    where = device(config.training.device)
    hubert = find_encoder(config.hubert, config.layer).to(where)
    rate = SAMPLE_RATE // hubert.hop
    listen = PitchTokenizer.load(config.pitch, where)

    def describe(utterance: Utterance) -> Float[np.ndarray, "seconds inputs"]:
        wave = read_audio(utterance.audio)
        seconds = torch.cat(hear(hubert, [wave], lambda rows: pool_features(rows, rate))[0])
        pooled = seconds.cpu().numpy()
        (f0,) = listen.f0([torch.from_numpy(wave).to(where)])
        return np.concatenate([pooled, pool_f0(f0, len(pooled))], axis=1).astype(np.float32)

    found = tuple(f"style-{number}" for number in range(config.styles))
    names = found or tuple(sorted({u.style for u in utterances}))
    heldout = [u for u in draw_utterances(config.heldout, 0.5, 0) if found or u.style in names]
    key = f"style {digest(config.hubert)} {hubert.layer} {listen.form.extractor}"
    seconds = measure(utterances, config.out / "seconds-train", key, describe)
    control = measure(heldout, config.out / "seconds-heldout", key, describe)
    if found and not sum(map(len, control)):
        raise ValueError(f"{config.heldout} has no whole second of speech; give other recordings")
    everyone, described = [*utterances, *heldout], [*seconds, *control]
    speakers = [u.speaker for u in everyone]

    def find() -> list[Int[np.ndarray, " _"]]:
        rows = beside_usual(described, speakers, hubert.channels, config.context)
        return cluster(rows, len(utterances), config.styles, config.training.seed)

    if found:
        told = [key, config.styles, config.context, config.training.seed]
        of = [(u.id, u.speaker, len(rows)) for u, rows in zip(everyone, described, strict=True)]
        labels = keep_labels(config.out / "styles.safetensors", [*told, of], find, where)
    else:
        pairs = zip(everyone, described, strict=True)
        labels = [np.full(len(rows), names.index(u.style)) for u, rows in pairs]
    form = StyleFormat(
        names=names,
        channels=hubert.channels,
        hidden=config.hidden,
        context=config.context,
        narrow=config.narrow,
    )
    network = form.network(config.drop)
    network.normalize_by(torch.from_numpy(np.concatenate(seconds)))
    engine = Engine(network, config.training)
    network.train()

    def step(i: int) -> dict[str, float | Tensor]:
        rng = np.random.default_rng([config.training.seed, i, rank()])
        picks = rng.integers(len(seconds), size=config.batch)
        pooled, present = _padded_batch([seconds[k] for k in picks])
        scores = engine(pooled.to(engine.device), present.to(engine.device)).float()
        wanted = torch.from_numpy(np.concatenate([labels[k] for k in picks])).long()
        chosen = scores[present.to(engine.device)]
        loss = torch.nn.functional.cross_entropy(chosen, wanted.to(engine.device))
        right = (chosen.argmax(-1).cpu() == wanted).float().mean()
        return {
            **engine.update(loss),
            "loss": loss,
            "accuracy": right,
            "seconds": float(present.sum()),
        }

    train(step, {"style": engine}, config.training, config.out, recipe=config, unit="seconds")
    tokenizer = StyleTokenizer(form, network.float().eval())
    if found:
        apart = slice(len(utterances), None)
        report = cluster_figures(tokenizer, control, labels[apart], speakers[apart])
    else:
        report = tokenizer.figures(control, [names.index(u.style) for u in heldout])
    if main_process():
        tokenizer.save(config.out)
        write_report(config.out, config, report)
    return report


def _labelled(utterances: Sequence[Utterance], corpus: Path) -> list[Utterance]:
    labelled = [u for u in utterances if u.style]
    if len({u.style for u in labelled}) < 2:
        raise ValueError(
            f"{corpus} names fewer than two styles; give each line a `style`, say how many "
            "`styles` to find, or leave style out"
        )
    return labelled


def _excerpts(
    contours: Sequence[Float[np.ndarray, "2 _"]], config: PitchConfig, rng: np.random.Generator
) -> Float[np.ndarray, "batch 2 frames"]:
    """Draw stretches, each moment of the corpus equally likely."""
    lengths = np.array([c.shape[1] for c in contours])
    picks = rng.choice(len(contours), size=config.batch, p=lengths / lengths.sum())
    starts = rng.integers(lengths[picks] - config.frames + 1)
    cuts = [contours[k][:, s : s + config.frames] for k, s in zip(picks, starts, strict=True)]
    return np.stack(cuts)


def _padded_batch(
    rows: Sequence[Float[np.ndarray, "_ inputs"]],
) -> tuple[Float[Tensor, "batch seconds inputs"], Bool[Tensor, "batch seconds"]]:
    tensors = [torch.from_numpy(row) for row in rows]
    pooled = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    return pooled, torch.arange(pooled.shape[1]) < lengths[:, None]
