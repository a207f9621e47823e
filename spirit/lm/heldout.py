"""How good a model is on documents that it is never trained on."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from spirit.codec import Codec
from spirit.data.loader import IGNORED, MixtureConfig, Rows
from spirit.engine import Engine, rank, ranks, world
from spirit.lm.learner import Batch
from spirit.lm.loss import Modalities
from spirit.lm.retention import Retention


def heldout_batches(
    mixture: MixtureConfig,
    shards: tuple[Path, ...],
    codec: Codec,
    lay_out: Callable[[Mapping[str, Tensor]], Batch],
) -> dict[str, Batch]:
    """A few rows of every kind of document, the same at every call; none where no shards are.

    No document is measured twice.
    """
    batches: dict[str, Batch] = {}
    if not shards:
        return batches
    mixture = replace(mixture, shards=shards, texts=(), own_texts=True, workers=0)
    for source in mixture.weights:
        alone = replace(
            mixture,
            rows=-(-8 // world()) * world(),
            fill=0.0,
            interleaved=float(source == "interleaved"),
            speech=float(source == "speech"),
            text=float(source == "text"),
            transcribe=float(source == "transcribe"),
            speak=float(source == "speak"),
        )
        rows = Rows(alone, codec, rank=rank(), ranks=world())
        if rows.counts[source] < alone.window:  # all of them, before any comes again
            alone = replace(alone, window=rows.counts[source])
            rows = Rows(alone, codec, rank=rank(), ranks=world())
        batch = next(rows)
        _count_once(rows, batch)
        batches[source] = lay_out(batch)
    return batches


def _count_once(rows: Rows, batch: Mapping[str, Tensor]) -> None:
    """Take away the labels of what stands in the last batch a second time, in whatever process's
    rows: few documents do not fill them."""
    seen: set[tuple[int, int]] = set()
    for number, pieces in enumerate(rows.latest):
        again = []
        for place, piece in enumerate(pieces):
            if (piece.number, piece.start) in seen:
                again.append(place)
            seen.add((piece.number, piece.start))
        row, whose = divmod(number, rows.ranks)
        if whose == rows.rank:
            known = torch.isin(batch["document"][row], torch.tensor(again, dtype=torch.long))
            batch["labels"][row][known] = IGNORED


@torch.no_grad()
def measure(
    engine: Engine,
    heldout: Mapping[str, Batch],
    modalities: Modalities,
    retention: Retention | None,
) -> dict[str, float | Tensor]:
    """Losses on held-out documents, as "heldout/transcribe/text" and so on, and on text alone."""
    engine.module.eval()
    found: dict[str, float | Tensor] = {}
    for source, batch in heldout.items():
        docs = batch.to(engine.device)
        sums = ranks.summed(modalities.sums(engine(docs)[0], docs.labels))
        means = modalities.means(sums)
        found |= {f"heldout/{source}/{name}": value for name, value in means.items()}
    if retention is not None:
        found |= retention.measure(engine)
    engine.module.train()
    return found
