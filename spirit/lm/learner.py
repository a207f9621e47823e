"""The network that is trained: a language model that says how badly it knew each token."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from spirit.engine import TrainingConfig
from spirit.lm import loss, packed, rowed
from spirit.lm.model import head as model_head

Batch = packed.Packed | rowed.Rowed
LAYOUTS = ("auto", "groups", "rows")


@dataclass(frozen=True, kw_only=True)
class LMTrainingConfig(TrainingConfig):
    """How a language model is trained."""

    accumulate: int = 1
    """Micro-batches that the rows of a step are split into, one after another on each device."""
    checkpointing: bool = False
    """Whether layers keep nothing but their input, and work a second time in the backward pass."""
    compile: bool = False
    """Whether layers are compiled by torch.compile, which takes a minute or two at the start."""
    fused_loss: str = "auto"
    """Whether the loss is found without a table of tokens by vocabulary: yes, no, or auto (where
    that would be large, and on GPUs with Liger's kernels)."""
    attention: str = "auto"
    """How documents are kept apart: groups (of equal length, a product each), rows (FlexAttention
    with a mask), or auto (rows on GPUs)."""

    dtypes = ("bf16", "fp32", "bf16-weights")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.accumulate < 1:
            raise ValueError(f"training.accumulate is at least 1, not {self.accumulate}")
        for name, known in (("fused_loss", loss.WAYS), ("attention", LAYOUTS)):
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"training.{name} must be {', '.join(known)}, not {value!r}")


class Learner(nn.Module):
    """A language model that says how badly it knew each next token of packed documents."""

    def __init__(
        self,
        model: PreTrainedModel,
        guided: Sequence[int] = (),
        *,
        in_rows: bool = False,
        checkpointing: bool = False,
        compiled: bool = False,
        fused_loss: str = "auto",
    ) -> None:
        """`guided` are the layers whose first head is measured against the batch's windows.

        `in_rows` lays documents out for FlexAttention, else in groups of equal length.
        """
        super().__init__()
        self.model, self.guided = model, tuple(guided)
        self.in_rows, self.fused_loss = in_rows, fused_loss
        if wrong := [n for n in self.guided if not 0 <= n < model.config.num_hidden_layers]:
            raise ValueError(
                f"there is no layer {wrong[0]} to guide; there are 0 to "
                f"{model.config.num_hidden_layers - 1}"
            )
        for name in ("final_logit_softcapping", "logit_scale", "logits_scaling"):
            if getattr(model.config, name, None) not in (None, 1, 1.0):
                raise ValueError(
                    f"{type(model).__name__} changes its logits ({name}), which training does not "
                    "know of; take a Llama, Mistral, Qwen or SmolLM"
                )
        model.set_attn_implementation("rows" if in_rows else "documents")
        self._work = _work(model)
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            # transformers 5 makes embeddings ask for gradients, which only the other kind needs;
            # the first layer would be compiled once more for measurements.
            if hasattr(model, "_require_grads_hook") or hasattr(model, "_require_grads_hooks"):
                model.disable_input_require_grads()
        if compiled:
            self._compile()

    @property
    def head(self) -> nn.Module:
        """What makes logits of hidden states."""
        return model_head(self.model)

    def lay_out(self, batch: Mapping[str, Tensor], across: bool = False) -> Batch:
        """Prepare the loader's rows; `across` lets the documents of a row see the ones before."""
        document, first = batch["document"], batch.get("first")
        windows = None if first is None else torch.stack([first, batch["last"]])
        if across:
            if windows is not None:
                place = torch.arange(document.shape[1]) - batch["positions"]
                windows = windows + torch.where(windows[1] > windows[0], place, 0)
            document = document.clamp(max=0)
        if self.in_rows:
            return rowed.lay_out(batch["ids"], document, batch["labels"])
        return packed.lay_out(batch["ids"], document, batch["labels"], windows)

    def forward(
        self, batch: Batch, base: "Learner | None" = None
    ) -> tuple[Float[Tensor, " labels"], Float[Tensor, ""] | None]:
        """The loss of each label, in nats, and that of the guided heads where any are.

        With `base`, a model that knows the text ids alone: how far this one's idea of each next
        token is from that one's, as its KL divergence in nats.
        """
        if base is not None:
            with torch.no_grad():
                known, _ = base.hidden(batch)
            hidden, _ = self.hidden(batch)
            size, other = self.model.config.vocab_size, base.head

            def away(head: nn.Module, own: Tensor, known: Tensor) -> Tensor:
                return _divergence(head, own, other, known)

            return loss.in_pieces(away, self.head, hidden, known, vocab=size), None
        hidden, guide = self.hidden(batch)
        losses = loss.token_losses(
            self.head,
            hidden,
            batch.labels,
            vocab=self.model.config.vocab_size,
            fused=self.fused_loss,
        )
        return losses, guide.loss() if guide else None

    def hidden(self, batch: Batch) -> tuple[Float[Tensor, "labels channels"], packed.Guide | None]:
        """What the layers say where a next token is asked for, and what the guided heads did."""
        guide, layout = None, dict[str, Any]()
        if isinstance(batch, rowed.Rowed):
            ids, positions = batch.ids, batch.positions
            layout = {"blocks": rowed.mask(positions)}
        else:
            ids, positions = batch.ids[None], batch.positions[None]
            if self.guided and batch.windows is not None:
                guide = packed.Guide(self.guided, batch.windows)
            layout = {"groups": batch.groups, "guide": guide}
        hidden = self.model.base_model(
            input_ids=ids, position_ids=positions, use_cache=False, **layout
        ).last_hidden_state.flatten(0, 1)
        # Only what is learned goes through the head: padding and prompts cost nothing there.
        return hidden[batch.asked], guide

    def flops(self, tokens: int, labels: int, pairs: int) -> float:
        """What a step must compute, in FLOPs, for so many tokens, labels, and pairs of positions
        that see each other. Work that checkpointing repeats does not count."""
        layers, head, attention = self._work
        return layers * tokens + head * labels + attention * pairs

    @property
    def formula(self) -> str:
        """How `flops` counts, in words."""
        layers, head, attention = self._work
        return (
            f"{layers:,} x tokens + {head:,} x labels + {attention:,} x pairs of positions in one "
            "document; 6 FLOPs a weight, 4 where it is frozen, 12 a channel of attention"
        )

    def _compile(self) -> None:
        rowed.allow_variants()
        for layer in _layers(self.model):
            if self.in_rows:
                layer.compile(dynamic=False)
                continue
            # Groups change from step to step: only what does not know of them is compiled.
            for part in layer.children():
                if "Attention" not in type(part).__name__:
                    part.compile(dynamic=True)


def _divergence(
    head: nn.Module,
    hidden: Float[Tensor, "labels channels"],
    base: nn.Module,
    known: Float[Tensor, "labels base_channels"],
) -> Float[Tensor, " labels"]:
    with torch.no_grad():
        wanted = base(known).float().log_softmax(-1)
    said = head(hidden).float().log_softmax(-1)[:, : wanted.shape[1]]
    distance: Tensor = (wanted.exp() * (wanted - said)).sum(-1)
    return distance


def _layers(model: PreTrainedModel) -> nn.ModuleList:
    count = model.config.num_hidden_layers
    for module in model.base_model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise ValueError(
        f"{type(model).__name__} keeps its layers where training does not find them; take a Llama, "
        "Mistral, Qwen or SmolLM"
    )


def _work(model: PreTrainedModel) -> tuple[int, int, int]:
    """FLOPs of forward and backward pass for a token, a label and a pair of positions.

    A product's weight takes part in 2 FLOPs forward and 2 in each of two backward products, of
    which a frozen weight needs one (Kaplan et al. 2020, "Scaling laws for neural language models",
    section 2.1). A pair takes 4 for each channel of a layer forward, 12 in all.
    """
    config = model.config
    matrices = [p for p in _layers(model).parameters() if p.ndim == 2]
    layers = sum((6 if p.requires_grad else 4) * p.numel() for p in matrices)
    table = model.get_output_embeddings().weight
    head = (6 if table.requires_grad else 4) * table.numel()
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return layers, head, 12 * config.num_hidden_layers * config.num_attention_heads * size


def in_rows(
    model: PreTrainedModel, config: LMTrainingConfig, device: torch.device, row: int, guided: bool
) -> bool:
    """Whether documents are laid out for FlexAttention. Raises ValueError where they cannot be."""
    near = getattr(model.config, "sliding_window", None)
    obstacles = {
        f"rows of {row} tokens are no multiple of {rowed.BLOCK}": row % rowed.BLOCK != 0,
        "guided heads are measured in groups": guided,
        "attention has dropout": bool(getattr(model.config, "attention_dropout", 0.0)),
        f"the model sees {near} tokens at a time": bool(near and near < row),
    }
    why = next((reason for reason, holds in obstacles.items() if holds), None)
    if config.attention == "rows" and why:
        raise ValueError(f"training.attention = rows is not possible: {why}; say groups")
    if config.attention == "auto":
        return device.type == "cuda" and why is None
    return config.attention == "rows"
