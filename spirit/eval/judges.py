"""Judges of texts and recordings, from a folder or file of the user's: which mood they are in, what
is said, how natural it sounds, how likely and how toxic a text is.

A judge is a function that a worker process can be given; it loads its model when it is first asked.
"""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from spirit.eval.listen import listener, normalize
from spirit.units import SAMPLE_RATE

MOODS = {"happy": "positive", "angry": "negative", "sad": "negative", "default": "neutral"}
"""Sentiment of an emotion; what is not here is its own."""
Wave = Float[np.ndarray, " samples"]
Judge = Callable[[str | Wave], str]
"""The mood of a text or a 16 kHz wave."""


def text_judge(folder: Path, device: str = "cpu") -> Judge:
    """A Hugging Face text classifier: its label in lower case."""
    return partial(_judge_text, str(folder), device)


def speech_judge(folder: Path, device: str = "cpu") -> Judge:
    """A Hugging Face audio classifier: the sentiment of its label (`MOODS`)."""
    return partial(_judge_speech, str(folder), device)


def recognizer(folder: Path | None = None, device: str = "cpu") -> Callable[[Wave], str]:
    """The words in a 16 kHz wave, normalized: as pocketsphinx hears them, or a Hugging Face
    recognizer (CTC or from sequence to sequence)."""
    return partial(_recognize, None if folder is None else str(folder), device)


def rater(path: Path, device: str = "cpu") -> Callable[[Wave], float]:
    """How natural a 16 kHz wave sounds, as listeners would rate it: a TorchScript file that takes
    waves (and perhaps their rate), as UTMOS comes, or a Hugging Face audio classifier with one
    output."""
    return partial(_rate, str(path), device)


def toxicity(path: Path, label: str = "toxic", device: str = "cpu") -> Callable[[str], float]:
    """The probability that a text is toxic: of a label of a Hugging Face text classifier, or
    whether it holds a line of a file of words and phrases.

    Raises ValueError for a file without words.
    """
    if path.is_dir():
        return partial(_toxicity, str(path), label.lower(), device)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is neither a classifier nor a list of words ({error})") from None
    phrases = frozenset(filter(None, map(normalize, lines)))
    if not phrases:
        raise ValueError(f"{path} holds no words; give one word or phrase a line")
    return partial(_holds, phrases)


def fluency(folder: Path, device: str = "cpu") -> Callable[[str], tuple[float, int]]:
    """What a text costs a causal language model of Hugging Face: nats, and over how many tokens."""
    return partial(_fluency, str(folder), device)


def _recognize(folder: str | None, device: str, wave: Wave) -> str:
    if folder is None:
        return listener()(wave)
    if not wave.any():  # some recognizers divide by the level
        return ""
    long = {"chunk_length_s": 30} if len(wave) > 30 * SAMPLE_RATE else {}
    sound = {"raw": np.ascontiguousarray(wave, np.float32), "sampling_rate": SAMPLE_RATE}
    return normalize(str(_recognition(folder, device)(sound, **long)["text"]))


def _rate(path: str, device: str, wave: Wave) -> float:
    import torch

    sound = torch.from_numpy(np.ascontiguousarray(wave, np.float32))[None].to(device)
    with torch.inference_mode():
        if Path(path).is_dir():
            extractor, model = _speech_model(path, device)
            inputs = extractor(wave, sampling_rate=SAMPLE_RATE, return_tensors="pt").to(device)
            told = model(**inputs).logits
        else:
            script = _script(path, device)
            rated = len(script.forward.schema.arguments) > 2  # self, waves, their rate
            told = script(sound, SAMPLE_RATE) if rated else script(sound)
    if told.numel() != 1:
        raise ValueError(f"{path} rates a wave with {told.numel()} numbers; it must be one")
    return float(told)


def _toxicity(folder: str, label: str, device: str, text: str) -> float:
    import torch

    tokenizer, model = _text_model(folder, device)
    names = {str(name).lower(): number for number, name in model.config.id2label.items()}
    if label not in names:
        raise ValueError(f"{folder} has no label {label!r}; it has {', '.join(names)}")
    inputs = tokenizer(text, return_tensors="pt", truncation=True).to(device)
    with torch.inference_mode():
        logits = model(**inputs).logits[0]
    several = model.config.problem_type == "multi_label_classification"
    return float((logits.sigmoid() if several else logits.softmax(-1))[names[label]])


def _holds(phrases: frozenset[str], text: str) -> float:
    said = f" {normalize(text)} "
    return float(any(f" {phrase} " in said for phrase in phrases))


def _fluency(folder: str, device: str, text: str) -> tuple[float, int]:
    import torch

    tokenizer, model = _language_model(folder, device)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if tokenizer.bos_token_id is not None:
        ids = [tokenizer.bos_token_id, *ids]
    ids = ids[: int(getattr(model.config, "max_position_embeddings", len(ids)))]
    if len(ids) < 2:
        return 0.0, 0
    rows = torch.tensor([ids], device=device)
    with torch.inference_mode():
        told = model(input_ids=rows).logits[0, :-1].float().log_softmax(-1)
    return -float(told.gather(-1, rows[0, 1:, None]).double().sum()), len(ids) - 1


def _judge_text(folder: str, device: str, text: str | Wave) -> str:
    import torch

    tokenizer, model = _text_model(folder, device)
    inputs = tokenizer(str(text), return_tensors="pt", truncation=True).to(device)
    with torch.inference_mode():
        best = int(model(**inputs).logits.argmax())
    return str(model.config.id2label[best]).lower()


def _judge_speech(folder: str, device: str, wave: str | Wave) -> str:
    import torch

    extractor, model = _speech_model(folder, device)
    inputs = extractor(wave, sampling_rate=16_000, return_tensors="pt").to(device)
    with torch.inference_mode():
        best = int(model(**inputs).logits.argmax())
    label = str(model.config.id2label[best]).lower()
    return MOODS.get(label, label)


@cache
def _text_model(folder: str, device: str) -> tuple[Any, Any]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    return _load(folder, device, AutoTokenizer, AutoModelForSequenceClassification)


@cache
def _speech_model(folder: str, device: str) -> tuple[Any, Any]:
    from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

    return _load(folder, device, AutoFeatureExtractor, AutoModelForAudioClassification)


@cache
def _language_model(folder: str, device: str) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return _load(folder, device, AutoTokenizer, AutoModelForCausalLM, "language model")


@cache
def _recognition(folder: str, device: str) -> Any:
    from transformers import pipeline

    try:
        return pipeline("automatic-speech-recognition", model=folder, device=device)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{folder} is not a recognizer of Hugging Face ({reason})") from None


@cache
def _script(path: str, device: str) -> Any:
    import warnings

    import torch

    load: Any = torch.jit.load
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # what exists comes in this form
            return load(path, map_location=device).eval()
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} is neither TorchScript nor a folder ({reason})") from None


def _load(
    folder: str, device: str, front: Any, network: Any, what: str = "classifier"
) -> tuple[Any, Any]:
    try:
        loaded = network.from_pretrained(folder, local_files_only=True).to(device).eval()
        return front.from_pretrained(folder, local_files_only=True), loaded
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{folder} is not a {what} of Hugging Face ({reason})") from None
