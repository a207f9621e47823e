"""Tasks by example, in the shapes of Spirit LM (Nguyen et al. 2025, TACL, appendix B).

A model that was not trained for a task is shown it: speech and its words in turn, then what is
asked, up to where its answer begins. Transcripts stand between two marks; what is read aloud is
followed by the word 'stop', which is spoken behind its speech. There an answer ends.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from spirit.codec import Segment, Task
from spirit.units import Kind, Units
from spirit.vocab import Vocab

MARKS = ("<START Transcript>", "<END>")
"""Around a transcript; without them a model goes on behind it."""
STOPS = {"spiritlm-base": "481 149 40 48 315 242 428 494 75 497 188 388 109 23 338 23 481"}
"""HuBERT units of the spoken word "stop", by tokenizer: the paper's."""
_MARKERS: dict[Task, str] = {"transcribe": "asr", "speak": "tts"}


@dataclass(frozen=True)
class Shot:
    """Speech, and what is said in it."""

    speech: Units
    text: str


@dataclass(frozen=True)
class Examples:
    """What shows a model its task."""

    shots: Sequence[Shot]
    ending: Units = field(default_factory=lambda: Units.build([]))
    """The spoken word "stop" behind speech that is to be imitated; none where nobody knows it."""

    def check(self, task: Task) -> None:
        """Raise ValueError where nothing is shown, or for a task that needs none."""
        if task not in _MARKERS:
            raise ValueError(
                f"examples show the tasks {' and '.join(_MARKERS)}; name one of them, or "
                "put them into the prompt"
            )
        if not self.shots:
            raise ValueError("examples without a shot show nothing; give one at least")
        for shot in self.shots:
            if not shot.text.strip() or not (shot.speech.kind == Kind.HUBERT).any():
                lacking = "speech" if shot.text.strip() else "text"
                said = shot.text.strip() or str(shot.speech)[:40]
                raise ValueError(f"the example {said!r} has no {lacking}; leave it out")

    def prompt(self, asked: Sequence[Segment], task: Task, left_out: int = 0) -> list[Segment]:
        """The examples but for the first ones, then what is asked (one segment)."""
        shown: list[Segment] = []
        for shot in self.shots[left_out:]:
            if task == "transcribe":
                shown += [shot.speech, f"{MARKS[0]} {shot.text} {MARKS[1]}"]
            else:
                shown += [self._read(shot.text), shot.speech + self.ending]
        return [*shown, *(self._read(s) if isinstance(s, str) else s for s in asked)]

    def _read(self, text: str) -> str:
        return f"{text} 'stop'" if len(self.ending) else text


def trained(vocab: Vocab, task: Task) -> bool:
    """Whether a model of this vocabulary has a marker of its own for the task."""
    return _MARKERS.get(task, "text") in vocab.markers


def known_ending(tokenizer: str) -> Units:
    """The word "stop" in the units of a tokenizer; nothing where nobody knows it."""
    units = STOPS.get(tokenizer, "").split()
    return Units.build((Kind.HUBERT, int(unit)) for unit in units)


def transcript(raw: str) -> str:
    """What stands between the marks in an answer, or all of one without marks."""
    return raw.partition(MARKS[1])[0].rpartition(MARKS[0])[2]


def speech(ids: Iterator[int], vocab: Vocab, ending: Units) -> Iterator[int]:
    """The units that an answer begins with, up to the word that ends it.

    What may be the beginning of that word is held back until it turns out not to be. It is told by
    its HuBERT units, whatever pitch or style lies between them.
    """
    wanted = ending.of(Kind.HUBERT).tolist()
    held: list[int] = []
    heard: list[int] = []
    for new in ids:
        kind = int(vocab.kind_of_ids(np.array([new]))[0])
        if kind < 0:
            break
        held.append(new)
        if kind == Kind.HUBERT and wanted:
            heard.append(int(vocab.ids_to_units(np.array([new])).unit[0]))
            if heard == wanted:
                return
            while heard and heard != wanted[: len(heard)]:
                heard.pop(0)
                yield held.pop(0)
                while held and vocab.kind_of_ids(np.array(held[:1]))[0] != Kind.HUBERT:
                    yield held.pop(0)
        if not heard:
            yield from held
            held = []
    yield from held


def has_ended(ids: Sequence[int], vocab: Vocab, ending: Units) -> bool:
    """Whether an answer is over with its last id: that of the word "stop", or no unit any more."""
    wanted = ending.of(Kind.HUBERT)
    kinds = vocab.kind_of_ids(np.array(ids[-1:]))
    if kinds[0] < 0:
        return True
    if kinds[0] != Kind.HUBERT or not len(wanted):
        return False
    last = np.array(ids[-4 * len(wanted) :])  # each HuBERT unit may have a pitch and a style
    heard = last[vocab.kind_of_ids(last) == Kind.HUBERT][-len(wanted) :]
    return bool(np.array_equal(vocab.ids_to_units(heard).unit, wanted))
