"""Training of the vocoder: spectra first, then the discriminators join."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from spirit.data.shards import read_shards
from spirit.engine import Engine, finished, main_process, rank, train
from spirit.units import SAMPLE_RATE, Kind
from spirit.vocab import Vocab
from spirit.vocoder.discriminator import Discriminators
from spirit.vocoder.losses import (
    Opinion,
    SpectralLoss,
    discriminator_loss,
    feature_loss,
    generator_loss,
)
from spirit.vocoder.recipe import POINTS, VocoderRecipe, parts
from spirit.vocoder.samples import Samples
from spirit.vocoder.segments import (
    Batch,
    Clip,
    Draw,
    HearF0,
    chosen,
    draw_batch,
    labels,
    read_clips,
)
from spirit.vocoder.source import excite, noise
from spirit.vocoder.start import go_on_from
from spirit.vocoder.vocoder import Vocoder
from spirit.vocoder.voice import Voice

_KINDS = {"unit": Kind.HUBERT, "pitch": Kind.PITCH, "style": Kind.STYLE}


@runtime_checkable
class Hearing(Protocol):
    """Something that says how differently two waves are heard (`Ears` of `spirit.speech.ears`)."""

    def distance(
        self, made: Float[Tensor, "batch samples"], real: Float[Tensor, "batch samples"]
    ) -> Float[Tensor, ""]:
        """The distance, with a gradient for `made`."""
        ...


def fit(
    recipe: VocoderRecipe,
    hear_f0: HearF0,
    ears: Hearing | None = None,
    init: Voice | None = None,
) -> None:
    """Train a vocoder and write it to `recipe.out/vocoder`; goes on where it stopped.

    `hear_f0` hears pitch (`F0Extractor.batch` of `spirit.speech.f0`), `ears` are `recipe.ears`, on
    the device of the training; `init` is the voice of `recipe.init`.
    Raises ValueError where shards, audio and network do not fit each other.
    """
    target = recipe.out / "vocoder"
    if finished(recipe.out, recipe.training, recipe) and (target / "config.json").is_file():
        return
    shards = read_shards(recipe.units)
    if not len(shards):
        raise ValueError(f"{recipe.units} holds no rows; tokenize a corpus first")
    counts = Vocab.from_manifest(shards.manifest["vocabulary"]).count
    alphabet = {name: counts.get(kind, 0) for name, kind in _KINDS.items()}
    names = labels(chosen(shards, recipe.without)) if recipe.styles == "labels" else []
    sizes = {**alphabet, "style": len(names)} if names else alphabet
    frame = int(shards[0].tracks.by_kind[Kind.HUBERT].hop)
    clips, speakers = read_clips(
        shards,
        recipe.audio,
        frame=frame,
        hop=frame // POINTS,
        without=recipe.without,
        hear_f0=hear_f0,
        cache=recipe.out,
        styles=names,
    )
    torch.manual_seed(recipe.training.seed)
    voice = Voice(**parts(recipe.network, sizes, len(speakers)))
    if voice.generator.frame != frame:
        raise ValueError(f"the rates and hop make {voice.generator.frame} samples, not {frame}")
    if init is not None:
        go_on_from(voice, init)
    absent = {name: sizes[name] for name in ("pitch", "style")}
    usage = torch.zeros(len(speakers), alphabet["unit"], dtype=torch.int32)
    for clip in clips:
        usage[clip.speaker] += torch.bincount(
            torch.from_numpy(clip.runs.unit), minlength=alphabet["unit"]
        ).int()
    vocoder = Vocoder(voice, speakers, alphabet, absent=absent, usage=usage, styles=names)
    step = Step(recipe, vocoder, clips, ears)
    train(step, step.engines, recipe.training, recipe.out, recipe=recipe, unit="seconds")
    if main_process():
        vocoder.pace = step.pace()
        vocoder.save(target)


class Step:
    """One step of training, a pure function of its number and the weights."""

    def __init__(
        self,
        recipe: VocoderRecipe,
        vocoder: Vocoder,
        clips: Sequence[Clip],
        ears: Hearing | None = None,
    ) -> None:
        self.recipe, self.voice, self.ears = recipe, vocoder.voice, ears
        judges, training = recipe.judges, recipe.training
        alone = len(clips) // max(1, recipe.validate_clips)
        held = clips[::alone][: recipe.validate_clips] if alone > 1 else []
        self.clips = [clip for clip in clips if not any(clip is one for one in held)]
        ahead = -(-vocoder.voice.reach()[1] // vocoder.voice.generator.frame)
        self.draw = Draw(
            batch=recipe.batch,
            frames=recipe.frames,
            before=recipe.before,
            after=ahead,
            written=recipe.written,
            drop=recipe.drop,
        )
        self.absent = vocoder.absent
        # What short-time spectra cover but later ones complete is no fair comparison.
        generator = vocoder.voice.generator
        self.late = generator.n_fft - generator.hop if generator.head == "istft" else 0
        self.generator = Engine(vocoder.voice, training)
        network = Discriminators(
            periods=judges.periods,
            period_channels=judges.period_channels,
            sizes=judges.sizes,
            size_channels=judges.size_channels,
        )
        steps = max(1, (training.steps - judges.start) // judges.every)
        self.judges = Engine(network, replace(training, lr=judges.lr, steps=steps))
        self.engines = {"generator": self.generator, "discriminators": self.judges}
        self.spectral = SpectralLoss(recipe.sizes).to(self.generator.device)
        self.samples = Samples(recipe.out / "logs", vocoder, held, self.spectral)

    def __call__(self, i: int) -> dict[str, float | Tensor]:
        recipe, judges, device = self.recipe, self.recipe.judges, self.generator.device
        rng = np.random.default_rng((recipe.training.seed, i, rank()))
        hop = self.voice.generator.frame // POINTS
        batch = draw_batch(self.clips, self.draw, self.absent, hop, rng).to(device)
        self.voice.train()
        made = self.generator(
            batch.frames,
            batch.real,
            self._excitation(batch, rng),
            batch.crop,
            batch.heads,
            batch.real_heads,
        )
        until = batch.wave.shape[1] - self.late
        wave, real = made["wave"][:, :until], batch.wave[:, :until]
        losses = {"spectral": self.spectral(wave, real), **_predictor_losses(made, batch)}
        loss = losses["spectral"] + recipe.duration_weight * losses["durations"]
        if "log_f0" in made:
            loss = loss + recipe.contour_weight * (losses["pitch"] + 0.2 * losses["voicing"])
        if self.ears is not None:
            losses["heard"] = self.ears.distance(wave, real)
            loss = loss + recipe.ears_weight * losses["heard"]
        if i >= judges.start and (i - judges.start) % judges.every == 0:
            losses |= self._judge(*self._excerpt(wave, real, rng))
            loss = loss + judges.weight * losses["fooling"]
            loss = loss + judges.feature_weight * losses["features"]
        metrics: dict[str, float | Tensor] = {**losses, **self.generator.update(loss)}
        if (i + 1) % recipe.validate_every == 0 or i + 1 == recipe.training.steps:
            metrics |= self.samples(i + 1)
        seconds = batch.wave.numel() / SAMPLE_RATE
        return {**metrics, "loss": loss, "seconds": seconds}

    def _excitation(
        self, batch: Batch, rng: np.random.Generator
    ) -> Float[Tensor, "batch 2 samples"] | None:
        if self.voice.contour is None:
            return None
        phase = torch.from_numpy(rng.random(len(batch.wave))).to(batch.wave.device)
        pulses, _ = excite(torch.exp(batch.log_f0), batch.voiced, self.voice.hop, phase)
        starts = rng.integers(1 << 16, size=len(batch.wave))
        hiss = torch.stack([noise(pulses.shape[1], int(start)) for start in starts])
        return torch.stack([pulses, hiss.to(pulses.device)], dim=1)

    def _excerpt(
        self,
        wave: Float[Tensor, "batch samples"],
        real: Float[Tensor, "batch samples"],
        rng: np.random.Generator,
    ) -> tuple[Float[Tensor, "some excerpt"], Float[Tensor, "some excerpt"]]:
        judges = self.recipe.judges
        size = min(judges.frames * self.voice.generator.frame, wave.shape[1])
        rows = rng.permutation(len(wave))[: judges.batch]
        start = int(rng.integers(wave.shape[1] - size + 1))
        some = torch.from_numpy(rows).to(wave.device)
        return wave[some, start : start + size], real[some, start : start + size]

    def _judge(
        self, wave: Float[Tensor, "batch samples"], real: Float[Tensor, "batch samples"]
    ) -> dict[str, Tensor]:
        """Train the discriminators once, then ask them about the wave."""
        opinions = self.judges(torch.cat([real, wave.detach()]))
        halves = [score.chunk(2) for score, _ in opinions]
        truth: list[Opinion] = [(first, []) for first, _ in halves]
        lies: list[Opinion] = [(second, []) for _, second in halves]
        loss = discriminator_loss(truth, lies)
        self.judges.update(loss)
        with self.judges.frozen():
            with torch.no_grad():
                theirs = self.judges(real)
            mine = self.judges(wave)
        return {
            "fooling": generator_loss(mine),
            "features": feature_loss(theirs, mine),
            "discriminators": loss.detach(),
        }

    @torch.no_grad()
    def pace(self) -> float:
        """Return how much longer real runs are than predicted ones, over some of the data."""
        real = guessed = 0.0
        hop = self.voice.generator.frame // POINTS
        self.voice.eval()
        for number in range(8):
            rng = np.random.default_rng((self.recipe.training.seed, 1 << 32, number))
            batch = draw_batch(self.clips, self.draw, self.absent, hop, rng)
            batch = batch.to(self.generator.device)
            logs = self.voice.log_durations(batch.heads, batch.real_heads)
            guesses = torch.exp(logs.float()) - 1
            real += float(batch.lengths.sum())
            guessed += float(guesses.clamp(min=0)[batch.real_heads].sum())
        return round(real / guessed, 4) if guessed else 1.0


def _predictor_losses(made: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
    real = batch.real_heads
    error = made["durations"].float() - torch.log1p(batch.lengths)
    losses = {"durations": error.square()[real].mean()}
    if "log_f0" in made:
        per_frame = made["log_f0"].shape[1] // batch.real.shape[1]
        span = slice(batch.crop[0] * per_frame, batch.crop[1] * per_frame)
        away = (made["log_f0"][:, span] - batch.log_f0).abs() * batch.voiced
        losses["pitch"] = away.sum() / batch.voiced.sum().clamp(min=1)
        losses["voicing"] = functional.binary_cross_entropy_with_logits(
            made["voiced"][:, span], batch.voiced
        )
    return losses
