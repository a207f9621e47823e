"""A question put to a model: its prompt as ids, what may be answered, the answer as segments."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Int

from spirit.answers import Limits, Watch, cut, segments
from spirit.codec import Codec, Segment, Task
from spirit.lm.generate import check_prompt
from spirit.lm.grammar import Grammar
from spirit.shots import MARKS, Examples, has_ended, speech, transcript
from spirit.units import Kind, Units
from spirit.vocab import Vocab, Want

Ids = Int[np.ndarray, " _"]
Truncate = Literal["left"]
TEMPERATURE: dict[Task, float] = {"continue": 0.8, "transcribe": 0.0, "speak": 0.5}
CHAINED = 0.5
"""The temperature of text that goes on from words which may be misheard: the less is drawn from
what is unlikely, the more sense it makes."""
LEAST: dict[Task, int] = {"continue": 4, "speak": 1}
"""Tokens that an answer has before it may end: who was asked says something."""
ANSWERS: dict[Task, Want] = {"transcribe": "text", "speak": "speech"}


def answered(want: Want, task: Task) -> Want:
    """What the answer holds. Raises ValueError where the task answers in something else."""
    if task not in TEMPERATURE:
        raise ValueError(f"no task {task!r}; there are {', '.join(TEMPERATURE)}")
    if want not in get_args(Want):
        raise ValueError(f"an answer is {', '.join(get_args(Want))}, not {want!r}")
    if want not in ("any", ANSWERS.get(task, want)):
        raise ValueError(f"the task {task!r} answers in {ANSWERS[task]}; do not want {want}")
    return ANSWERS.get(task, want)


class Question:
    """What is wanted of answers to one prompt or several, within `limits`.

    `seconds` says how long units last in the voice that speaks them, `silence` which HuBERT units
    are silence. With `examples` the task is shown, not named by its marker. Raises ValueError for
    wishes that contradict each other.
    """

    def __init__(
        self,
        codec: Codec,
        want: Want,
        task: Task,
        limits: Limits,
        seconds: Callable[[Units], float],
        silence: Collection[int] = (),
        examples: Examples | None = None,
    ) -> None:
        self.codec, self.task, self.limits = codec, task, limits
        self.want = answered(want, task)
        self._seconds, self._silence = seconds, silence
        self.examples = examples
        limits.check(self.want)
        if examples is not None:
            examples.check(task)
            if task == "transcribe":
                self.limits = replace(limits, stop=(*limits.stop, MARKS[1]))

    def ids(self, prompt: Sequence[Segment], positions: int, truncate: Truncate | None) -> Ids:
        """The ids of a prompt that fits into a context of so many.

        Raises ValueError for one that does not, unless its end is to be kept.
        """
        if truncate not in (None, "left"):
            raise ValueError(f"a prompt cannot be truncated {truncate!r}, only 'left'")
        ids = self.codec.prompt(joined(prompt), self.want, self.task)
        if self.examples is not None:
            ids = self._shown(prompt)
        if truncate is None:
            check_prompt(ids, positions)
            return ids
        most = positions - min(self.limits.max_tokens, positions // 2)
        if self.examples is not None:  # whole examples are left out first
            for left_out in range(1, len(self.examples.shots)):
                ids = self._shown(prompt, left_out) if len(ids) > most else ids
        return last_part(self.codec.vocab, ids, most)

    def _shown(self, prompt: Sequence[Segment], left_out: int = 0) -> Ids:
        """The ids of a prompt behind its examples but for the first ones."""
        assert self.examples is not None
        shown = self.examples.prompt(joined(prompt), self.task, left_out)
        return self.codec.prompt(joined(shown), self.want, "continue")

    def settings(self, grammar: bool, **ways: float | None) -> dict[str, Any]:
        """What `spirit.lm.generate` has to know; `ways` are those of drawing."""
        vocab = self.codec.vocab
        mask = torch.from_numpy(vocab.allowed(self.want))
        if ways["temperature"] is None:
            ways["temperature"] = TEMPERATURE[self.task]
        # Shown speech is followed by text; so may be the answer, which ends there.
        free = self._ending is not None and not self.limits.min_seconds
        return {
            "allowed": Grammar.stream(vocab, "any" if free else self.want) if grammar else mask,
            "max_new": self.limits.max_tokens,
            "min_new": LEAST.get(self.task, 0),
            "eos": vocab.eos,
            **ways,
        }

    @property
    def _ending(self) -> Units | None:
        """What ends speech by example; None of any other answer."""
        if self.examples is None or self.task != "speak":
            return None
        return self.examples.ending

    def watch(self, ids: Ids) -> Watch:
        """What says where an answer to these ids ends."""
        written, vocab = text_at_end(self.codec.vocab, ids), self.codec.vocab
        ending = self._ending
        over = None if ending is None else partial(has_ended, vocab=vocab, ending=ending)
        return Watch(self.codec, self.limits, self._seconds, self._silence, written, over)

    def heard(self, new_ids: Iterator[int]) -> Iterator[int]:
        """The ids that are the answer: of speech by example, those up to where that ends."""
        ending = self._ending
        return new_ids if ending is None else speech(new_ids, self.codec.vocab, ending)

    def said(self, new_ids: Iterator[int], ids: Ids) -> Iterator[Segment]:
        """An answer to these ids as segments, no longer than it may be."""
        told = self._told(self.heard(new_ids), ids)
        if self.examples is None or self.task != "transcribe":
            yield from told
        elif words := transcript("".join(s for s in told if isinstance(s, str))).strip():
            yield words

    def _told(self, new_ids: Iterator[int], ids: Ids) -> Iterator[Segment]:
        written = text_at_end(self.codec.vocab, ids)
        left = self.limits.max_seconds
        for segment in cut(segments(self.codec, new_ids, written), self.limits):
            if isinstance(segment, Units):
                fitting = self._cut(segment, left)
                left -= self._seconds(fitting)
                if (fitting.kind == Kind.HUBERT).any():  # pitch and style alone make no sound
                    yield fitting
                if len(fitting) < len(segment):
                    return
            else:
                yield segment

    def _cut(self, units: Units, seconds: float) -> Units:
        """Drop HuBERT units at the end until the rest fits into `seconds`."""
        while len(units) and self._seconds(units) > seconds:
            places = np.flatnonzero(units.kind == Kind.HUBERT)
            units = units[: places[-1]] if len(places) else units[:0]
        return units


def joined(prompt: Sequence[Segment]) -> list[Segment]:
    """Neighbours of one modality as one segment, words kept apart by a space."""
    together: list[Segment] = []
    for segment in filter(len, prompt):
        before = together[-1] if together else None
        if isinstance(before, str) and isinstance(segment, str):
            together[-1] = f"{before} {segment}"
        elif isinstance(before, Units) and isinstance(segment, Units):
            together[-1] = before + segment
        else:
            together.append(segment)
    return together


def in_words(segments: Iterable[Segment]) -> str:
    """The text among segments, its words with single spaces."""
    return " ".join(" ".join(some for some in segments if isinstance(some, str)).split())


def text_at_end(vocab: Vocab, ids: Int[np.ndarray, " tokens"]) -> list[int]:
    """The ids of text that a prompt ends in, none where it ends in speech or a marker."""
    text = (ids < vocab.text_tokens) & ~np.isin(ids, [vocab.bos, vocab.eos])
    other = np.flatnonzero(~text)
    end: list[int] = ids[other[-1] + 1 if len(other) else 0 :].tolist()
    return end


def last_part(vocab: Vocab, ids: Int[np.ndarray, " tokens"], most: int) -> Int[np.ndarray, " kept"]:
    """The end of a prompt in at most so many ids, as if it began there.

    It begins with BOS and the marker of what it is cut in; speech begins with a HuBERT unit, and
    before it the style and pitch in force. Raises ValueError where nothing would be left.
    """
    if len(ids) <= most:
        return ids
    kinds, markers = vocab.kind_of_ids(ids), list(vocab.markers.values())
    marker = np.isin(ids, markers)
    for start in range(len(ids) - most, len(ids)):
        lead = [vocab.bos]
        if not marker[start]:
            if kinds[start] >= 0 and kinds[start] != Kind.HUBERT:
                continue
            lead.append(vocab.markers["text" if kinds[start] < 0 else "speech"])
            began = int(np.flatnonzero(marker[:start])[-1]) if marker[:start].any() else 0
            for kind in (Kind.STYLE, Kind.PITCH) if kinds[start] >= 0 else ():
                lead += ids[began:start][kinds[began:start] == kind][-1:].tolist()
        if len(lead) + len(ids) - start <= most:
            return np.concatenate([np.array(lead, np.int64), ids[start:]])
    raise ValueError(f"of a prompt of {len(ids)} tokens nothing fits into {most}")
