"""Units: k-means on a layer of HuBERT, with figures that say what they are worth."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int

from spirit import commit
from spirit.config import plain
from spirit.data.corpus import Utterance, read_corpus
from spirit.engine import device
from spirit.formats.encoders import find_encoder
from spirit.speech.discriminant import discriminant, phone_states
from spirit.speech.hubert import Hubert
from spirit.speech.listen import Listener, Wave, features, load_waves
from spirit.speech.pretrained import Pretrained
from spirit.speech.purity import bitrate, information, joint_counts, phone_labels, purity
from spirit.speech.quantizer import KMeans
from spirit.units import SAMPLE_RATE

REPORT = "units.json"


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


def fit_units(config: UnitsFitConfig) -> dict[str, float]:
    """Cluster a layer of a HuBERT into `config.out`: units, HuBERT up to that layer, `units.json`.

    The folder appears whole; with the same config it is not made again. Gives the figures, from
    other recordings than those clustered: `pnmi` and `phone_purity`, beside `mfcc_pnmi` of as many
    clusters of MFCC (where the corpus knows its phones); `speaker`, how much units tell about the
    speaker (0 to 1); `used`, the share of the units that occur; `bitrate` without repetitions.
    """
    path = config.out / REPORT
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["config"] == plain(config):
            done: dict[str, float] = kept["figures"]
            return done
    if config.out.is_dir() and any(config.out.iterdir()) and not path.is_file():
        raise ValueError(
            f"{config.out} holds something else, which would be lost; give a new folder"
        )
    where = device(config.device)
    if config.threads:
        torch.set_num_threads(config.threads)
    hubert = find_encoder(config.hubert).to(where)
    heard, control = _divide(config, hubert.hop)
    by_layer = _by_layer(hubert, heard, control, config)
    best = max(by_layer, key=lambda number: by_layer[number], default=hubert.layer)
    network = hubert.cut(config.layer or best).to(where)
    listener = Listener(network, hubert.hop)
    quantizer, figures = _cluster(listener, heard, control, config, phones=config.phones)
    if control.knows_phones:
        plainly = _cluster(Listener(None, hubert.hop), heard, control, config, phones=False)
        figures["mfcc_pnmi"] = plainly[1]["pnmi"]
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
        "config": plain(config),
    }
    with commit.folder(config.out) as partial:
        network.save(partial)
        quantizer.save(partial / "units.safetensors")
        commit.json_file(partial / REPORT, report)
    return figures


@dataclass(frozen=True)
class Heard:
    """Recordings, and what the corpus knows of their frames (-1: nothing)."""

    waves: Sequence[Wave]
    phones: Int[np.ndarray, " frames"]
    states: Int[np.ndarray, " frames"]
    """Phones and which part of them."""
    speakers: Int[np.ndarray, " frames"]
    seconds: float

    @classmethod
    def build(cls, utterances: Sequence[Utterance], waves: Sequence[Wave], hop: int) -> "Heard":
        """Label the middle of every frame."""
        names: dict[str, int] = {}
        voices: dict[str, int] = {}
        frames = [max(1, len(wave) // hop) for wave in waves]
        phones, speakers = [], []
        for utterance, count in zip(utterances, frames, strict=True):
            phones.append(phone_labels(utterance.phones, names, count, hop))
            voice = voices.setdefault(utterance.speaker, len(voices))
            speakers.append(np.full(count, voice, np.int32))
        states = phone_states([utterance.phones for utterance in utterances], frames, hop)
        seconds = sum(map(len, waves)) / SAMPLE_RATE
        return cls(waves, np.concatenate(phones), states, np.concatenate(speakers), seconds)

    def first(self, count: int, hop: int) -> "Heard":
        """Its first recordings."""
        waves = self.waves[:count]
        frames = sum(max(1, len(wave) // hop) for wave in waves)
        seconds = sum(map(len, waves)) / SAMPLE_RATE
        labels = (self.phones[:frames], self.states[:frames], self.speakers[:frames])
        return Heard(waves, *labels, seconds)

    @property
    def knows_phones(self) -> bool:
        """Whether the corpus says which phone is spoken when."""
        return bool((self.phones >= 0).any())


def _divide(config: UnitsFitConfig, hop: int) -> tuple[Heard, Heard]:
    """Recordings to cluster, and others to measure on (at most a fifth), drawn at random."""
    utterances = list(read_corpus(config.corpus))
    order = np.random.default_rng(config.seed).permutation(len(utterances))
    drawn = [utterances[i] for i in order]
    few = max(1, len(drawn) // 5)
    apart, rest = drawn[:few], drawn[few:] or drawn
    return _read(rest, config.seconds, hop), _read(apart, config.report_seconds, hop)


def _read(utterances: Sequence[Utterance], seconds: float, hop: int) -> Heard:
    waves: list[Wave] = []
    left = seconds * SAMPLE_RATE
    for utterance in utterances:
        if left <= 0:
            break
        waves += load_waves([utterance])
        left -= len(waves[-1])
    return Heard.build(utterances[: len(waves)], waves, hop)


def _by_layer(
    hubert: Hubert | Pretrained, heard: Heard, control: Heard, config: UnitsFitConfig
) -> dict[int, float]:
    """PNMI of every layer, from a part of the speech; empty where there is no choice."""
    if config.layer or not control.knows_phones:
        return {}
    part = heard.first(max(1, len(heard.waves) // 4), hubert.hop)
    return {
        layer: _cluster(
            Listener(hubert.cut(layer).to(device(config.device)), hubert.hop),
            part,
            control,
            config,
            phones=config.phones,
        )[1]["pnmi"]
        for layer in range(1, hubert.network.config.num_hidden_layers + 1)
    }


def _cluster(
    listener: Listener,
    heard: Heard,
    control: Heard,
    config: UnitsFitConfig,
    *,
    phones: bool,
) -> tuple[KMeans, dict[str, float]]:
    told = np.concatenate(listener(heard.waves, features))
    projection = discriminant(told, heard.states) if phones else None
    quantizer = KMeans.fit(told, config.units, seed=config.seed, projection=projection)
    quantizer = quantizer.to(device(config.device))
    rows = listener(control.waves, quantizer.units)
    units = np.concatenate(rows)
    figures = {
        "used": len(np.unique(units)) / len(quantizer),
        "bitrate": bitrate(rows, control.seconds),
        "speaker": information(joint_counts(units, control.speakers)),
    }
    if control.knows_phones:
        table = joint_counts(units, control.phones)
        figures |= {"pnmi": information(table), "phone_purity": purity(table)}
    return quantizer, figures
