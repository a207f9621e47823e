"""Words of any language in sound, by a network with a CTC head from a Hugging Face folder."""

import hashlib
import unicodedata
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from spirit import commit
from spirit.align.aligner import Unaligned, Wave, plain
from spirit.formats.checkpoints import fill, read_folder, read_json, reason, rename_weight_norm
from spirit.formats.hf import EPSILON
from spirit.units import SAMPLE_RATE, Word

LONGEST = 1_200
"""Seconds of the longest recording; time and memory of the search grow with its square."""
CHUNK, CONTEXT = 30, 2
"""Seconds that the network hears at a time, and more on either side, whose frames are dropped:
attention over minutes is slow, and no network was trained on it."""
_WEIGHTS = (".safetensors", ".bin", ".json")


class CTC:
    """Aligns the characters of a vocabulary with the Viterbi path through a CTC network's frames
    (Graves et al., 2006; torchaudio's `forced_align`).

    A word lies from the frame of its first character to that of its last; its score is the mean
    probability that the path has there. Characters are looked for as written, in lower and in upper
    case and without accents; a letter or digit that the vocabulary lacks is an `Unaligned`.
    """

    gate = 0.2

    def __init__(
        self,
        network: Any,
        vocabulary: Mapping[str, int],
        *,
        blank: int = 0,
        delimiter: str = "|",
        normalize: bool = False,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """`network` is transformers' Wav2Vec2ForCTC, HubertForCTC or WavLMForCTC, or is called as
        they are; with `normalize` it hears waves of mean 0 and variance 1."""
        shape = network.config
        self.network = network.eval()
        self.blank, self.normalize = blank, normalize
        self.delimiter = vocabulary.get(delimiter)
        self.characters = {
            token: id
            for token, id in vocabulary.items()
            if len(token) == 1 and id not in (blank, self.delimiter)
        }
        self.hop: int = prod(shape.conv_stride)
        self.reach = 1
        for kernel, stride in reversed(
            list(zip(shape.conv_kernel, shape.conv_stride, strict=True))
        ):
            self.reach = (self.reach - 1) * stride + kernel
        self._settings = settings or {}

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> "CTC":
        """Read a folder with config.json, weights and vocab.json; nothing is downloaded.

        The blank is the padding of the vocabulary, as in every CTC model of transformers. Raises
        ValueError for a folder that holds something else.
        """
        network = _read_network(folder).to(device)
        vocabulary = read_json(folder / "vocab.json")
        if not all(type(id) is int for id in vocabulary.values()):
            raise ValueError(
                f"{folder / 'vocab.json'} is no table of characters (one for each language?); "
                "give the folder of a model with one vocabulary"
            )
        size = network.config.vocab_size
        if not vocabulary or not all(0 <= id < size for id in vocabulary.values()):
            raise ValueError(
                f"{folder / 'vocab.json'} does not fit the {size} outputs of the model"
            )
        told = folder / "tokenizer_config.json"
        heard = folder / "preprocessor_config.json"
        hearing = read_json(heard) if heard.is_file() else {"do_normalize": False}
        if hearing.get("sampling_rate", SAMPLE_RATE) != SAMPLE_RATE:
            raise ValueError(f"{heard}: the model hears {hearing['sampling_rate']} Hz, not 16000")
        return cls(
            network,
            vocabulary,
            blank=network.config.pad_token_id or 0,
            delimiter=_delimiter(read_json(told) if told.is_file() else {}),
            normalize=bool(hearing.get("do_normalize", True)),
            settings={"aligner": "ctc", "model": _digest(folder), "device": device.split(":")[0]},
        )

    @cached_property
    def settings(self) -> Mapping[str, str]:
        return {**self._settings, "chunk": f"{CHUNK}+{CONTEXT}", "rules": "1"}

    def __call__(self, id: str, words: Sequence[str], hear: Callable[[], Wave]) -> list[Word]:
        spelled = [self._spell(word) for word in words]
        wave = hear()
        if len(wave) > LONGEST * SAMPLE_RATE:
            detail = f"{len(wave) / SAMPLE_RATE:.0f} s; cut it into at most {LONGEST} s"
            raise Unaligned("too long", detail)
        spans = align_words(self.emissions(wave), spelled, self.blank, self.delimiter)
        # A frame stands for the hop around the middle of what it sees.
        margin = max(0, self.reach - self.hop) // 2
        found = []
        for word, (first, last, score) in zip(words, spans, strict=True):
            start, stop = first * self.hop + margin, last * self.hop + margin
            found.append(Word(word, min(start, len(wave)), min(stop, len(wave)), score))
        return found

    def _spell(self, word: str) -> list[int]:
        ids = []
        for character in unicodedata.normalize("NFKC", word).replace("’", "'"):
            base = unicodedata.normalize("NFKD", character)[0]
            forms = (character, character.lower(), character.upper(), base.lower(), base.upper())
            known = next((form for form in forms if form in self.characters), None)
            if known is not None:
                ids.append(self.characters[known])
            elif plain(character):
                detail = f"{character!r} of {word!r} is not in the vocabulary of the model"
                raise Unaligned("unknown word", detail)
        if not ids:
            raise Unaligned("unknown word", f"{word!r} has no character that the model knows")
        return ids

    @torch.inference_mode()
    def emissions(self, wave: Wave) -> Float[Tensor, "frames vocabulary"]:
        """Log probabilities of a 16 kHz wave, float32 on the CPU; chunk by chunk if it is long.

        Frame `i` sees samples `[hop * i, hop * i + reach)`; a wave of `n` samples has
        `(n - reach) // hop + 1`.
        """
        samples = torch.from_numpy(np.ascontiguousarray(wave, dtype=np.float32))
        if self.normalize and len(samples):
            variance = samples.var(unbiased=False)
            samples = (samples - samples.mean()) / (variance + EPSILON).sqrt()
        frames = (len(samples) - self.reach) // self.hop + 1 if len(samples) >= self.reach else 0
        size, margin = (int(seconds * SAMPLE_RATE) // self.hop for seconds in (CHUNK, CONTEXT))
        pieces = [torch.zeros(0, self.network.config.vocab_size)]
        for first in range(0, frames, size):
            low, high = max(0, first - margin), min(frames, first + size + margin)
            heard = samples[low * self.hop : (high - 1) * self.hop + self.reach]
            logits = self.network(heard[None].to(self.network.device)).logits[0].float()
            pieces.append(logits[first - low : first - low + size].log_softmax(-1).cpu())
        return torch.cat(pieces)


def align_words(
    emissions: Float[Tensor, "frames vocabulary"],
    words: Sequence[Sequence[int]],
    blank: int,
    delimiter: int | None = None,
) -> list[tuple[int, int, float]]:
    """First frame, the frame after the last, and score of each word of ids on the best path.

    A word's score is the mean probability of the path from its first character to its last.
    `delimiter` stands between words. Raises `Unaligned` if there are fewer frames than the words
    need.
    """
    from torchaudio.functional import forced_align

    targets: list[int] = []
    owners: list[int] = []  # the word that each target belongs to; -1: between two
    for number, word in enumerate(words):
        if number and delimiter is not None:
            targets.append(delimiter)
            owners.append(-1)
        targets += word
        owners += [number] * len(word)
    repeats = sum(one == other for one, other in pairwise(targets))
    if len(emissions) < len(targets) + repeats:
        detail = f"{len(emissions)} frames of sound for {len(targets)} characters"
        raise Unaligned("not found", detail)
    ids = torch.tensor([targets], dtype=torch.int32)
    with warnings.catch_warnings():  # torchaudio 2.9 announces an end that did not come
        warnings.filterwarnings("ignore", ".*forced_align has been deprecated", UserWarning)
        path, scores = forced_align(emissions[None].contiguous(), ids, blank=blank)
    probabilities = scores[0].exp().numpy()
    owner = _owners(path[0].numpy(), np.array(owners), blank)
    spans = []
    for number in range(len(words)):
        frames = np.flatnonzero(owner == number)
        first, last = int(frames[0]), int(frames[-1]) + 1
        spans.append((first, last, float(min(1.0, probabilities[first:last].mean()))))
    return spans


def _owners(
    path: Int[np.ndarray, " frames"], owners: Int[np.ndarray, " targets"], blank: int
) -> Int[np.ndarray, " frames"]:
    """The word that each frame of a path says; -1 for blanks and between words."""
    before = np.concatenate([[blank], path[:-1]])
    target = np.cumsum((path != blank) & (path != before)) - 1
    found: np.ndarray = np.where(path == blank, -1, owners[np.maximum(target, 0)])
    return found


def _read_network(folder: Path) -> Any:
    import transformers

    path = folder / "config.json"
    settings = read_json(path)
    kinds = {
        "wav2vec2": (transformers.Wav2Vec2Config, transformers.Wav2Vec2ForCTC),
        "hubert": (transformers.HubertConfig, transformers.HubertForCTC),
        "wavlm": (transformers.WavLMConfig, transformers.WavLMForCTC),
    }
    kind = settings.get("model_type")
    if kind not in kinds:
        raise ValueError(f"{path} describes a model of the type {kind!r}, not {', '.join(kinds)}")
    form, network_class = kinds[kind]
    try:
        network = network_class(form.from_dict(settings))
    except Exception as error:  # whatever transformers thinks of foreign settings
        raise ValueError(f"{path} is no {kind} ({reason(error)}); download it again") from None
    weights = rename_weight_norm(read_folder(folder))
    if "lm_head.weight" not in weights:
        raise ValueError(f"{folder} has no CTC head (lm_head); give a model fine-tuned with CTC")
    for name, value in network.state_dict().items():
        if name.endswith("masked_spec_embed"):  # for training only; some files leave it out
            weights.setdefault(name, value)
    fill(network, weights, folder)
    return network


def _delimiter(told: Mapping[str, Any]) -> str:
    """The token between words; transformers writes it as a string or as an object."""
    token = told.get("word_delimiter_token", "|")
    return str(token.get("content", "|") if isinstance(token, dict) else token)


def _digest(folder: Path) -> str:
    """What changes with the weights, the vocabulary and the settings of a model."""
    kept = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.suffix in _WEIGHTS):
        kept.update(f"{path.name} {commit.sha256(path)}\n".encode())
    return kept.hexdigest()[:16]
