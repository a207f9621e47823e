"""STSP in miniature: is what goes on from an excited, sad or neutral beginning so too?

    python recipes/ablations/moods.py --model work/ablations/expressive/voiced \\
      --data work/ablations/pairs/stsp --corpus recipes/tiny/work/corpus/train.jsonl \\
      --judge work/ablations/judge.json --out work/ablations/report/expressive/stsp

The judge is a logistic regression on pitch (by FCPE, which no part of the model uses) and loudness.
It is fitted on second halves of training recordings, never on anything that a model said, and tried
on the second halves that were recorded of the test sentences themselves.
"""

import argparse
import json
import sys
from collections import defaultdict
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from pairs import MOODS, SENTIMENTS

from spirit import commit
from spirit.audio import read_audio
from spirit.data.corpus import read_corpus
from spirit.eval import stsp
from spirit.eval.figures import mean
from spirit.eval.judges import Wave
from spirit.speech.fcpe import Fcpe

RATE, FRAME = 16_000, 400
LEAST = 20
"""Voiced frames of 5 ms below which nothing can be said about a melody."""
EACH = 150
"""Recordings of a mood that the judge is fitted on, at most."""


@dataclass(frozen=True)
class Judge:
    """A mood for each wave: the greatest of linear scores of its features."""

    moods: tuple[str, ...]
    center: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...]
    bias: tuple[float, ...]

    def __call__(self, wave: str | Wave) -> str:
        """The sentiment; "" of a wave in which nobody speaks."""
        heard = features(np.asarray(wave, np.float32))
        if heard is None:
            return ""
        scores = np.array(self.weights) @ ((heard - self.center) / self.scale) + self.bias
        return self.moods[int(scores.argmax())]


@cache
def _ear() -> Fcpe:
    return Fcpe()


def features(wave: Wave) -> Float[np.ndarray, " features"] | None:
    """What tells moods apart: height, spread and movement of log F0, how long voices last, and how
    loudness varies. None where less than 0.1 s is voiced."""
    f0 = _ear()(torch.from_numpy(wave)).numpy()
    voiced = f0 > 0
    if voiced.sum() < LEAST:
        return None
    log = np.log(f0[voiced])
    low, high = np.percentile(log, [10, 90])
    both = voiced[1:] & voiced[:-1]
    steps = np.abs(np.diff(np.log(np.where(voiced, f0, 1.0))))[both]
    runs = np.flatnonzero(np.diff(np.concatenate([[0], voiced.astype(int), [0]]))).reshape(-1, 2)
    frames = wave[: len(wave) // FRAME * FRAME].reshape(-1, FRAME)
    loud = 10 * np.log10(np.square(frames).mean(1) + 1e-7)
    melody = (log.mean(), log.std(), high - low, steps.mean() if len(steps) else 0.0)
    loudness = (loud.std(), np.abs(np.diff(loud)).mean() if len(loud) > 1 else 0.0)
    return np.array([*melody, voiced.mean(), np.log(np.diff(runs).mean()), *loudness])


def fit(corpus: Path, voice: str) -> Judge:
    """A judge of the moods of one voice. Raises ValueError where the corpus lacks one of them."""
    from sklearn.linear_model import LogisticRegression

    found: dict[str, list[Float[np.ndarray, " features"]]] = defaultdict(list)
    for utterance in read_corpus(corpus):
        style, words = utterance.style, utterance.words
        if utterance.speaker != voice or style not in MOODS or len(words) < 4:
            continue
        if utterance.id.endswith("-a") or len(found[style]) >= EACH:
            continue  # a copy that was changed sounds otherwise than its style
        half = len(words) // 2
        heard = features(read_audio(utterance.audio)[words[half].start :])
        if heard is not None:
            found[style].append(heard)
    if lacking := [style for style in MOODS if len(found[style]) < 5]:
        raise ValueError(f"{corpus} has too little of {voice} in the style {lacking[0]}")
    rows = np.concatenate([np.stack(found[style]) for style in MOODS])
    labels = np.repeat(np.arange(len(MOODS)), [len(found[style]) for style in MOODS])
    center, scale = rows.mean(0), rows.std(0)
    model = LogisticRegression(class_weight="balanced", max_iter=1_000)
    model.fit((rows - center) / scale, labels)
    return Judge(
        tuple(SENTIMENTS[MOODS[style]] for style in MOODS),
        tuple(center.tolist()),
        tuple(scale.tolist()),
        tuple(map(tuple, model.coef_.tolist())),
        tuple(model.intercept_.tolist()),
    )


def load(path: Path) -> Judge:
    """The judge that `main` wrote."""
    told = json.loads(path.read_text(encoding="utf-8"))
    lists = {key: told[key] for key in ("moods", "center", "scale", "bias")}
    weights = tuple(map(tuple, told["weights"]))
    return Judge(**{key: tuple(value) for key, value in lists.items()}, weights=weights)


def name_speaker(model: Path, voice: str) -> None:
    """Let a model that names nobody speak in the voice of the prompts."""
    card = model / "spirit.toml"
    text = card.read_text(encoding="utf-8")
    if "\nspeaker" not in text:
        commit.text(card, f'{text}speaker = "{voice}"\n')


def main() -> int:
    parser = argparse.ArgumentParser(description="STSP in miniature.")
    for name in ("model", "data", "corpus", "judge", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    try:
        manifest = args.data / "manifest/flite/flite.test.jsonl"
        rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
        voice = rows[0]["speaker"]
        if not args.judge.is_file():
            judge = fit(args.corpus, voice)
            rests = [args.data / "data" / row["wav_path"].replace("prompt", "rest") for row in rows]
            right = [
                judge(read_audio(rest)) == row["sentiment"]
                for rest, row in zip(rests, rows, strict=True)
            ]
            commit.json_file(args.judge, {**asdict(judge), "on_recordings": asdict(mean(right))})
        name_speaker(args.model, voice)
        stsp.evaluate(
            *(args.model, args.data, manifest, args.out, load(args.judge)),
            direction="s2s",
            judge_name=commit.sha256(args.judge)[:12],
            device=args.device,
            jobs=args.jobs,
        )
    except (ValueError, OSError) as error:
        print(f"moods.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
