"""Units: k-means on a layer of HuBERT, with figures that say what they are worth."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from spirit import commit
from spirit.config import plain
from spirit.data.corpus import Utterance
from spirit.engine import device
from spirit.fit.heard import Heard, divide, edit_distances, unit_figures
from spirit.fit.stream import Stream
from spirit.formats.encoders import digest, find_encoder
from spirit.speech.discriminant import discriminant
from spirit.speech.hubert import Hubert
from spirit.speech.listen import Listener, features
from spirit.speech.pretrained import Pretrained
from spirit.speech.quantizer import KMeans
from spirit.units import SAMPLE_RATE

REPORT = "units.json"
PASSES = "passes.safetensors"
"""How far an interrupted clustering is."""


@dataclass(frozen=True, kw_only=True)
class UnitsFitConfig:
    """K-means units on a layer of a HuBERT."""

    corpus: Path
    """A JSONL manifest or a folder of recordings; phones, where it knows them, judge the units."""
    out: Path
    """The folder for the units, their HuBERT (without the layers above) and the report."""
    hubert: Path
    """The folder of a fitted HuBERT or a Hugging Face one (HuBERT, mHuBERT, WavLM, wav2vec 2.0), or
    the file of a converted HuBERT."""
    layer: int = 0
    """The layer to cluster; 0 takes the one that tells most about phones (or else the last)."""
    units: int = 200
    """How many units."""
    seconds: float = 5_400.0
    """How much speech to cluster."""
    memory: float = 0.0
    """Megabytes of features to hold. What is more is computed in `passes` over the recordings,
    which are read as they are needed; that can be stopped, and then goes on. 0 holds all of the
    features and all of the recordings."""
    passes: int = 5
    """How often at most all of the speech is heard, where `memory` is limited."""
    phones: bool = False
    """Whether the layer is projected to where phones and their states differ most (LDA) before it
    is clustered; for a corpus that knows its phones."""
    report_seconds: float = 900.0
    """How much other speech to measure on."""
    seed: int = 0
    """Which speech is taken, and where k-means begins."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    threads: int = 0
    """CPU threads of torch and faiss; 0 leaves their own choice."""

    def __post_init__(self) -> None:
        if self.memory < 0 or self.passes < 1:
            raise ValueError("memory must be at least 0 MB and passes at least 1")


def fit_units(config: UnitsFitConfig) -> dict[str, float]:
    """Cluster a layer of a HuBERT into `config.out`: units, HuBERT up to that layer, `units.json`.

    The folder appears whole; with the same config it is not made again. Gives the figures, from
    other recordings than those clustered: `pnmi` and `phone_purity`, beside `mfcc_pnmi` of as many
    clusters of MFCC (where the corpus knows its phones); `speaker`, how much units tell about the
    speaker (0 to 1); `used`, the share of the units that occur; `bitrate` without repetitions;
    `ued_noise`, the edits in % that noise makes to the units.
    """
    path = config.out / REPORT
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["config"] == plain(config):
            done: dict[str, float] = kept["figures"]
            return done
    # Where a clustering was interrupted, a folder holds how far it was and nothing else.
    inside = config.out.iterdir() if config.out.is_dir() else ()
    if not path.is_file() and any(PASSES not in inner.name for inner in inside):
        raise ValueError(
            f"{config.out} holds something else, which would be lost; give a new folder"
        )
    where = device(config.device)
    if config.threads:
        torch.set_num_threads(config.threads)
    hubert = find_encoder(config.hubert).to(where)
    rest, apart = divide(config.corpus, config.seed)
    control = Heard.read(apart, config.report_seconds, hubert.hop)
    heard = Heard.read(rest, _held_seconds(config, hubert), hubert.hop)
    by_layer = _by_layer(hubert, heard, control, config)
    best = max(by_layer, key=lambda number: by_layer[number], default=hubert.layer)
    network = hubert.cut(config.layer or best).to(where)
    listener = Listener(network, hubert.hop)
    errors: list[float] = []
    if config.memory:
        quantizer, errors = _stream(listener, rest, config, network.layer)
    else:
        quantizer = _cluster(listener, heard, config, phones=config.phones)
    figures = unit_figures(listener, quantizer, control)
    figures |= edit_distances(listener, [quantizer], control, ["noise"])[0]
    if control.knows_phones:
        plain_ears = Listener(None, hubert.hop)
        plainly = _cluster(plain_ears, heard, config, phones=False)
        figures["mfcc_pnmi"] = unit_figures(plain_ears, plainly, control)["pnmi"]
        if figures["pnmi"] < figures["mfcc_pnmi"]:
            print(
                f"these units tell less about phones (PNMI {figures['pnmi']:.3f}) than k-means on "
                f"MFCC ({figures['mfcc_pnmi']:.3f}); train HuBERT longer",
                file=sys.stderr,
            )
    report = {
        "figures": figures,
        "layer": network.layer,
        "pnmi_by_layer": {str(number): value for number, value in by_layer.items()},
        **({"error_by_pass": errors} if errors else {}),
        "config": plain(config),
    }
    with commit.folder(config.out) as partial:
        network.save(partial)
        quantizer.save(partial / "units.safetensors")
        commit.json_file(partial / REPORT, report)
    return figures


def _by_layer(
    hubert: Hubert | Pretrained, heard: Heard, control: Heard, config: UnitsFitConfig
) -> dict[int, float]:
    """PNMI of every layer, from a part of the speech; empty where there is no choice."""
    if config.layer or not control.knows_phones:
        return {}
    part = heard.first(max(1, len(heard.waves) // 4), hubert.hop)
    told: dict[int, float] = {}
    for layer in range(1, hubert.network.config.num_hidden_layers + 1):
        listener = Listener(hubert.cut(layer).to(device(config.device)), hubert.hop)
        quantizer = _cluster(listener, part, config, phones=config.phones)
        told[layer] = unit_figures(listener, quantizer, control)["pnmi"]
    return told


def _cluster(listener: Listener, heard: Heard, config: UnitsFitConfig, *, phones: bool) -> KMeans:
    told = np.concatenate(listener(heard.waves, features))
    projection = discriminant(told, heard.states) if phones else None
    quantizer = KMeans.fit(told, config.units, seed=config.seed, projection=projection)
    return quantizer.to(device(config.device))


def _held_seconds(config: UnitsFitConfig, hubert: Hubert | Pretrained) -> float:
    """How much speech is held: what is told of layers and of MFCC comes from that."""
    if not config.memory:
        return config.seconds
    rate = SAMPLE_RATE / hubert.hop * hubert.channels * 4
    return min(config.seconds, config.memory * 1e6 / rate)


def _stream(
    listener: Listener, utterances: Sequence[Utterance], config: UnitsFitConfig, layer: int
) -> tuple[KMeans, list[float]]:
    where = device(config.device)
    stream = Stream.build(utterances, listener, config.seconds)
    quantizer, errors = stream.cluster(
        config.units,
        memory=config.memory,
        passes=config.passes,
        seed=config.seed,
        phones=config.phones,
        state=config.out / PASSES,
        seal=f"{digest(config.hubert)} {layer}",
        device=where,
    )
    return quantizer.to(where), errors
