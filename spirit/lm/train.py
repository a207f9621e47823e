"""Training of the language model: recipe in, model folder out."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from spirit import commit
from spirit.codec import Codec, HFText
from spirit.config import dump
from spirit.data.loader import MixtureConfig, Rows
from spirit.engine import (
    Engine,
    NotFinite,
    device,
    finished,
    main_process,
    network,
    rank,
    ranks,
    watch,
    world,
)
from spirit.engine import train as run
from spirit.lm import blame, ready, start
from spirit.lm import model as llama
from spirit.lm.heldout import heldout_batches, measure
from spirit.lm.learner import Batch, Learner, LMTrainingConfig, in_rows
from spirit.lm.lora import LoraConfig, adapt, merged
from spirit.lm.loss import Modalities
from spirit.lm.retention import Retention, RetentionConfig, mean
from spirit.vocab import Vocab


@dataclass(frozen=True, kw_only=True)
class SizeConfig:
    """The shape of a new Llama."""

    hidden: int = 256
    """Channels between layers."""
    layers: int = 6
    heads: int = 4
    ffn: int = 704
    """Channels inside the feed-forward part."""
    positions: int = 2_048
    """The longest sequence it is meant for."""
    rope_theta: float = 10_000.0
    tied: bool = True
    """Whether input and output share one table."""


@dataclass(frozen=True, kw_only=True)
class LMRecipe:
    """Everything that makes a language model: tokenizer, data, shape, training."""

    tokenizer: Path
    """Folder with `text.json` and `vocab.json`; the shards were made with it."""
    out: Path
    """Folder for the model (`model`), logs (`logs`) and checkpoints (`state`)."""
    mixture: MixtureConfig
    training: LMTrainingConfig
    init: Path | None = None
    """A model in Hugging Face's format to start from: a text model, which is widened (the tokenizer
    has its `text`), or one that was trained here; none: a new one of `size`."""
    new_rows: Literal["mean", "random"] = "mean"
    """How the rows of markers and units begin in a text model: around the mean of the old ones, or
    at random, as in Spirit LM."""
    rope_theta: float | None = None
    """The base of rotary positions that takes the place of the one in `init`; none: that stays."""
    size: SizeConfig = field(default_factory=SizeConfig)
    heldout: tuple[Path, ...] = ()
    """Shards that are never trained, to measure the loss on."""
    guide: float = 0.0
    """Weight of the loss that draws the first head of `guide_layers` to the word in question, where
    word times are known: transcribing and speaking are then learned several times sooner."""
    guide_layers: tuple[int, ...] = (2, 3)
    """Layers, counted from 0."""
    measure_every: int = 500
    """Steps between two measurements on `heldout`."""
    dtype: str = "bf16"
    """Of the finished weights on disk: bf16 or fp32."""
    across_documents: bool = False
    """Whether a document sees those before it in its row; else each one is alone."""
    lora: LoraConfig | None = None
    """Learn small matrices beside the weights of `init` in place of all weights."""
    retention: RetentionConfig | None = None
    """Text to compare the model with `init` by."""

    def __post_init__(self) -> None:
        if self.dtype not in ("bf16", "fp32"):
            raise ValueError(f"dtype must be bf16 or fp32, not {self.dtype!r}")
        if self.measure_every < 1:
            raise ValueError(f"measure_every must be at least 1, not {self.measure_every}")
        if self.guide < 0:
            raise ValueError(f"guide is a weight of at least 0, not {self.guide:g}")
        if self.init is None:
            self.mixture.check_positions(self.size.positions)
            if self.lora or self.retention:
                part = "lora" if self.lora else "retention"
                raise ValueError(f"[{part}] needs a text model to start from; name it by `init`")
        if self.rope_theta is not None and (self.init is None or not self.rope_theta > 0):
            raise ValueError(
                f"rope_theta = {self.rope_theta:g} is above 0 and changes a text model that `init` "
                "names; a new model has size.rope_theta"
            )


@watch.watched
def train(recipe: LMRecipe) -> Path:
    """Train, and write the model folder `recipe.out / "model"`, which is returned.

    Interrupted, it goes on where it was; finished, it does nothing again.

    Raises ValueError where recipe, data and model do not fit together, and NotFinite, before the
    step, where a loss or gradient is no number; the rows of that step are then named on stderr.
    """
    target, config = recipe.out / "model", recipe.training
    if finished(recipe.out, config, recipe) and any(target.glob("*.safetensors")):
        return target
    ranks.start(device(config.device))  # early: from here on a death is noticed
    network.settings(config, config.accumulate)
    texts = recipe.retention.texts if recipe.retention else ()
    ready.check(recipe.init, texts, recipe.mixture)
    tokenizer = ready.fingerprint(recipe.tokenizer, (*recipe.mixture.shards, *recipe.heldout))
    vocab = Vocab.load(recipe.tokenizer / "vocab.json")
    codec = Codec(HFText.load(recipe.tokenizer / "text.json"), vocab)
    guided = recipe.guide_layers if recipe.guide else ()
    if recipe.mixture.rows % (world() * config.accumulate):
        raise ValueError(
            f"mixture.rows = {recipe.mixture.rows} cannot be shared by {world()} process(es) with "
            f"training.accumulate = {config.accumulate}"
        )
    rows = Rows(recipe.mixture, codec, rank=rank(), ranks=world(), windows=bool(guided))
    torch.manual_seed(config.seed)
    learner = _learner(recipe, vocab, guided)
    recipe.mixture.check_positions(learner.model.config.max_position_embeddings)

    def lay_out(batch: Mapping[str, Tensor]) -> Batch:
        return learner.lay_out(batch, recipe.across_documents)

    heldout = heldout_batches(recipe.mixture, recipe.heldout, codec, lay_out)
    retention = None
    if recipe.retention is not None:
        retention = Retention(
            recipe.retention, codec, learner, row=recipe.mixture.row, seed=config.seed
        )
    hold = recipe.retention.kl if recipe.retention else 0.0
    engine = Engine(
        learner,
        config,
        hidden=llama.matrices(learner.model),
        accumulate=config.accumulate + bool(hold),
    )
    if retention is not None and recipe.init is not None:
        retention.begin(recipe.init, engine)
    modalities = Modalities(vocab)

    def step(number: int) -> Mapping[str, float | Tensor]:
        batch = next(rows)
        parts = [lay_out(part) for part in _split(batch, config)]
        # Every label weighs the same, in whatever part and on whatever rank: gradients are
        # averaged over ranks and summed over parts.
        labels = sum(len(part.labels) for part in parts)
        total = max(1, ranks.total(labels))
        sums = torch.zeros(2, len(modalities.names), device=engine.device)
        metrics: dict[str, float | Tensor] = {}
        seen: list[Tensor] = []

        def losses() -> Iterator[Tensor]:
            nonlocal sums
            for part in parts:
                docs = part.to(engine.device)
                found, away = engine(docs)
                seen.append(found.detach())
                sums += modalities.sums(found, docs.labels)
                loss = found.sum() * world() / total
                if away is not None:
                    metrics["guide"] = metrics.get("guide", 0.0) + away.detach() / len(parts)
                    loss = loss + recipe.guide * away / len(parts)
                yield loss
            if retention is not None and hold:
                docs = retention.batch(number).to(engine.device)
                far = engine(docs, retention.base)[0]
                metrics["retention/kl_loss"] = mean(far.detach())
                yield hold * far.sum() * world() / max(1, ranks.total(len(far)))

        try:
            metrics |= engine.update(losses())
        except NotFinite as error:
            origins = [part.origin for part in parts]
            blame.tell(rows, batch, origins, seen, all_of_them=error.what == "gradient")
            raise
        sums = ranks.summed(sums)
        tokens, pairs = _counts(batch, recipe.across_documents)
        metrics |= {
            "loss": sums[0].sum() / sums[1].sum().clamp(min=1),
            "tokens": float(tokens) * world(),
            "flops": learner.flops(tokens, labels, pairs) * world(),
            **modalities.means(sums),
            **rows.measured,
        }
        if (number + 1) % recipe.measure_every == 0 or number + 1 == config.steps:
            metrics |= measure(engine, heldout, modalities, retention)
        return metrics

    try:
        run(
            step,
            {"lm": engine},
            config,
            recipe.out,
            recipe=recipe,
            state={"rows": rows},
            fingerprints={"tokenizer": tokenizer, "vocabulary": vocab.fingerprint},
            unit="tokens",
            formula=learner.formula,
        )
    finally:
        rows.close()
    _write(recipe, engine, vocab, tokenizer, target)
    return target


def _split(batch: Mapping[str, Tensor], config: LMTrainingConfig) -> list[dict[str, Tensor]]:
    """The rows of this process in `accumulate` parts."""
    parts = zip(*(whole.chunk(config.accumulate) for whole in batch.values()), strict=True)
    return [dict(zip(batch, part, strict=True)) for part in parts]


def _counts(batch: Mapping[str, Tensor], across: bool) -> tuple[int, int]:
    """Tokens, and pairs of positions that see each other."""
    real = batch["document"] >= 0
    places = torch.arange(real.shape[1]).expand_as(real) if across else batch["positions"]
    return int(real.sum()), int((places[real] + 1).sum())


def _learner(recipe: LMRecipe, vocab: Vocab, guided: tuple[int, ...]) -> Learner:
    config, model = recipe.training, _begin(recipe, vocab)
    if recipe.lora is not None and recipe.init is not None:
        if not recipe.lora.embeddings and not (recipe.init / "spirit.toml").is_file():
            raise ValueError(
                f"lora.embeddings = false would leave the new rows of {recipe.init} as they were "
                "drawn; say true"
            )
        adapt(model, recipe.lora)
    where = device(config.device)
    return Learner(
        model,
        guided,
        in_rows=in_rows(model, config, where, recipe.mixture.row, bool(guided)),
        checkpointing=config.checkpointing,
        compiled=config.compile,
        fused_loss=config.fused_loss,
    )


def _begin(recipe: LMRecipe, vocab: Vocab) -> PreTrainedModel:
    size = recipe.size
    if recipe.init is None:
        return llama.new_llama(
            vocab.size,
            size.hidden,
            size.layers,
            size.heads,
            size.ffn,
            positions=size.positions,
            rope_theta=size.rope_theta,
            tied=size.tied,
        )
    ours = start.is_ours(recipe.init, recipe.tokenizer)
    half = recipe.training.dtype == "bf16-weights"
    model = start.read_once(recipe.init, torch.bfloat16 if half else torch.float32).train()
    if recipe.rope_theta is not None:
        llama.set_rope_theta(model, recipe.rope_theta)
    if not ours:
        llama.widen(model, vocab, rows=recipe.new_rows, seed=recipe.training.seed)
    ranks.together(lambda: start.check_network(model) if main_process() else None)
    return model


def _write(recipe: LMRecipe, engine: Engine, vocab: Vocab, tokenizer: str, target: Path) -> None:
    weights = engine.weights(everywhere=False)
    if not main_process():
        return
    model = engine.module.model
    own = {key.removeprefix("model."): value for key, value in weights.items()}
    if recipe.lora is not None:
        own = merged(own, recipe.lora)
    dtype = torch.bfloat16 if recipe.dtype == "bf16" else torch.float32
    with commit.folder(target) as partial:
        llama.save(partial, model, vocab, weights=own, dtype=dtype)
        where = os.path.relpath(recipe.tokenizer, target)
        commit.text(
            partial / "spirit.toml",
            f'tokenizer = "{where}"\nfingerprint = "{tokenizer}"\n'
            f'vocabulary = "{vocab.fingerprint}"\n',
        )
        commit.text(partial / "recipe.toml", dump(recipe))
