"""Recordings to one part of unit shards: decoded ahead, encoded in batches, or refused."""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float

from spirit.audio import read_audio
from spirit.data.corpus import Utterance
from spirit.data.parts import Note, Row, part_bytes
from spirit.formats.spiritlm_speech import SHORTEST, ReleasedTokenizer, is_released
from spirit.tokenizer import Tokenizer
from spirit.units import SAMPLE_RATE, Kind

Variant = Literal["base", "expressive"]
Wave = Float[np.ndarray, " _"]

THREADS = 1
"""Of torch in each process: more processes are faster than more threads, and sums stay the same."""
LATE = SAMPLE_RATE // 10
"""Samples that word times may lie beyond the end of a recording: aligners round."""


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


class PartMaker:
    """Makes parts from recordings, in one process; paths are noted relative to `root`."""

    def __init__(self, tokenizer: Tokenizer | ReleasedTokenizer, root: Path) -> None:
        self.tokenizer, self.root = tokenizer, root
        self.shortest = SHORTEST if isinstance(tokenizer, ReleasedTokenizer) else 1

    @classmethod
    def load(cls, tokenizer: Path, root: Path, device: str, variant: Variant) -> "PartMaker":
        """For a process of its own: reads the tokenizer, ours or a released one, and sets the
        threads."""
        torch.set_num_threads(THREADS)
        if is_released(tokenizer):
            return cls(ReleasedTokenizer.load(tokenizer, variant, device), root)
        return cls(Tokenizer.load(tokenizer, device), root)

    def __call__(self, job: Job) -> Iterator[Progress]:
        """Encode a part's recordings, the longest first, and report on the way."""
        rows: dict[str, Row] = {}
        rejected: dict[str, str] = {}
        batch: list[tuple[Utterance, Wave]] = []
        for utterance, wave in _read(job.utterances, job.note.batch_seconds):
            if not isinstance(wave, str) and len(wave) < self.shortest:
                wave = (
                    f"{len(wave)} samples at 16 kHz; this tokenizer needs {self.shortest}, leave "
                    "it out"
                )
            if isinstance(wave, str):
                rejected[utterance.id] = wave
                yield Progress(job.index, utterances=1, rejected=1)
                continue
            longest = max([len(wave), *(len(other) for _, other in batch)])
            if batch and longest * (len(batch) + 1) > job.note.batch_seconds * SAMPLE_RATE:
                yield self._encode(job, batch, rows)
                batch = []
            batch.append((utterance, wave))
        if batch:
            yield self._encode(job, batch, rows)
        refusals = tuple(
            {"id": u.id, "audio": audio_name(u.audio, self.root), "reason": rejected[u.id]}
            for u in job.utterances
            if u.id in rejected
        )
        ordered = [rows[u.id] for u in job.utterances if u.id in rows]
        content = part_bytes(ordered, replace(job.note, rejected=refusals))
        yield Progress(job.index, content=content)

    def _encode(
        self, job: Job, batch: Sequence[tuple[Utterance, Wave]], rows: dict[str, Row]
    ) -> Progress:
        waves = [wave for _, wave in batch]
        kinds = {Kind.HUBERT} if job.note.variant == "base" else None
        every = self.tokenizer.encoder.encode_batch(waves, kinds)
        for (utterance, wave), tracks in zip(batch, every, strict=True):
            rows[utterance.id] = Row(
                id=utterance.id,
                audio=audio_name(utterance.audio, self.root),
                seconds=len(wave) / SAMPLE_RATE,
                text=utterance.text,
                words=utterance.words,
                speaker=utterance.speaker,
                language=utterance.language,
                style=utterance.style,
                tracks=tracks,
            )
        seconds = sum(len(wave) for wave in waves) / SAMPLE_RATE
        return Progress(job.index, utterances=len(batch), seconds=seconds)


def audio_name(audio: Path, root: Path) -> str:
    """A path to write down: relative where it lies inside the corpus, and always text."""
    inside = audio.relative_to(root) if audio.is_relative_to(root) else audio
    return os.fsencode(inside.as_posix()).decode("utf-8", "backslashreplace")


def _read(utterances: Sequence[Utterance], ahead: float) -> Iterator[tuple[Utterance, Wave | str]]:
    """Decode, the longest first, in a thread that is `ahead` seconds of audio ahead; a reason
    stands in the place of a recording that cannot be used."""
    waiting: deque[tuple[Utterance, Future[Wave | str]]] = deque()
    lengths = {utterance.id: _length(utterance) for utterance in utterances}
    queued = 0.0
    with ThreadPoolExecutor(1) as thread:
        for utterance in sorted(utterances, key=lambda u: (-lengths[u.id], u.id)):
            waiting.append((utterance, thread.submit(_wave, utterance)))
            queued += lengths[utterance.id]
            while waiting and queued > ahead:
                done, wave = waiting.popleft()
                queued -= lengths[done.id]
                yield done, wave.result()
        for done, wave in waiting:
            yield done, wave.result()


def _length(utterance: Utterance) -> float:
    """The length in seconds, guessed from the size of the file where the corpus does not say."""
    if utterance.seconds is not None:
        return utterance.seconds
    try:
        return utterance.audio.stat().st_size / (2 * SAMPLE_RATE)
    except (OSError, ValueError):
        return 0.0


def _wave(utterance: Utterance) -> Wave | str:
    try:
        wave = read_audio(utterance.audio)
    except (ValueError, OSError) as error:
        return str(error).removeprefix(f"{utterance.audio}: ")
    if utterance.words and utterance.words[-1].stop > len(wave) + LATE:
        said, there = utterance.words[-1].stop / SAMPLE_RATE, len(wave) / SAMPLE_RATE
        return f"the words end at {said:.2f} s but the recording at {there:.2f} s; align it again"
    return wave
