"""The vocoders of the released Spirit LM: HiFi-GAN on units, with a duration predictor.

Kong et al. 2020 (HiFi-GAN), Polyak et al. 2021 (units, F0 and speaker), Lee et al. 2022 (joint
durations), Nguyen et al. 2025 (Spirit LM).
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from spirit.formats.checkpoints import read_json, read_stored, rename_weight_norm
from spirit.units import Kind, Track, Tracks, Units
from spirit.vocab import Vocab
from spirit.vocoder import Vocoder
from spirit.vocoder.voice import Voice, fold

FOLDERS = {"base": "hifigan_spiritlm_base", "expressive": "hifigan_spiritlm_expressive_w2v2"}
"""Inside of `speech_tokenizer`, by the variant of the model."""
SPEAKER, STYLE = 2, 8
"""Who speaks, and how a base vocoder does, where nobody is named."""
COMMON_STYLE = 71
"""The release's most common style, where an expressive stream has none."""
RATES = {Kind.HUBERT: 1, Kind.PITCH: 2, Kind.STYLE: 25}
"""Frames of 40 ms to a unit of each kind."""

_TABLES = {"unit": "dict", "pitch": "f0_dict", "style": "style_dict", "speaker": "spkr"}


class ReleasedVocoder(Vocoder):
    """Units of the released tokenizer to 16 kHz waves, 640 samples a frame.

    Both released kinds are read: base takes a speaker and a style for the whole utterance,
    expressive a speaker, and pitch and style with the units. Where an expressive stream has no
    pitch it takes the first code, and without style the release's most common one; the release
    raises KeyError there.
    """

    spread = False
    """Pitch and style are in force from the next HuBERT unit on, not within the one before."""

    @property
    def expressive(self) -> bool:
        """Whether it takes pitch and style tokens."""
        return "pitch" in self.alphabet

    def say(
        self,
        units: Mapping[Kind, Sequence[int]],
        *,
        speaker: int = SPEAKER,
        style: int = STYLE,
        predict_durations: bool = False,
    ) -> Float[np.ndarray, " samples"]:
        """The wave of HuBERT units, one a frame, or of deduplicated ones whose durations it
        predicts.

        Pitch and style tokens may be one a unit, or at their own rates (2 and 25 frames each; the
        last is held to the end). Raises ValueError for a unit, speaker or style that it does not
        know.
        """
        count, frame = len(units[Kind.HUBERT]), self.voice.generator.frame
        if not count:
            return np.zeros(0, np.float32)
        rows = {kind: list(row) for kind, row in units.items() if len(row)}
        if not self.expressive:
            rows = {Kind.HUBERT: rows[Kind.HUBERT]}
            if "style" in self.alphabet:
                rows[Kind.STYLE] = [style] * count
        if predict_durations:
            alone = Units(np.full(count, Kind.HUBERT), np.array(units[Kind.HUBERT], np.int32))
            durations = self.durations(alone, speaker)
            rows = {
                kind: np.repeat(_held(row, count, RATES[kind]), durations).tolist()
                for kind, row in rows.items()
            }
        tracks = {}
        for kind, row in rows.items():
            own = 1 if len(row) == len(rows[Kind.HUBERT]) else RATES[kind]
            tracks[kind] = Track(kind, np.array(row, np.int32), frame * own)
        return self.synthesize(Tracks(tracks), speaker)

    def misfit(self, vocab: Vocab) -> str:
        """What of a vocabulary it cannot say, as a line for people; "" if nothing.

        The last HuBERT unit is the blank of a silent quantizer and need not be there.
        """
        for name, kind in (("unit", Kind.HUBERT), ("pitch", Kind.PITCH), ("style", Kind.STYLE)):
            known, wanted = self.alphabet.get(name, 0), vocab.count.get(kind, 0)
            if known < wanted - (kind == Kind.HUBERT):
                return f"knows {known} {kind.key} units but the model writes {wanted}"
        return ""

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> "ReleasedVocoder":
        """Read `config.json`, `generator.pt` and `speakers.txt` of a folder, as they are.

        Raises ValueError if a file is missing or damaged, or they do not fit each other.
        """
        settings = read_json(folder / "config.json")
        try:
            voice = Voice(**_settings(settings))
        except KeyError as error:
            raise ValueError(f"{folder / 'config.json'} lacks {error}; download it again") from None
        except (ValueError, TypeError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{folder / 'config.json'} is no vocoder ({reason})") from None
        content = read_stored(folder / "generator.pt")
        _fill(voice, content.get("generator", content), folder / "generator.pt")
        fold(voice)
        rows = {name: shape[0] for name, shape in voice.config["generator"]["inputs"].items()}
        speakers = names(folder / "speakers.txt", rows.pop("speaker", 1))
        absent = {"style": STYLE if "pitch" not in rows else COMMON_STYLE, "pitch": 0}
        return cls(
            voice.to(device),
            speakers,
            rows,
            absent={name: min(i, rows[name] - 1) for name, i in absent.items() if name in rows},
        )


def read_vocoder(folder: Path, device: torch.device | str = "cpu") -> Vocoder:
    """A vocoder of ours, or a released one as it is. Raises ValueError if it is neither, or
    damaged."""
    if not (folder / "model.safetensors").is_file() and any(folder.glob("generator.*")):
        return ReleasedVocoder.load(folder, device)
    return Vocoder.load(folder, device)


def names(path: Path, count: int) -> list[str]:
    """The names in `speakers.txt` or `styles.txt`, one a row; numbers where there is no file."""
    if not path.is_file():
        return [str(i) for i in range(count)]
    return path.read_text(encoding="utf-8").split()[:count]


def _settings(told: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `Voice` that a released config.json means."""
    if str(told.get("resblock", "1")) != "1":
        raise ValueError("its residual blocks are not of the first kind of HiFi-GAN")
    size, width = told["embedding_dim"], told["upsample_initial_channel"]
    inputs = {"unit": (told["num_embeddings"], size)}
    if told.get("num_f0_tokens"):  # the order of the inputs is that of the release
        inputs["pitch"] = (told["num_f0_tokens"], size)
        inputs["style"] = (told["num_style_tokens"], size)
    if told.get("multispkr"):
        inputs["speaker"] = (told.get("num_speakers", 200), size)
    if told.get("multistyle") and "style" not in inputs:
        inputs["style"] = (told.get("num_styles", 100), size)
    rates, kernels = list(told["upsample_rates"]), list(told["upsample_kernel_sizes"])
    if any((kernel - rate) % 2 for rate, kernel in zip(rates, kernels, strict=True)):
        raise ValueError("an upsampling has a kernel that cannot be centered on its rate")
    predictor = told["dur_predictor_params"]
    # The release pads the second convolution by one, whatever its kernel.
    if predictor["var_pred_kernel_size"] != 3 or predictor["encoder_embed_dim"] != size:
        raise ValueError("its duration predictor does not keep the number of units")
    if told.get("model_in_dim", size * len(inputs)) != size * len(inputs):
        raise ValueError(f"model_in_dim is not {len(inputs)} times the embedding_dim {size}")
    return {
        "generator": {
            "inputs": inputs,
            "channels": [width >> i for i in range(len(rates) + 1)],
            "rates": rates,
            "kernels": kernels,
            "block_kernels": list(told["resblock_kernel_sizes"]),
            "block_dilations": [list(some) for some in told["resblock_dilation_sizes"]],
        },
        "durations": {"hidden": predictor["var_pred_hidden_dim"], "kernel": 3},
    }


def _fill(voice: Voice, found: Mapping[str, Any], source: Path) -> None:
    """Load the weights of a released generator, weight norm included or folded in."""
    weights = rename_weight_norm({k: v for k, v in found.items() if isinstance(v, Tensor)})
    if "conv_pre.weight" in weights:
        fold(voice)
    blocks = len(voice.config["generator"]["block_kernels"])
    base = "pitch" not in voice.config["generator"]["inputs"]
    state = {}
    for ours, value in voice.state_dict().items():
        theirs = _their_name(ours, blocks, base)
        weight = weights.get(theirs)
        if weight is None:
            raise ValueError(f"{source} lacks the weights {theirs}; it is not the model it says")
        if weight.shape != value.shape:
            raise ValueError(
                f"{source}: {theirs} has the shape {tuple(weight.shape)} but its configuration "
                f"says {tuple(value.shape)}; the two are not from one model"
            )
        state[ours] = weight
    voice.load_state_dict(state)


def _their_name(name: str, blocks: int, base: bool) -> str:
    """What the release calls a weight of ours."""
    part, _, rest = name.partition(".")
    if part == "durations":
        return "dur_predictor." + re.sub(r"^(conv\d)\.", r"\1.0.", rest)
    if rest.startswith("embed."):
        _, table, weight = rest.split(".")
        return f"{'style' if base and table == 'style' else _TABLES[table]}.{weight}"
    # Blocks of a stage have numbers of their own here, and are counted through there.
    rest = re.sub(
        r"^resblocks\.(\d+)\.(\d+)", lambda m: f"resblocks.{int(m[1]) * blocks + int(m[2])}", rest
    )
    return rest.replace(".conv.", ".")


def _held(row: Sequence[int], count: int, frames: int) -> Sequence[int]:
    """Tokens at a rate of their own as one a frame; the last is held to the end."""
    if len(row) == count:
        return row
    spread = [token for token in row for _ in range(frames)]
    return (spread + [spread[-1]] * max(0, count - len(spread)))[:count]
