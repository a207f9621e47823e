"""What a model answers to one utterance, and what the independent ear makes of it.

Each function runs in a worker process and returns plain numbers and text for the ledger.
"""

import zlib
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Float

from spirit.asking import in_words
from spirit.audio import read_audio, write_audio
from spirit.codec import Segment
from spirit.data.corpus import Utterance
from spirit.eval import language
from spirit.eval.figures import word_errors
from spirit.eval.listen import listener, normalize
from spirit.eval.prosody import follow, melody
from spirit.eval.report import Result
from spirit.eval.telling import describe
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


SNR = 15.0
"""Decibels of speech above the noise that is added to a recording."""
NEAR = 0.2
"""Word edits for each word, up to which speech is taken for a sentence of a language."""


@dataclass(frozen=True)
class Tongue:
    """A language, and the trigram of it that the ear expects."""

    module: Path
    trigram: Path


def original(utterance: Utterance) -> Result:
    """What the ear hears in the recording itself."""
    return _heard(utterance, read_audio(utterance.audio))


def transcribed(utterance: Utterance, subject: Subject, noisy: bool = False) -> Result:
    """What the model hears in the recording (`--task transcribe`), or in a noisy copy of it."""
    spirit = subject.load()
    wave = read_audio(utterance.audio)
    if noisy:
        wave = add_noise(wave, np.random.default_rng(_seed(utterance)))
    prompt: list[Segment] = [spirit.hear(wave)]
    answer = list(spirit.generate(prompt, task="transcribe", seed=_seed(utterance)))
    return _counted(utterance, " ".join(s for s in answer if isinstance(s, str)))


def add_noise(
    wave: Float[np.ndarray, " samples"], rng: np.random.Generator
) -> Float[np.ndarray, " samples"]:
    """White noise or pink, drawn, 15 dB below the power of the recording."""
    hertz = np.fft.rfftfreq(len(wave), 1 / SAMPLE_RATE)
    pink = bool(rng.integers(2))
    color = np.maximum(hertz, 50.0) ** (-0.5 if pink else 0.0)
    noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(len(wave))) * color, len(wave))
    level = np.sqrt(np.mean(wave**2) / np.mean(noise**2)) * 10 ** (-SNR / 20)
    noisy: np.ndarray = (wave + noise * level).astype(np.float32)
    return noisy


def spoken(utterance: Utterance, subject: Subject) -> Result:
    """What the ear hears when the model says the sentence (`--task speak`) in its own voice, how
    long that takes, and what the voice of the recording sounds like when it is asked for."""
    spirit = subject.load()
    prompt: list[Segment] = [utterance.text]
    answer = list(spirit.generate(prompt, task="speak", seed=_seed(utterance)))
    wave = _speech(spirit, answer)
    write_audio(subject.recordings / f"spoken-{utterance.id}.flac", wave)
    result = _heard(utterance, wave)
    result["original_seconds"] = len(read_audio(utterance.audio)) / SAMPLE_RATE
    result["style"] = utterance.style
    voice = utterance.speaker
    if spirit.vocoder is None or voice not in spirit.vocoder.speakers:
        return result
    named = _speech(spirit, answer, voice)
    write_audio(subject.recordings / f"voice-{utterance.id}.flac", named)
    style = utterance.style if utterance.style in spirit.styles else None
    units = [segment for segment in answer if isinstance(segment, Units)]
    return result | {
        "styled_seconds": sum(spirit.seconds(some, voice, style) for some in units),
        "features": describe(named, melody(named), utterance.text),
    }


def resynthesized(utterance: Utterance, subject: Subject) -> Result:
    """What the ear hears after wave to tracks to wave, how the melody follows, and what both
    sound like to one who tells styles."""
    wave = read_audio(utterance.audio)
    again = subject.load().resynth(wave, speaker=utterance.speaker)
    write_audio(subject.recordings / f"resynthesis-{utterance.id}.flac", again)
    theirs, ours = melody(wave), melody(again)
    return _heard(utterance, again) | {
        **asdict(follow(theirs, ours)),
        "style": utterance.style,
        "original_features": describe(wave, theirs, utterance.text),
        "features": describe(again, ours, utterance.text),
    }


def continued(prompt: Prompt, subject: Subject) -> Result:
    """How the model goes on (`--want any`), each answered segment in the order given."""
    spirit = subject.load()
    start = beginning(spirit, prompt)
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


def beginning(spirit: Spirit, prompt: Prompt) -> list[Segment]:
    """A prompt as the model reads it: text, or the units of the recording up to there."""
    if not prompt.spoken:
        return [prompt.text]
    stop = prompt.utterance.words[prompt.words - 1].stop
    return [spirit.hear(read_audio(prompt.utterance.audio)[:stop])]


def completed(prompt: Prompt, subject: Subject, tongue: Tongue) -> Result:
    """How the model goes on in text and in speech, and whether that makes a sentence.

    Speech is heard with the trigram of the language; it is `near` where a change of no more than a
    fifth of its words makes a sentence of it.
    """
    spirit = subject.load()
    start = beginning(spirit, prompt)
    written = spirit.generate(start, want="text", seed=prompt.number)
    said = spirit.generate(start, want="speech", seed=prompt.number)
    recording = subject.recordings / f"completed-{prompt.number:03d}.flac"
    return _judged(prompt, spirit, [*written, *said], tongue, recording)


def chained(prompt: Prompt, subject: Subject, tongue: Tongue) -> Result:
    """How the model goes on by way of text (`--chain`), judged as `completed`, and what it took for
    the beginning."""
    spirit = subject.load()
    told = spirit.write_down(beginning(spirit, prompt))
    answer = list(spirit.chain([told], seed=prompt.number))
    recording = subject.recordings / f"chained-{prompt.number:03d}.flac"
    return {"told": told, **_judged(prompt, spirit, answer, tongue, recording)}


def _judged(
    prompt: Prompt, spirit: Spirit, answer: list[Segment], tongue: Tongue, recording: Path
) -> Result:
    sentences = language.load(tongue.module)
    text = in_words(answer)
    wave = _speech(spirit, answer)
    write_audio(recording, wave)
    heard = listener(tongue.trigram)(wave)
    said = f"{prompt.text} {heard}".strip()
    edits = sentences.edits(said)
    return {
        "prompt": prompt.text,
        "spoken": prompt.spoken,
        "text": text,
        "accepted": sentences.accepts(f"{prompt.text} {text}".strip()),
        "speech": len(wave) / SAMPLE_RATE,
        "heard": heard,
        "edits": edits,
        # A beginning that nothing follows is not forgiven what it lacks.
        "near": edits <= NEAR * len(said.split()) * bool(heard),
    }


def _speech(
    spirit: Spirit, answer: list[Segment], speaker: str | None = None
) -> Float[np.ndarray, " samples"]:
    waves = [spirit.speak(s, speaker) for s in answer if isinstance(s, Units)]
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
