"""Where a training begins from a model that is there: whether it fits, and can be trained here."""

import hashlib
import json
import tomllib
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

import spirit.lm.packed  # noqa: F401 (registers the attention "documents")
from spirit.engine import ranks
from spirit.lm import model as lm
from spirit.text import HFText, names
from spirit.vocab import Vocab

DOCUMENT = 9
"""Tokens of each of the two documents that a network is tried on."""


def is_ours(init: Path, tokenizer: Path) -> bool:
    """Whether `init` is a model of text and units, of this tokenizer, and not a text model.

    Raises ValueError, naming both, for a model of another tokenizer, and for a text model of which
    the text tokenizer is another.
    """
    vocab = Vocab.load(tokenizer / "vocab.json")
    if not (init / "spirit.toml").is_file():
        _check_text(init, tokenizer, vocab)
        return False
    try:
        told = tomllib.loads((init / "spirit.toml").read_text(encoding="utf-8"))
        card = tomllib.loads((tokenizer / "tokenizer.toml").read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{init} cannot be compared with {tokenizer} ({error})") from None
    for what, has, wanted in (
        ("vocabulary", told.get("vocabulary", ""), vocab.fingerprint),
        ("tokenizer", told.get("fingerprint", ""), card.get("fingerprint", "")),
    ):
        if has and has != wanted:
            raise ValueError(
                f"{init} was trained with the {what} {has}, but that of {tokenizer} is {wanted}; "
                f"train with the tokenizer {told.get('tokenizer', 'of the model')}"
            )
    return True


def read_once(folder: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A model in the main process of a training; the others do not read it, so that a machine with
    eight GPUs has room for one copy.

    They get the same network in memory that nobody has written to, which costs nothing until
    somebody does; `Engine` or `ranks.receive` gives it the weights. All processes call it.
    """
    main = ranks.main_process()
    model = ranks.together(lambda: lm.read(folder, dtype) if main else _hollow(folder, dtype))
    tensors = (*model.named_parameters(), *model.named_buffers())
    told = json.dumps([(name, list(t.shape), str(t.dtype)) for name, t in tensors])
    if len(set(ranks.gather(hashlib.sha256(told.encode()).hexdigest()))) > 1 and not main:
        model = lm.read(folder, dtype)  # its files make another network than its configuration
    return model


def _hollow(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.to_empty(device="cpu")
    model.tie_weights()  # each place has got a table of its own
    return model.eval()


def _check_text(init: Path, tokenizer: Path, vocab: Vocab) -> None:
    """That ids below `text_tokens` mean the same to the text model and the tokenizer."""
    theirs = names(init)
    if theirs is None:
        rows = _rows(init)
        if rows not in (None, vocab.text_tokens):
            raise ValueError(
                f"{init} holds no tokenizer.json to say what its {rows} ids mean, and {tokenizer} "
                f"has {vocab.text_tokens} for text; put the model's tokenizer beside its weights"
            )
        return
    text = HFText.load(tokenizer / "text.json")
    different = [i for name, i in theirs.items() if text.name(i) != name]
    if different or max(theirs.values(), default=-1) + 1 != vocab.text_tokens:
        i = min(different, default=len(theirs))
        raise ValueError(
            f"{init} has another text tokenizer than {tokenizer} (id {i}: "
            f"{next((n for n, at in theirs.items() if at == i), None)!r}, {text.name(i)!r}); "
            f'make a tokenizer with text = "{init}" (spirit fit tokenizer)'
        )


def _rows(folder: Path) -> int | None:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # the reader of the model has words for that
    rows: int | None = config.get("vocab_size")
    return rows


@torch.no_grad()
def check_network(model: PreTrainedModel) -> None:
    """Raise ValueError for a network of which packed documents are not what they are alone.

    Scores behind its output layer, attention that is not only scaled, or memory that runs on from
    one document into the next: no such network can be trained by `Learner`.
    """
    ids = torch.arange(2 * DOCUMENT, device=model.device) % (model.config.vocab_size - 1) + 1
    own, training = model.config._attn_implementation, model.training
    exact = model.dtype == torch.float32
    model.eval()
    try:
        wanted = model(input_ids=ids.view(2, DOCUMENT), use_cache=False).logits.flatten(0, 1)
        model.set_attn_implementation("documents")
        hidden = model.base_model(
            input_ids=ids[None],
            position_ids=torch.arange(DOCUMENT, device=model.device).repeat(2)[None],
            use_cache=False,
            groups=((2, DOCUMENT),),
        ).last_hidden_state[0]
        found = lm.head(model)(hidden)
        away, spread = (found - wanted).float(), wanted.float().std()
        # One step of bfloat16 is more than 0.02 for a large score: there all scores count together.
        off = float((away.abs().max() if exact else away.square().mean().sqrt()) / spread)
    except Exception as error:  # networks are many, and so is what they raise
        raise ValueError(
            f"a {model.config.model_type} cannot read documents side by side "
            f"({(str(error).strip() or type(error).__name__).splitlines()[0]}); take another model"
        ) from None
    finally:
        model.set_attn_implementation(own)
        model.train(training)
    if not off < (0.02 if exact else 0.1):
        raise ValueError(
            f"a {model.config.model_type} reads documents side by side otherwise than alone (the "
            f"scores differ by {off:.2g} standard deviations); take another model"
        )
