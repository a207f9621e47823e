"""Crops of equal length from a corpus held in memory: what HuBERT trains on."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

UNKNOWN = -100
"""The target of a frame that has none."""


class Crops:
    """Crops and the target of each of their frames, a pure function of (seed, step, rank).

    An epoch is a random order of pieces, a wave of `n` crop lengths counting as `n` pieces. A wave
    shorter than the crop lies at a random place in silence, a longer one gives a random stretch;
    both begin at a frame, so that targets fit.

    With `stretch`, speech is played up to that share faster or slower, which moves the pitch and
    the formants as another speaker would, and keeps its targets.
    """

    def __init__(
        self,
        waves: Sequence[Int[np.ndarray, " _"]],
        targets: Sequence[Int[np.ndarray, " _"]],
        *,
        hop: int,
        frames: int,
        batch: int,
        seed: int,
        stretch: float = 0.0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """`waves` are 16-bit integers (115 MB an hour); `frames` is the length of a crop."""
        self.waves, self.targets = waves, targets
        self.hop, self.frames, self.batch = hop, frames, batch
        self.seed, self.rank, self.world = seed, rank, world
        self.stretch = stretch
        counts = np.array([len(target) for target in targets])
        self._pieces = np.repeat(
            np.arange(len(counts)), np.maximum(1, (counts + frames // 2) // frames)
        )
        self._order: tuple[int, Int[np.ndarray, " pieces"]] = (-1, self._pieces)

    def draw(
        self, step: int
    ) -> tuple[
        Float[np.ndarray, "batch samples"], Int[np.ndarray, "batch frames"], np.random.Generator
    ]:
        """Crops, their targets (-100 where there is no speech), the generator that drew them."""
        rng = np.random.default_rng((self.seed, step, self.rank))
        sound = np.zeros((self.batch, self.frames * self.hop), np.float32)
        wanted = np.full((self.batch, self.frames), UNKNOWN, np.int64)
        for row in range(self.batch):
            piece = self._piece((step * self.world + self.rank) * self.batch + row)
            wave, target = self.waves[piece], self.targets[piece]
            speed = (1 + self.stretch) ** rng.uniform(-1, 1) if self.stretch else 1.0
            spare = int(len(target) - self.frames * speed)
            start = int(rng.integers(spare + 1)) if spare > 0 else 0
            place = int(rng.integers(1 - int(spare / speed))) if spare < 0 else 0
            # The frame of the recording that is heard in the middle of each frame of the crop.
            heard = start + ((np.arange(self.frames - place) + 0.5) * speed).astype(np.int64)
            heard = heard[heard < len(target)]
            wanted[row, place : place + len(heard)] = target[heard]
            played = wave[start * self.hop :][: int(self.frames * self.hop * speed) + 2]
            if speed != 1.0:
                when = np.arange(0, len(played) - 1, speed)
                played = np.interp(when, np.arange(len(played)), played)
            room = sound[row, place * self.hop :]
            room[: len(played)] = played[: len(room)]
        return sound / np.float32(32_768), wanted, rng

    def _piece(self, number: int) -> int:
        epoch, place = divmod(number, len(self._pieces))
        if self._order[0] != epoch:
            rng = np.random.default_rng((self.seed, epoch, 1 << 31))
            self._order = (epoch, rng.permutation(self._pieces))
        return int(self._order[1][place])
