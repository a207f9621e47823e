"""What a text model still knows of text while it learns speech, measured and, if wanted, held."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spirit.codec import Codec
from spirit.data.documents import draw_rng, read_lines
from spirit.data.loader import pack
from spirit.engine import Engine, rank, world
from spirit.engine.ranks import receive, summed
from spirit.lm import start
from spirit.lm.learner import Batch, Learner

HELD = 10
"""Every tenth line is measured and never compared in training."""


@dataclass(frozen=True, kw_only=True)
class RetentionConfig:
    """Text that a model which starts from `init` is to be as good at as that one."""

    texts: tuple[Path, ...]
    """Text files, one sentence a line, that are no part of the mixture."""
    kl: float = 0.0
    """Weight of a loss that holds the model near `init` on that text: KL(init || model), in nats a
    token. It needs `init` in memory, and one more pass of `rows` a step."""
    measure: bool = True
    """Whether the loss on every tenth line is measured with the held-out documents."""
    rows: int = 4
    """Rows that a measurement, and with `kl` each step, reads, over all processes."""

    def __post_init__(self) -> None:
        if not self.texts:
            raise ValueError("retention.texts names no text; give files, or leave [retention] out")
        if self.kl < 0 or self.rows < 1:
            raise ValueError("retention.kl is a weight of at least 0, retention.rows at least 1")
        if not self.kl and not self.measure:
            raise ValueError("retention neither measures nor holds anything; leave it out")


class Retention:
    """Rows of plain text, as the base model knows it: no markers, `<s>` and `</s>` about a line."""

    def __init__(
        self, config: RetentionConfig, codec: Codec, learner: Learner, *, row: int, seed: int
    ) -> None:
        if config.rows % world():
            raise ValueError(
                f"retention.rows = {config.rows} cannot be shared by {world()} processes"
            )
        self.config, self._codec, self._row, self._seed = config, codec, row, seed
        self._in_rows, self._lay_out = learner.in_rows, learner.lay_out
        lines = [line for path in config.texts for line in read_lines(path)]
        self._held, self._free = lines[::HELD], [x for i, x in enumerate(lines) if i % HELD]
        if not self._held or (config.kl and not self._free):
            raise ValueError(
                f"{config.texts[0]} has too few lines for retention; give at least {HELD}"
            )
        self.base: Learner | None = None
        self.known: dict[str, float | Tensor] = {}

    def begin(self, init: Path, engine: Engine) -> None:
        """Hear what the base model says of the text; it stays in memory where `kl` needs it."""
        dtype = torch.float32 if engine.config.dtype == "fp32" else torch.bfloat16
        model = start.read_once(init, dtype if engine.device.type == "cuda" else torch.float32)
        rows = model.get_input_embeddings().weight.shape[0]
        if rows > self._codec.vocab.text_tokens and not (init / "spirit.toml").is_file():
            # A text model's rows behind its text stand for nothing; here their ids are markers'.
            model.resize_token_embeddings(self._codec.vocab.text_tokens, mean_resizing=False)
        model.to(engine.device)
        receive([*model.parameters(), *model.buffers()])
        base = Learner(model, in_rows=self._in_rows).eval()
        base.requires_grad_(False)
        if self.config.measure:
            amp = torch.autocast(
                engine.device.type, torch.bfloat16, enabled=engine.config.dtype != "fp32"
            )
            with torch.no_grad(), amp:
                loss = mean(base(self._measured().to(engine.device))[0])
            self.known = {"retention/base": float(loss)}
        if self.config.kl:
            self.base = base

    def batch(self, step: int) -> Batch:
        """This process's part of the text compared in a step: a function of (seed, step)."""
        order = draw_rng(self._seed, "retention", step).permutation(len(self._free))
        return self._rows([self._free[i] for i in order[: self._enough(self._free)]])

    @torch.no_grad()
    def measure(self, engine: Engine) -> dict[str, float | Tensor]:
        """Nats a token, as "retention/loss" of the model and "retention/base" of `init`; every
        process must call it."""
        if not self.config.measure:
            return {}
        batch = self._measured().to(engine.device)
        found = {**self.known, "retention/loss": mean(engine(batch)[0])}
        if self.base is not None:
            found["retention/kl"] = mean(engine(batch, self.base)[0])
        return found

    def _measured(self) -> Batch:
        return self._rows(self._held[: self._enough(self._held)])

    def _enough(self, lines: list[str]) -> int:
        """A number of lines that fills all the rows: a line has at least a token, `<s>`, `</s>`."""
        return min(len(lines), self.config.rows * self._row // 3)

    def _rows(self, lines: list[str]) -> Batch:
        """As many lines as fit, packed; each process takes its own rows."""
        bos, eos = self._codec.vocab.bos, self._codec.vocab.eos
        room, documents = self.config.rows * self._row, list[list[int]]()
        for line in lines:
            ids = [bos, *map(int, self._codec.text.encode(line)), eos][: self._row]
            if (room := room - len(ids)) < 0:
                break
            documents.append(ids)
        rows = pack([len(ids) for ids in documents], self._row)[: self.config.rows]
        if len(rows) < world():
            raise ValueError(
                f"the text for retention fills {len(rows)} rows of {self._row} tokens, fewer than "
                f"the {world()} processes; give more text, or use fewer processes"
            )
        shape = (self.config.rows, self._row)
        table, document = np.full(shape, eos, np.int64), np.full(shape, -1, np.int64)
        for number, members in enumerate(rows):
            start = 0
            for at, member in enumerate(members):
                stop = start + len(documents[member])
                table[number, start:stop], document[number, start:stop] = documents[member], at
                start = stop
        mine = slice(rank(), None, world())
        tokens, of = torch.from_numpy(table[mine]), torch.from_numpy(document[mine])
        # Every token of a document is learned but the first, which the layouts leave out.
        labels = torch.where(of >= 0, tokens, -100)
        return self._lay_out({"ids": tokens, "document": of, "labels": labels})


def mean(losses: Tensor) -> Tensor:
    """The mean over all processes, each of which must ask for it."""
    both = summed(torch.stack([losses.sum(), losses.new_tensor(float(len(losses)))]))
    return both[0] / both[1].clamp(min=1)
