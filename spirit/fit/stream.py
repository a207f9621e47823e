"""Features of a corpus in pieces, computed as they are asked for, and k-means over them."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from tqdm import tqdm

from spirit.data.corpus import Utterance
from spirit.engine import main_process
from spirit.fit.measure import length
from spirit.speech.discriminant import STATES, Scatter
from spirit.speech.listen import Listener, features, from_16_bit, load_waves
from spirit.speech.passes import refine
from spirit.speech.purity import phone_labels
from spirit.speech.quantizer import KMeans

BLOCK_SECONDS = 320.0
"""Speech of a block, unless a single recording is longer: 25 MB of features at 25 Hz."""


@dataclass(frozen=True)
class Stream:
    """Recordings in blocks. Every pass hears the same blocks, one after another, and keeps none."""

    blocks: Sequence[Sequence[Utterance]]
    listener: Listener

    @classmethod
    def build(cls, utterances: Sequence[Utterance], listener: Listener, seconds: float) -> "Stream":
        """The first recordings, up to so many seconds. Headers are read where a manifest says no
        length."""
        blocks: list[list[Utterance]] = []
        room, left = 0.0, seconds
        for utterance in utterances:
            if left <= 0:
                break
            seconds_here = length(utterance)
            if not blocks or seconds_here > room:
                blocks.append([])
                room = BLOCK_SECONDS
            blocks[-1].append(utterance)
            room -= seconds_here
            left -= seconds_here
        return cls(blocks, listener)

    def rows(
        self, first: int = 0, names: dict[str, int] | None = None
    ) -> Iterator[tuple[Float[np.ndarray, "_ channels"], Int[np.ndarray, " _"]]]:
        """Features and states of phones (by their numbers in `names`, which grows) of each block,
        from block `first` on."""
        names = {} if names is None else names
        hop = self.listener.hop
        bar = tqdm(
            total=len(self.blocks), initial=first, desc="listening", unit="block",
            disable=not main_process(),
        )  # fmt: skip
        with bar:
            for block in self.blocks[first:]:
                waves = [from_16_bit(wave) for wave in load_waves(block, "")]
                rows = self.listener.listen(waves, features)
                states = [
                    phone_labels(utterance.phones, names, len(row), hop, states=STATES)
                    for utterance, row in zip(block, rows, strict=True)
                ]
                yield np.concatenate(rows), np.concatenate(states)
                bar.update()

    def cluster(
        self,
        units: int,
        *,
        memory: float,
        passes: int,
        seed: int,
        phones: bool,
        state: Path,
        seal: str,
        device: torch.device,
    ) -> tuple[KMeans, list[float]]:
        """K-means of all frames while at most `memory` MB of them are held; see `refine`."""

        def begin() -> KMeans:
            sample, projection = self._sample(memory, phones=phones)
            if len(sample) < units:
                raise ValueError(
                    f"{len(sample)} frames are too few for {units} units; use more speech, or more "
                    f"than {memory:g} MB of memory"
                )
            return KMeans.fit(sample, units, seed=seed, projection=projection)

        told = [seal, units, memory, seed, phones, [[u.id for u in b] for b in self.blocks]]
        return refine(
            begin,
            lambda first: (rows for rows, _ in self.rows(first)),
            len(self.blocks),
            passes=passes,
            state=state,
            seal=hashlib.sha256(json.dumps(told).encode()).hexdigest(),
            device=device,
        )

    def _sample(
        self, memory: float, *, phones: bool
    ) -> tuple[Float[np.ndarray, "frames channels"], Float[np.ndarray, "channels _"] | None]:
        """The first frames, as many as memory holds; with `phones`, discriminants of all frames."""
        scatter, names = Scatter(), dict[str, int]()
        sample, filled = np.zeros((0, 0), np.float32), 0
        for rows, states in self.rows(names=names):
            if not filled:
                # A projection needs as much room again for the frames that it turns.
                held = memory * 1e6 / (rows.shape[1] * 4 * (2 if phones else 1))
                sample = np.empty((max(1, int(held)), rows.shape[1]), np.float32)
            some = rows[: len(sample) - filled]
            sample[filled : filled + len(some)] = some
            filled += len(some)
            if phones:
                scatter.add(rows, states)
            elif filled == len(sample):
                break
        return sample[:filled], scatter.directions() if phones else None
