"""A released Spirit LM as it lies on disk: the Llama, what it reads and hears, and its vocoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from spirit.codec import Codec
from spirit.formats import spiritlm, spiritlm_vocoder
from spirit.formats.checkpoints import read_folder, read_json, reason
from spirit.formats.spiritlm_speech import ReleasedEncoder
from spirit.formats.spiritlm_text import ReleasedText
from spirit.formats.spiritlm_vocoder import ReleasedVocoder
from spirit.lm.weights import told_if_full
from spirit.units import Kind
from spirit.vocab import Vocab
from spirit.vocoder import Vocoder

SPEECH = "speech_tokenizer"


@dataclass(frozen=True, eq=False)
class ReleasedReader:
    """What a released model hears and reads by: the calls of `Tokenizer`."""

    encoder: ReleasedEncoder
    codec: Codec
    name: str
    styles: Sequence[str]
    """The names of the styles that `speak` takes: the model's own, or a base vocoder's."""

    @property
    def vocab(self) -> Vocab:
        """Which id means what."""
        return self.codec.vocab


@dataclass(frozen=True, eq=False)
class Released:
    """All parts of one model, on one device."""

    model: LlamaForCausalLM
    reader: ReleasedReader
    vocoder: ReleasedVocoder | None
    speaker: str | None
    mute: str
    """Why there is no vocoder."""


def locate(name: str | Path) -> Path | None:
    """The folder of a released language model, by its name or path; None for anything else.

    Raises ValueError for a released name whose folder is not there.
    """
    if str(name) in spiritlm.MODELS and not Path(name).is_dir():
        return spiritlm.model_folder(name)[0]
    folder = Path(name)
    if (folder / "spirit.toml").is_file() or not (folder / "config.json").is_file():
        return None
    try:
        return spiritlm.model_folder(folder)[0]
    except ValueError:  # the folder of another model
        return None


def load(folder: Path, device: torch.device, place: torch.device | None = None) -> Released:
    """Read a released model with the speech tokenizer and vocoder that belong to it.

    The language model goes to `place` where it is not to go to the device as it is. Raises
    ValueError in one line for what is missing, damaged or of another model. A vocoder that is
    missing or cannot say what the model writes is left out; `mute` says why.
    """
    folder, variant = spiritlm.model_folder(folder)
    ids, speech = spiritlm.vocab(variant), speech_folder(folder)
    text = ReleasedText.load(folder / "tokenizer.model", ids)
    home = speech / spiritlm_vocoder.FOLDERS[variant]
    vocoder, mute = None, f"{home} is missing, so this model cannot speak; download it"
    if home.is_dir():
        vocoder = ReleasedVocoder.load(home, device)
        if misfit := vocoder.misfit(ids):
            vocoder, mute = (
                None,
                f"{home} {misfit}, so it cannot speak; use the vocoder of the model",
            )
    if variant == "expressive":
        styles = [str(i) for i in range(ids.count[Kind.STYLE])]
    else:
        known = 0 if vocoder is None else vocoder.alphabet.get("style", 0)
        styles = spiritlm_vocoder.names(home / "styles.txt", known)
    reader = ReleasedReader(
        ReleasedEncoder.load(speech, variant, device),
        Codec(text.plain, ids, text.opening),
        f"spiritlm-{variant}",
        styles,
    )
    model = load_llama(folder, device if place is None else place)
    speaker = None if vocoder is None else narrator(vocoder)
    return Released(model, reader, vocoder, speaker, mute)


def narrator(vocoder: Vocoder) -> str:
    """Who speaks where nobody is named."""
    return vocoder.speakers[min(spiritlm_vocoder.SPEAKER, len(vocoder.speakers) - 1)]


def speech_folder(model: Path) -> Path:
    """The `speech_tokenizer` of a released model: in its folder, beside it, beside the folder
    `spiritlm_model` that it lies in, or where SPIRITLM_CHECKPOINTS_DIR says.

    Raises ValueError if it is nowhere.
    """
    model = model.absolute()
    for place in (model, model.parent, model.parent.parent):
        if (place / SPEECH).is_dir():
            return place / SPEECH
    try:
        return spiritlm.speech_tokenizer_folder()
    except ValueError:
        raise ValueError(
            f"{model}: its {SPEECH} is missing; put it beside the folder {model.parent.name}, or "
            f"set {spiritlm.CHECKPOINTS}"
        ) from None


def load_llama(
    folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.bfloat16
) -> LlamaForCausalLM:
    """Read a released language model, as a pickle or converted to safetensors.

    The weights go from the disk to the device one by one: 7 B need 13.5 GB there, and little
    memory beside. Raises ValueError that names the file, and the tensor that is missing, and where
    the device has no room.
    """
    config = _config(folder / "config.json")
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    weights = read_folder(folder, mmap=True)
    state = {}
    for name, empty in model.state_dict().items():
        found = weights.get(name)
        if found is None:
            raise ValueError(f"{folder} lacks the weights {name}; download its files again")
        if found.shape != empty.shape:
            raise ValueError(
                f"{folder}: {name} has the shape {tuple(found.shape)} but config.json says "
                f"{tuple(empty.shape)}; the two are not from one model"
            )
        state[name] = found
    device = torch.device(device)
    needed = sum(found.numel() for found in state.values()) * dtype.itemsize
    with told_if_full(device, needed, "the weights", "--dtype int8, or --device cpu"):
        for name in state:
            state[name] = state[name].to(device, dtype)
    model.load_state_dict(state, assign=True)
    # What is no weight was made on no device; it is computed from the configuration.
    model.model.rotary_emb = type(model.model.rotary_emb)(config=config).to(device)
    _check_theta(model, read_json(folder / "config.json"), folder)
    told = {}
    if (folder / "generation_config.json").is_file():
        told = read_json(folder / "generation_config.json")
    model.generation_config = GenerationConfig(
        bos_token_id=told.get("bos_token_id", config.bos_token_id),
        eos_token_id=told.get("eos_token_id", config.eos_token_id),
    )
    return model.eval()


def _config(path: Path) -> LlamaConfig:
    told = read_json(path)
    if (kind := told.get("model_type")) != "llama":
        raise ValueError(f"{path} is of a model of the type {kind!r}; the released ones are llama")
    try:
        config = LlamaConfig.from_dict(told)
        config._attn_implementation = "sdpa"
    except Exception as error:  # transformers raises half a dozen kinds for what it does not like
        raise ValueError(
            f"{path} is no configuration ({reason(error)}); download it again"
        ) from None
    return config


def _check_theta(model: LlamaForCausalLM, told: dict[str, Any], folder: Path) -> None:
    """Refuse a version of transformers that does not see the file's RoPE theta: the released
    models have 100,000, and would answer in a muddle with the default of 10,000."""
    scaled = told.get("rope_parameters") or {}
    theta = float(told.get("rope_theta") or scaled.get("rope_theta") or 10_000.0)
    if told.get("rope_scaling") or scaled.get("rope_type", "default") != "default":
        return
    inverse = model.model.rotary_emb.inv_freq.float().cpu()
    wanted = theta ** -(torch.arange(len(inverse)) / len(inverse))
    if not torch.allclose(inverse, wanted, rtol=1e-4):
        raise ValueError(
            f"{folder}: transformers {transformers.__version__} does not honour rope_theta "
            f"{theta:g} of config.json; install the tested version (constraints.txt)"
        )
