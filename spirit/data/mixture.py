"""The recipe of what a model reads."""

import re
from dataclasses import dataclass
from pathlib import Path

from spirit.data.documents import SOURCES, Source
from spirit.interleave import SpanStyle


@dataclass(frozen=True, kw_only=True)
class MixtureConfig:
    """What a model reads, and in which shares."""

    shards: tuple[Path, ...]
    """Folders of unit shards."""
    texts: tuple[Path, ...] = ()
    """Texts for the source `text`: plain text (a document a line), JSON lines (key `text`), Parquet
    (column `text`), a folder of such files, or one that `spirit tokenize --text` made."""
    own_texts: bool = True
    """Whether the transcripts in the shards belong to the source `text` too."""
    interleaved: float = 0.0
    """Share of the tokens in documents that change between text and speech, word by word."""
    speech: float = 0.0
    """Share of the tokens in speech alone."""
    text: float = 0.0
    """Share of the tokens in text alone."""
    transcribe: float = 0.0
    """Share of the tokens in documents that answer speech with its words."""
    speak: float = 0.0
    """Share of the tokens in documents that answer words with their speech."""
    text_span: tuple[int, int] = (10, 30)
    """Words in a text span of an interleaved document, least and most (the paper's)."""
    speech_span: tuple[int, int] = (5, 15)
    """Words in a speech span of an interleaved document, least and most (the paper's)."""
    opening: tuple[int, int] | None = None
    """Words in the first span of an interleaved document, where spans of another length than the
    later ones are to begin it: as long as prompts will be."""
    once: float = 0.0
    """Share of the interleaved documents that change once only, anywhere: what is begun in one
    modality is carried to its end in the other, as when a prompt is answered."""
    span_style: SpanStyle = "in-force"
    """How a span of speech in an interleaved document begins: "in-force", with the style, pitch and
    unit in force there; "slice", as a bare slice of the recording's units (as the released models
    saw them)."""
    excerpts: float = 0.0
    """Share of the transcribe and speak documents that are a few words of an utterance instead of
    all of it, where word times are known: of short ones a new model learns which sound is which
    letter, long before it would of whole sentences."""
    only_heard: str = ""
    """Regular expression; rows whose id matches (copies with noise, say) are transcribed and no
    more, so that nothing learns to speak like them."""
    answer_only: bool = False
    """Whether transcribe and speak documents are trained on their answer alone."""
    row: int = 1_024
    """Tokens in a row."""
    rows: int = 8
    """Rows in a step, over all ranks."""
    seed: int = 0
    """Of the order of documents and of the interleaving."""
    window: int = 256
    """Documents that are packed together."""
    fill: float = 0.995
    """Share of the positions that the rows of a window use on average; what would leave them
    emptier waits for the documents of the next windows. 0: best-fit decreasing, and only the
    emptiest row of each window waits."""
    workers: int = 0
    """Processes, for each rank, that draw documents ahead. They change the speed and nothing
    else."""

    def __post_init__(self) -> None:
        shares = [getattr(self, source) for source in SOURCES]
        if min(shares) < 0 or not 0.99 <= sum(shares) <= 1.01:
            listed = ", ".join(f"{s} {share:g}" for s, share in zip(SOURCES, shares, strict=True))
            raise ValueError(f"the shares of a mixture sum to 1 and none is negative, not {listed}")
        for name in ("excerpts", "once", "fill"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share between 0 and 1, not {getattr(self, name):g}")
        try:
            re.compile(self.only_heard)
        except re.error as error:
            raise ValueError(
                f"only_heard = {self.only_heard!r} is no regular expression ({error})"
            ) from None
        for span in (self.text_span, self.speech_span, self.opening or (1, 1)):
            if not 1 <= span[0] <= span[1]:
                raise ValueError(f"a span is two numbers of words, least and most, not {span}")
        for name, least in (("row", 8), ("rows", 1), ("window", 1), ("workers", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}")

    @property
    def weights(self) -> dict[Source, float]:
        """The sources that take part and their shares, which sum to 1."""
        shares = {source: getattr(self, source) for source in SOURCES if getattr(self, source) > 0}
        return {source: share / sum(shares.values()) for source, share in shares.items()}

    def check_positions(self, positions: int) -> None:
        """Raise `ValueError` where a row is longer than what the model was made for."""
        if self.row > positions:
            raise ValueError(
                f"mixture.row = {self.row} is longer than the model's {positions} positions; "
                f"make it {positions} at most, or give the model more positions"
            )
