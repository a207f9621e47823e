"""Recordings to one part of unit shards: decoded ahead, encoded in batches, or refused."""

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Float

from spirit.audio import LATE, AudioError
from spirit.data.corpus import Utterance
from spirit.data.decoder import LIMITS, Decoder, Limits
from spirit.data.parts import Note, Row, part_bytes
from spirit.formats.spiritlm_speech import SHORTEST, ReleasedTokenizer, is_released
from spirit.prepare.long import LONGEST, Long
from spirit.sound import Sound, is_url
from spirit.tokenizer import Tokenizer
from spirit.units import SAMPLE_RATE, Kind, Tracks

Variant = Literal["base", "expressive"]
Dtype = Literal["auto", "fp32", "bf16"]
Wave = Float[np.ndarray, " _"]
Made = TypeVar("Made")

THREADS = 1
"""Of torch in each process: more processes are faster than more threads, and sums stay the same."""
UNKNOWN = 15.0
"""Seconds that a recording is taken to have where nothing says how many."""


@dataclass(frozen=True)
class Heard:
    """A recording that can be used."""

    wave: Wave
    sha256: str
    """Of the bytes that hold it."""


@dataclass(frozen=True)
class Refused:
    """One that cannot, and why: for programs and for people."""

    code: str
    reason: str


@dataclass(frozen=True)
class Job:
    """A part that is to be made."""

    index: int
    note: Note
    utterances: tuple[Utterance, ...]


@dataclass(frozen=True)
class Progress:
    """What has been done since the last report; with the last one of a part comes its content."""

    index: int
    utterances: int = 0
    rejected: int = 0
    seconds: float = 0.0
    content: bytes | None = None
    spent: Mapping[str, float] = field(default_factory=dict)
    """Seconds of work by stage: decode (in a thread of its own), encode, pack."""


def add_up(spent: dict[str, float], more: Mapping[str, float]) -> None:
    """Add seconds of work by stage to those `spent`."""
    for stage, took in more.items():
        spent[stage] = spent.get(stage, 0.0) + took


class PartMaker:
    """Makes parts from recordings, in one process; paths are noted relative to `root`."""

    def __init__(
        self,
        tokenizer: Tokenizer | ReleasedTokenizer,
        root: Path | str,
        limits: Limits | None = LIMITS,
    ) -> None:
        self.tokenizer, self.root = tokenizer, root
        self.decoder = Decoder(limits)
        self.shortest = SHORTEST if isinstance(tokenizer, ReleasedTokenizer) else 1

    @classmethod
    def load(
        cls,
        tokenizer: Path,
        root: Path | str,
        device: str,
        variant: Variant,
        dtype: str = "fp32",
        limits: Limits | None = LIMITS,
    ) -> "PartMaker":
        """For a process of its own: reads the tokenizer, ours or a released one, and sets the
        threads."""
        torch.set_num_threads(THREADS)
        bf16 = dtype == "bf16"
        if is_released(tokenizer):
            return cls(ReleasedTokenizer.load(tokenizer, variant, device, bf16=bf16), root, limits)
        return cls(Tokenizer.load(tokenizer, device, bf16=bf16), root, limits)

    def __call__(self, job: Job) -> Iterator[Progress]:
        """Encode a part's recordings, the longest first, and report on the way."""
        rows: dict[str, Row] = {}
        rejected: dict[str, Refused] = {}
        batch: list[tuple[Utterance, Heard]] = []
        with closing(_read(job.utterances, job.note.batch_seconds, self.decoder)) as ahead:
            for utterance, heard, took in ahead:
                yield Progress(job.index, spent={"decode": took})
                if isinstance(heard, Heard) and len(heard.wave) < self.shortest:
                    heard = Refused(
                        "too_short",
                        f"{len(heard.wave)} samples at 16 kHz; this tokenizer needs "
                        f"{self.shortest}, leave it out",
                    )
                if isinstance(heard, Refused):
                    rejected[utterance.id] = heard
                    yield Progress(job.index, utterances=1, rejected=1)
                    continue
                if isinstance(heard, Long):
                    yield self._encode_long(job, utterance, heard, rows, rejected)
                    continue
                longest = max([len(heard.wave), *(len(other.wave) for _, other in batch)])
                if batch and longest * (len(batch) + 1) > job.note.batch_seconds * SAMPLE_RATE:
                    yield self._encode(job, batch, rows)
                    batch = []
                batch.append((utterance, heard))
        if batch:
            yield self._encode(job, batch, rows)
        began = time.perf_counter()
        refusals = tuple(
            self._refusal(u, rejected[u.id]) for u in job.utterances if u.id in rejected
        )
        ordered = [rows[u.id] for u in job.utterances if u.id in rows]
        content = part_bytes(ordered, replace(job.note, rejected=refusals))
        yield Progress(job.index, content=content, spent={"pack": time.perf_counter() - began})

    def _refusal(self, utterance: Utterance, refused: Refused) -> dict[str, Any]:
        """A line of rejected.jsonl; a stretch says where it lies, in seconds for people."""
        sound = Sound.of(utterance.audio)
        said: dict[str, Any] = {
            "id": utterance.id,
            "audio": audio_name(sound, self.root),
            **asdict(refused),
        }
        if sound.row is not None:
            said["row"] = sound.row
        if not sound.whole:
            said["start"] = sound.start / SAMPLE_RATE
            said["stop"] = None if sound.stop is None else sound.stop / SAMPLE_RATE
        return said

    def _encode(
        self, job: Job, batch: Sequence[tuple[Utterance, Heard]], rows: dict[str, Row]
    ) -> Progress:
        began = time.perf_counter()
        waves = [heard.wave for _, heard in batch]
        every = self.tokenizer.encoder.encode_batch(waves, _kinds(job))
        for (utterance, heard), tracks in zip(batch, every, strict=True):
            rows[utterance.id] = self._row(utterance, len(heard.wave), heard.sha256, tracks)
        seconds = sum(len(wave) for wave in waves) / SAMPLE_RATE
        spent = {"encode": time.perf_counter() - began}
        return Progress(job.index, utterances=len(batch), seconds=seconds, spent=spent)

    def _encode_long(
        self,
        job: Job,
        utterance: Utterance,
        heard: Long,
        rows: dict[str, Row],
        rejected: dict[str, Refused],
    ) -> Progress:
        """Decode and encode by turns; a fault of the recording may show hours into it."""
        began = time.perf_counter()
        encode = self.tokenizer.encoder.encode_long
        tracks = _or_refused(utterance, lambda: encode(heard, _kinds(job)))
        if isinstance(tracks, Tracks):
            tracks = _late(utterance, heard.samples) or tracks
        spent = {"encode": time.perf_counter() - began}
        if isinstance(tracks, Refused):
            rejected[utterance.id] = tracks
            return Progress(job.index, utterances=1, rejected=1, spent=spent)
        rows[utterance.id] = self._row(utterance, heard.samples, heard.sha256, tracks)
        seconds = heard.samples / SAMPLE_RATE
        return Progress(job.index, utterances=1, seconds=seconds, spent=spent)

    def _row(self, utterance: Utterance, samples: int, sha256: str, tracks: Tracks) -> Row:
        sound = Sound.of(utterance.audio)
        return Row(
            id=utterance.id,
            audio=audio_name(sound, self.root),
            seconds=samples / SAMPLE_RATE,
            text=utterance.text,
            words=utterance.words,
            speaker=utterance.speaker,
            language=utterance.language,
            style=utterance.style,
            tracks=tracks,
            start=sound.start,
            stop=sound.stop,
            parquet_row=sound.row,
            parquet_column=sound.column,
            sha256=sha256,
        )


def _kinds(job: Job) -> set[Kind] | None:
    return {Kind.HUBERT} if job.note.variant == "base" else None


def precision(dtype: Dtype, device: str, tokenizer: Path) -> str:
    """What `auto` stands for: bf16 on a GPU; fp32 on a CPU, and where units are to be those of a
    release. Raises ValueError for a dtype that does not exist."""
    if dtype not in ("auto", "fp32", "bf16"):
        raise ValueError(f"dtype {dtype!r}: say auto, fp32 or bf16")
    if dtype != "auto":
        return dtype
    return "bf16" if device == "cuda" and not is_released(tokenizer) else "fp32"


def audio_name(audio: Path | Sound, root: Path | str) -> str:
    """Where sound lies, to write down: a URL as it is, a path relative where it lies inside the
    corpus; always text."""
    uri = Sound.of(audio).uri
    if is_url(uri) or is_url(str(root)):
        return uri
    path = Path(uri)
    inside = path.relative_to(root) if path.is_relative_to(root) else path
    return os.fsencode(inside.as_posix()).decode("utf-8", "backslashreplace")


def _read(
    utterances: Sequence[Utterance], ahead: float, decoder: Decoder
) -> Generator[tuple[Utterance, Heard | Long | Refused, float], None, None]:
    """Decode `ahead` seconds of audio ahead, and say how long it took; a refusal stands in the
    place of a recording that cannot be used."""
    waiting: deque[tuple[Utterance, Future[tuple[Heard | Long | Refused, float]]]] = deque()
    lengths = {utterance.id: _length(utterance) for utterance in utterances}
    queued = 0.0

    def turn(utterance: Utterance) -> tuple[str, float, str]:
        """The longest first, but those in a Parquet file as they lie: it is read once through."""
        sound = Sound.of(utterance.audio)
        if sound.row is not None:
            return sound.uri, float(sound.row), ""
        return "", -lengths[utterance.id], utterance.id

    with ThreadPoolExecutor(1) as thread:
        thread.submit(decoder.start)  # what goes wrong there shows at the first recording
        try:
            ordered = sorted(utterances, key=turn)
            for utterance, then in zip_longest(ordered, ordered[1:]):
                waiting.append((utterance, thread.submit(_hear, utterance, decoder, then)))
                queued += lengths[utterance.id] or UNKNOWN
                while waiting and queued > ahead:
                    done, heard = waiting.popleft()
                    queued -= lengths[done.id] or UNKNOWN
                    yield done, *heard.result()
            for done, heard in waiting:
                yield done, *heard.result()
        except BaseException:  # nothing more is decoded, nor waited for
            thread.shutdown(wait=False, cancel_futures=True)
            decoder.close()
            raise


def _length(utterance: Utterance) -> float:
    """The length in seconds, guessed from the size of the file where the corpus does not say."""
    if utterance.seconds is not None:
        return utterance.seconds
    sound = Sound.of(utterance.audio)
    if sound.row is not None or not sound.whole:
        return 0.0
    return max(0, sound.size) / (2 * SAMPLE_RATE)


def _hear(
    utterance: Utterance, decoder: Decoder, then: Utterance | None
) -> tuple[Heard | Long | Refused, float]:
    began = time.perf_counter()
    heard = _or_refused(utterance, lambda: _decoded(utterance, decoder, then))
    return heard, time.perf_counter() - began


def _or_refused(utterance: Utterance, work: Callable[[], Made]) -> Made | Refused:
    """What the work makes of a recording, or why it cannot be used."""
    try:
        return work()
    except (ConnectionError, ChildProcessError):  # the next run may reach it
        raise
    except AudioError as error:
        return Refused(error.code, str(error).removeprefix(f"{Sound.of(utterance.audio)}: "))
    except (ValueError, OSError) as error:
        return Refused("not_readable", " ".join(str(error).split()))


def _decoded(
    utterance: Utterance, decoder: Decoder, then: Utterance | None
) -> Heard | Long | Refused:
    following = None if then is None else then.audio
    try:
        wave, sha256 = decoder.read_hashed(utterance.audio, LONGEST, following)
    except AudioError as error:
        if error.code != "too_long" or decoder.max_seconds <= LONGEST:
            raise
        return Long(utterance.audio, decoder.read_hashed, decoder.max_seconds)
    return _late(utterance, len(wave)) or Heard(wave, sha256)


def _late(utterance: Utterance, samples: int) -> Refused | None:
    """The refusal of a recording that ends before its words do."""
    if not utterance.words or utterance.words[-1].stop <= samples + LATE:
        return None
    said, there = utterance.words[-1].stop / SAMPLE_RATE, samples / SAMPLE_RATE
    return Refused(
        "words_beyond_end",
        f"the words end at {said:.2f} s but the recording at {there:.2f} s; align it again",
    )
