"""Speech encoders in Hugging Face folders: HuBERT, mHuBERT, WavLM, wav2vec 2.0."""

from pathlib import Path
from typing import Any

from spirit.formats.checkpoints import fill, read_folder, read_json, rename_weight_norm
from spirit.speech.pretrained import FAMILIES, Pretrained

EPSILON = 1e-7
"""What transformers adds to the variance of a wave that it normalizes."""


def read_encoder(
    folder: Path, layer: int = 0, *, normalize: bool | None = None, padded: bool = True
) -> Pretrained:
    """The network in a Hugging Face folder, giving the features of `layer` (counted from 1; 0: the
    `last_hidden_state` of transformers).

    Weights may be safetensors or pickles, of the bare network or with a head, under old or new
    names of weight norm. Whether waves are normalized is `do_normalize` of
    preprocessor_config.json, or no where that file is absent, unless `normalize` says it. Nothing
    is downloaded. Raises ValueError for a folder that holds no such network.
    """
    network = read_network(folder)
    if normalize is None:
        path = folder / "preprocessor_config.json"
        # transformers takes a file that does not say for a yes.
        normalize = path.is_file() and bool(read_json(path).get("do_normalize", True))
    return Pretrained(network, layer, normalize=EPSILON if normalize else None, padded=padded)


def read_network(folder: Path) -> Any:
    """The bare network of a folder, without its head; see `read_encoder`."""
    settings = read_json(folder / "config.json")
    kind = settings.get("model_type")
    if kind not in FAMILIES:
        raise ValueError(
            f"{folder / 'config.json'} describes a model of the type {kind!r}; "
            f"{', '.join(FAMILIES)} can be a speech encoder"
        )
    form, network_class = FAMILIES[kind]
    try:
        network = network_class(form.from_dict(settings))
    except Exception as error:  # whatever transformers thinks of foreign settings
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{folder / 'config.json'} is no {kind} ({reason}); download it again"
        ) from None
    prefix = f"{kind}."
    weights = {
        name.removeprefix(prefix): weight
        for name, weight in rename_weight_norm(read_folder(folder)).items()
    }
    # Only training masks frames, and some files leave the mask's embedding out.
    if getattr(network, "masked_spec_embed", None) is not None:
        weights.setdefault("masked_spec_embed", network.masked_spec_embed.detach())
    fill(network, weights, folder)
    return network
