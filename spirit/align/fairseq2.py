"""fairseq2's wav2vec 2.0 with a CTC head as an aligner: wav2vec 2.0, XLS-R, omniASR of MMS."""

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spirit import commit
from spirit.align.ctc import CTC
from spirit.formats.checkpoints import reason

PREFIX = "fairseq2:"
"""What a model's name begins with, in place of a Hugging Face folder."""
FAMILY = "wav2vec2_asr"
BLANK = 0
"""Of every wav2vec 2.0 in fairseq2: its loss takes no other."""
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
"""What fairseq puts before the tokens of a dictionary, the first of them as the blank."""


class Network(nn.Module):
    """A model of fairseq2, called as `CTC` calls those of transformers."""

    def __init__(self, model: nn.Module, config: Any) -> None:
        """`config` is fairseq2's Wav2Vec2AsrConfig."""
        super().__init__()
        self.model = model
        _, kernels, strides = zip(*config.encoder_config.feature_extractor_layer_descs, strict=True)
        self.config = SimpleNamespace(
            vocab_size=config.target_vocab_size, conv_kernel=kernels, conv_stride=strides
        )

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def forward(self, waves: Float[Tensor, "batch samples"]) -> SimpleNamespace:
        """`logits`, `[batch, frames, vocabulary]`."""
        from fairseq2.nn import BatchLayout

        logits, _ = self.model(waves, BatchLayout.of(waves))
        return SimpleNamespace(logits=logits)


def load(model: str, device: str = "cpu") -> CTC:
    """The aligner for `fairseq2:NAME`, an asset that fairseq2 knows, or `fairseq2:CARD.yaml`.

    A card has `model_family: wav2vec2_asr`, `model_arch`, `checkpoint`, and `tokenizer`, here or in
    the card that `tokenizer_ref` names: a SentencePiece model of characters, or a dictionary of
    fairseq (`.txt`, a token a line). Paths start where the card lies; what a card has at a URL is
    fetched once by fairseq2, into its cache. Nothing inside a pickle is run.

    Waves are normalized for models that normalize every convolution, as fairseq trains them.
    Raises ValueError for what is no such card, or does not fit.
    """
    from fairseq2.models.wav2vec2.asr import get_wav2vec2_asr_model_hub

    name = model.removeprefix(PREFIX)
    try:
        store, card = _card(name)
        hub = get_wav2vec2_asr_model_hub()
        config = hub.get_model_config(card)
        encoder = config.encoder_config
        if encoder.use_fbank:
            raise ValueError("the model hears filterbanks, not waves; give another one")
        words = _tokenizer(store, card)  # the small one first
        weights = _checkpoint(card)
        network = hub.load_custom_model(
            weights, config, device=torch.device(device), dtype=torch.float32, restrict=True
        )
        vocabulary, delimiter = _read_vocabulary(words)
    except Exception as error:  # fairseq2 has a dozen types for a card that is wrong
        causes = [error] if error.__cause__ is None else [error, error.__cause__]
        said = "; ".join(
            reason(cause).rstrip(".") for cause in causes if isinstance(cause, Exception)
        )
        raise ValueError(
            f"{model}: {said}; give a name that fairseq2 knows or a card, fairseq2:CARD.yaml"
        ) from None
    if max(vocabulary.values(), default=-1) >= config.target_vocab_size:
        raise ValueError(
            f"{words} has {len(vocabulary)} tokens, the model {config.target_vocab_size} outputs; "
            "give the tokenizer that it was trained with"
        )
    digest = hashlib.sha256(repr(config).encode())
    for path in (words, *sorted(weights.rglob("*") if weights.is_dir() else [weights])):
        if path.is_file():
            digest.update(commit.sha256(path).encode())
    return CTC(
        Network(network, config),
        vocabulary,
        blank=BLANK,
        delimiter=delimiter,
        normalize=encoder.feature_extractor_layer_norm_convs,
        settings={
            "aligner": "ctc",
            "model": f"{PREFIX}{digest.hexdigest()[:16]}",
            "device": device.split(":")[0],
        },
    )


def _card(name: str) -> tuple[Any, Any]:
    """The card of a model, and the store that knows the cards which it names."""
    from fairseq2.assets import FileAssetMetadataLoader, StandardAssetStore, get_asset_store
    from fairseq2.runtime.dependency import get_dependency_resolver

    if not name.endswith((".yaml", ".yml")):
        return get_asset_store(), get_asset_store().retrieve_card(name)
    path = Path(name)
    if not path.is_file():
        raise ValueError("no such file")
    files = get_dependency_resolver().resolve(FileAssetMetadataLoader)
    store = StandardAssetStore([files.load(path)])
    cards = sorted(store.find_cards("model_family", FAMILY), key=lambda card: str(card.name))
    if len(cards) != 1:
        raise ValueError(f"{len(cards)} cards with `model_family: {FAMILY}` are in it, not one")
    return store, cards[0]


def _checkpoint(card: Any) -> Path:
    from fairseq2.assets import get_asset_download_manager

    path: Path = get_asset_download_manager().download_model(card.field("checkpoint").as_uri())
    return path


def _tokenizer(store: Any, card: Any) -> Path:
    from fairseq2.assets import get_asset_download_manager
    from fairseq2.data.tokenizers import resolve_tokenizer_reference

    named = resolve_tokenizer_reference(store, card).field("tokenizer").as_uri()
    path: Path = get_asset_download_manager().download_tokenizer(named)
    return path


def _read_vocabulary(path: Path) -> tuple[dict[str, int], str]:
    """The ids of tokens, and the one that stands between words."""
    if path.suffix == ".txt":
        lines = path.read_text(encoding="utf-8").splitlines()
        tokens = [*SPECIAL, *(line.split()[0] for line in lines if line.split())]
        return {token: id for id, token in enumerate(tokens)}, "|"
    from fairseq2.data.tokenizers.sentencepiece import load_sentencepiece_model

    model = load_sentencepiece_model(path)
    return {model.index_to_token(id): id for id in range(model.vocabulary_size)}, "▁"
