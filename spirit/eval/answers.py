"""What a model answers to one utterance, and what the independent ear makes of it.

Each function runs in a worker process and returns plain numbers and text for the ledger.
"""

import zlib
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Float

from spirit.audio import read_audio, write_audio
from spirit.codec import Segment
from spirit.data.corpus import Utterance
from spirit.eval.figures import word_errors
from spirit.eval.listen import listener, normalize
from spirit.eval.prosody import compare
from spirit.eval.report import Result
from spirit.pipeline import Spirit
from spirit.units import SAMPLE_RATE, Units


@dataclass(frozen=True)
class Subject:
    """The model under test, as a worker process can load it, and where recordings are kept."""

    model: Path
    device: str
    recordings: Path

    def load(self) -> Spirit:
        """The model; loaded once in a process."""
        return _load(self.model, self.device)


@dataclass(frozen=True)
class Prompt:
    """The beginning of an utterance, written or spoken; `number` is the seed of the answer."""

    number: int
    utterance: Utterance
    words: int
    spoken: bool

    @property
    def text(self) -> str:
        """What the prompt says."""
        return " ".join(self.utterance.text.split()[: self.words])


@cache
def _load(model: Path, device: str) -> Spirit:
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return Spirit.load(model, device=device)


def original(utterance: Utterance) -> Result:
    """What the ear hears in the recording itself."""
    return _heard(utterance, read_audio(utterance.audio))


def transcribed(utterance: Utterance, subject: Subject) -> Result:
    """What the model hears in the recording (`--task transcribe`)."""
    spirit = subject.load()
    prompt: list[Segment] = [spirit.hear(read_audio(utterance.audio))]
    answer = list(spirit.generate(prompt, task="transcribe", seed=_seed(utterance)))
    return _counted(utterance, " ".join(s for s in answer if isinstance(s, str)))


def spoken(utterance: Utterance, subject: Subject) -> Result:
    """What the ear hears when the model says the sentence (`--task speak`) in its own voice."""
    spirit = subject.load()
    prompt: list[Segment] = [utterance.text]
    answer = list(spirit.generate(prompt, task="speak", seed=_seed(utterance)))
    wave = _speech(spirit, answer)
    write_audio(subject.recordings / f"spoken-{utterance.id}.flac", wave)
    return _heard(utterance, wave)


def resynthesized(utterance: Utterance, subject: Subject) -> Result:
    """What the ear hears after wave to tracks to wave, and how the melody follows."""
    wave = read_audio(utterance.audio)
    again = subject.load().resynth(wave, speaker=utterance.speaker)
    write_audio(subject.recordings / f"resynthesis-{utterance.id}.flac", again)
    return _heard(utterance, again) | asdict(compare(wave, again))


def continued(prompt: Prompt, subject: Subject) -> Result:
    """How the model goes on (`--want any`), each answered segment in the order given."""
    spirit, utterance = subject.load(), prompt.utterance
    start: list[Segment] = [prompt.text]
    if prompt.spoken:
        stop = utterance.words[prompt.words - 1].stop
        start = [spirit.hear(read_audio(utterance.audio)[:stop])]
    segments: list[Result] = []
    for segment in spirit.generate(start, seed=prompt.number):
        if isinstance(segment, str):
            segments.append({"text": segment})
            continue
        wave = _speech(spirit, [segment])
        name = f"any-{prompt.number:03d}-{len(segments)}.flac"
        write_audio(subject.recordings / name, wave)
        segments.append({"speech": len(wave) / SAMPLE_RATE, "heard": listener()(wave)})
    return {"prompt": prompt.text, "spoken": prompt.spoken, "segments": segments}


def _speech(spirit: Spirit, answer: list[Segment]) -> Float[np.ndarray, " samples"]:
    waves = [spirit.speak(s) for s in answer if isinstance(s, Units)]
    return np.concatenate([np.zeros(1, np.float32), *waves])


def _heard(utterance: Utterance, wave: Float[np.ndarray, " samples"]) -> Result:
    return _counted(utterance, listener()(wave)) | {"seconds": len(wave) / SAMPLE_RATE}


def _counted(utterance: Utterance, heard: str) -> Result:
    counts = word_errors(normalize(utterance.text), normalize(heard))
    return {
        "speaker": utterance.speaker,
        "reference": utterance.text,
        "heard": heard,
        **asdict(counts),
    }


def _seed(utterance: Utterance) -> int:
    return zlib.crc32(utterance.id.encode())
