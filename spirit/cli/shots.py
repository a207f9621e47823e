"""Examples of a task, as they are typed: for models that were not trained for it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from spirit.cli.options import PATH


def shot_options(function: Callable[..., None]) -> Callable[..., None]:
    """What shows a model its task."""
    for option in (
        click.option(
            "--shot-stop",
            metavar="FILE",
            help='The spoken word "stop", which ends examples of speech; of the released base '
            "model it is known.",
        ),
        click.option(
            "--shots", type=PATH, metavar="CORPUS", help="Examples in a JSONL of audio and text."
        ),
        click.option(
            "--shot",
            multiple=True,
            metavar="AUDIO=TEXT",
            help="Show a model that was not trained for --task how it is done; may repeat.",
        ),
    ):
        function = option(function)
    return function


@dataclass(frozen=True)
class Shown:
    """Examples as recordings and their words."""

    pairs: Sequence[tuple[Any, str]]
    stop: Any = None
    """The recording of the word "stop"."""

    @classmethod
    def read(
        cls, shot: Sequence[str], shots: Path | None, shot_stop: str | None, task: str
    ) -> "Shown | None":
        """Read what was typed, None for nothing.

        Raises ValueError for what cannot be read or has no words, and where no task needs it.
        """
        if not shot and shots is None:
            if shot_stop is not None:
                raise ValueError("--shot-stop ends examples; give some, --shot AUDIO=TEXT")
            return None
        if task == "continue":
            raise ValueError(
                "examples show a task; name it, --task transcribe or --task speak, or put them "
                "into the prompt"
            )
        if shot_stop is not None and task == "transcribe":
            raise ValueError("--shot-stop is for speech, and this answer is text; leave it out")
        from spirit.audio import read_audio

        pairs = [_split(one) for one in shot]
        if shots is not None:
            pairs += _corpus(shots)
        waves = [(read_audio(audio), text) for audio, text in pairs]
        return cls(waves, None if shot_stop is None else read_audio(shot_stop))

    def heard(self, spirit: Any) -> Any:
        """What the model is shown."""
        from spirit.shots import Examples, Shot, known_ending

        shots = [Shot(spirit.hear(wave), text) for wave, text in self.pairs]
        if self.stop is not None:
            return Examples(shots, spirit.hear(self.stop))
        return Examples(shots, known_ending(spirit.tokenizer.name))


def check_task(spirit: Any, task: Any, shown: Shown | None) -> None:
    """Raise ValueError where a model has to be shown what to do."""
    from spirit.shots import trained

    if shown is None and not trained(spirit.tokenizer.vocab, task):
        raise ValueError(
            f"{spirit.tokenizer.name} was not trained to {task}; show it how by some examples, "
            "--shot AUDIO=TEXT, or --shots with a JSONL of audio and text (the paper shows ten)"
        )


def _split(shot: str) -> tuple[Any, str]:
    """The recording and its words; a name may hold a =, where such a file exists."""
    places = [place for place, letter in enumerate(shot) if letter == "="]
    if not places:
        raise ValueError(f"--shot {shot!r} is not like greeting.wav='good morning'")
    place = next((p for p in places if Path(shot[:p]).is_file()), places[0])
    audio, text = shot[:place], shot[place + 1 :].strip()
    if not text:
        raise ValueError(f"--shot {shot!r} has no words behind the =; say what is said in {audio}")
    return audio, text


def _corpus(path: Path) -> list[tuple[Any, str]]:
    from spirit.data.corpus import read_corpus

    pairs = []
    for utterance in read_corpus(path):
        if not utterance.text.strip():
            raise ValueError(f"{path}: {utterance.id} has no text; an example needs its words")
        pairs.append((utterance.audio, utterance.text))
    return pairs
