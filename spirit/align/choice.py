"""Which aligner, with which files: small enough to be sent to every process."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from spirit import engine
from spirit.align.aligner import Aligner

Name = Literal["pocketsphinx", "ctc", "given"]
NAMES: tuple[Name, ...] = get_args(Name)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """An aligner by name, and what it needs. Raises ValueError for what it lacks or cannot use."""

    aligner: Name = "pocketsphinx"
    model: Path | None = None
    """The Hugging Face folder of `ctc`, or `fairseq2:NAME` (see `spirit.align.fairseq2`)."""
    times: Path | None = None
    """The file or folder of `given`."""
    tier: str = "words"
    """The tier of TextGrids that has the words."""
    device: str = "auto"
    """Where the network of `ctc` runs."""

    def __post_init__(self) -> None:
        if (self.aligner == "ctc") != (self.model is not None):
            raise ValueError("the aligner ctc, and no other, takes --model FOLDER")
        if (self.aligner == "given") != (self.times is not None):
            raise ValueError("the aligner given, and no other, takes --times PATH")

    def load(self) -> Aligner:
        """The aligner itself; ValueError names the file that is at fault."""
        if self.model is not None:
            device = str(engine.device(self.device))
            if str(self.model).startswith("fairseq2:"):
                from spirit.align import fairseq2

                return fairseq2.load(str(self.model), device)
            from spirit.align.ctc import CTC

            return CTC.load(self.model, device)
        if self.times is not None:
            from spirit.align.given import Given

            return Given(self.times, self.tier)
        from spirit.align.sphinx import Pocketsphinx

        return Pocketsphinx()
