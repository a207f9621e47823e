"""LoRA: small matrices beside frozen ones (Hu et al. 2021), by peft; merged in the end."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor
from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """What is learned in place of all weights."""

    rank: int = 16
    """Columns of the small matrices."""
    alpha: float = 32.0
    """What they add counts alpha / rank."""
    dropout: float = 0.0
    """Share of their inputs that is dropped in training."""
    targets: tuple[str, ...] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )
    """Names of the layers that get them."""
    embeddings: bool = True
    """Whether the tables of ids are trained whole, as rows for new ids must be."""

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.alpha > 0 or not 0 <= self.dropout < 1 or not self.targets:
            raise ValueError(
                "lora needs a rank of at least 1, an alpha above 0, a dropout of at least 0 and "
                "below 1, and targets"
            )


def adapt(model: PreTrainedModel, config: LoraConfig) -> None:
    """Freeze a model and put trainable matrices beside its layers, in place.

    Raises ValueError where peft is missing or a target is no layer of the model.
    """
    try:
        import peft
    except ImportError:
        raise ValueError("[lora] needs peft; pip install '.[lora]'") from None
    layers = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    if missing := [target for target in config.targets if target not in layers]:
        raise ValueError(f"lora.targets: the model has no layer {missing[0]!r}")
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=list(config.targets),
    )
    peft.inject_adapter_in_model(settings, model)
    if config.embeddings:
        for table in (model.get_input_embeddings(), model.get_output_embeddings()):
            table.weight.requires_grad_(True)


def merged(weights: Mapping[str, Tensor], config: LoraConfig) -> dict[str, Tensor]:
    """The weights of a plain model that says what the adapted one says."""
    plain: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if ".lora_" in name:
            continue
        stem, base, kind = name.rpartition(".base_layer.")
        if base and kind == "weight":
            down, up = (weights[f"{stem}.lora_{part}.default.weight"].float() for part in "AB")
            weight = weight.float() + config.alpha / config.rank * (up @ down)
        plain[f"{stem}.{kind}" if base else name] = weight
    return plain
