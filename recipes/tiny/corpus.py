"""Make the corpus: the language of the recipe in four voices, prompts of a human one, silence.

    python recipes/tiny/corpus.py --out build/corpus --sentences 6000 --heldout 320

writes `train.jsonl`, `heldout.jsonl`, `heard.jsonl` (further copies of training recordings, which
the language model alone reads), `audio/*.flac`, and two files of sentences that nobody speaks:
`text.txt`, of which the tokenizer learns its pieces of words, and `written.txt`.
Utterance i depends only on (seed, i).
What is interrupted goes on where it was; a finished corpus is left alone.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import augment
import language
import numpy as np
import prompts
import soundfile
import voices
from jaxtyping import Float

from spirit import commit

RATE = 16_000
BLOCK = 50
"""Recordings that are made, and remembered as made, together."""

MANIFESTS = ("train", "heldout", "heard")
OTHERS = ("allison", "nobody")
"""Whose recordings are not synthesized: the human voice's, and those in which nobody speaks."""

Line = dict[str, Any]
Span = tuple[str, int, int]


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """What is made; two corpora with equal settings are equal."""

    sentences: int = 6000
    """Training sentences in the synthetic voices."""
    heldout: int = 320
    """Held-out sentences in the synthetic voices, spread evenly over them."""
    prompts: int = 1000
    """Recordings of the human voice, at most; one of ten is held out."""
    quiet: int = 60
    """Training recordings in which nobody speaks: silence, noise and hum."""
    augment: float = 0.15
    """Share of the synthetic training recordings that get a changed copy."""
    copies: int = 3
    """Changed copies of each training recording of the human voice, of which there are few."""
    prompted: float = 0.08
    """Share of the training sentences that are texts of the human voice's training prompts."""
    noisy: float = 0.5
    """Share of the synthetic training recordings that get a further changed copy, for the language
    model: what the ears take for other units, it learns to read all the same."""
    texts: int = 40_000
    """Further training sentences, written only: of these the tokenizer learns pieces of words."""
    written: int = 200_000
    """Yet further ones: of both the model learns the language."""
    seed: int = 0


@dataclass(frozen=True)
class Job:
    """One utterance to synthesize."""

    id: str
    text: str
    voice: str
    style: str
    settings: voices.Settings
    change: augment.Change | None
    noisy: augment.Change | None = None


def plan(config: CorpusConfig, split: str, index: int) -> Job:
    """Utterance `index` of a split.

    Held-out sentences are those of `language.heldout`, in settings that training never sees.
    """
    held = split == "heldout"
    rng = random.Random(f"{config.seed} {split} {index}")
    text = sentence(rng, held, config.prompted)
    voice = list(voices.VOICES)[index % len(voices.VOICES)]
    names = list(voices.STYLES)
    style = rng.choices(names, [2 if name == "neutral" else 1 for name in names])[0]
    settings = voices.draw_settings(voice, style, held, rng)
    changed = not held and rng.random() < config.augment
    change = augment.draw_change(rng) if changed else None
    name = f"{voice}-{'h' if held else ''}{index:06d}"
    rng = random.Random(f"{config.seed} noisy {name}")
    noisy = augment.draw_change(rng) if not held and rng.random() < config.noisy else None
    return Job(name, text, voice, style, settings, change, noisy)


def sentence(rng: random.Random, held: bool, prompted: float = 0.0) -> str:
    """A sentence for training (with probability `prompted` a prompt's) or one kept from it."""
    if not held and rng.random() < prompted:
        return rng.choice(prompted_texts())
    text = language.draw(rng)
    while language.heldout(text) != held:
        text = language.draw(rng)
    return text


@cache
def prompted_texts() -> list[str]:
    """What the human voice says in training, less what prompts or the language hold out."""
    texts = {prompt.text for prompt in prompts.read_prompts(sounds=None) if not prompt.heldout}
    return sorted(text for text in texts if not language.heldout(text))


def make(
    job: Job, out: Path, scratch: Path, alone: dict[str, list[str]]
) -> tuple[list[Line], list[Line]]:
    """Synthesize one utterance and its changed copy, and the copies for the language model; no
    lines where its words are in doubt."""
    wave, phones = voices.speak(job.text, job.voice, job.settings, scratch)
    words = voices.locate(job.text, phones, alone)
    if words is None:
        return [], []
    lines = [
        save(out, job.id, wave, job.text, words, job.voice, job.style)
        | {"settings": asdict(job.settings), "phones": [[p.name, p.start, p.stop] for p in phones]}
    ]
    if job.change:
        speed = job.change.speed
        settings = {name: round(value * speed, 4) for name, value in asdict(job.settings).items()}
        copied = copy(out, lines[0], wave, job.change, f"{job.id}-a")
        lines.append(copied | {"settings": settings})
    heard = [copy(out, lines[0], wave, job.noisy, f"{job.id}-n")] if job.noisy else []
    return lines, heard


def copy(
    out: Path, line: Line, wave: Float[np.ndarray, " samples"], change: augment.Change, name: str
) -> Line:
    """Write the changed copy of a recording and return its line."""
    changed = augment.apply(wave, change)
    scaled = [
        (
            word["text"],
            round(word["start"] / change.speed),
            min(round(word["stop"] / change.speed), len(changed)),
        )
        for word in line["words"]
    ]
    made = save(out, name, changed, line["text"], scaled, line["speaker"], line["style"])
    return made | {"augmented": asdict(change)}


def make_human(
    config: CorpusConfig, prompt: prompts.Prompt, out: Path, aligner: prompts.Aligner
) -> list[Line]:
    """One recording of the human voice and, for training, its changed copies.

    Without words and phones where its alignment is in doubt.
    """
    wave = prompts.read_wave(prompt)
    found = aligner.align(wave, prompt.text)
    words, phones = (found.words, found.phones) if found else ([], [])
    line = save(out, prompt.id, wave, prompt.text, words, OTHERS[0], "neutral")
    if prompt.heldout:
        return [line]
    rng = random.Random(f"{config.seed} copies {prompt.id}")
    changes = [augment.draw_change(rng) for _ in range(config.copies)]
    copies = [
        copy(out, line, wave, change, f"{prompt.id}-a{index}")
        for index, change in enumerate(changes)
    ]
    return [line | {"phones": [list(phone) for phone in phones]}, *copies]


def make_quiet(config: CorpusConfig, index: int, out: Path) -> Line:
    """A recording without words: silence to the last bit, or noise from faint to loud."""
    rng = random.Random(f"{config.seed} quiet {index}")
    samples = round(rng.uniform(0.3, 4.0) * RATE)
    kind = rng.choice(("silence", "white", "pink", "hum"))
    wave = np.zeros(samples)
    if kind != "silence":
        wave = augment.draw_noise(samples, kind, np.random.default_rng(rng.randrange(2**32)))
        wave *= 10 ** (rng.uniform(-70, -20) / 20) / np.sqrt(np.mean(wave**2))
    line = save(out, f"quiet-{index:06d}", wave.clip(-1, 1), "", [], OTHERS[1], "")
    return line | {"language": "zxx"}  # ISO 639-2: no linguistic content


def save(
    out: Path,
    name: str,
    wave: Float[np.ndarray, " samples"],
    text: str,
    words: Sequence[Span],
    speaker: str,
    style: str,
) -> Line:
    """Write 16-bit FLAC and return its line; a name in `audio/` is always a whole file."""
    path = out / f"audio/{name}.flac"
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    soundfile.write(partial, wave, RATE, format="FLAC", subtype="PCM_16")
    partial.replace(path)
    return {
        "id": name,
        "audio": str(path.relative_to(out)),
        "seconds": round(len(wave) / RATE, 4),
        "text": text,
        "words": [{"text": word, "start": start, "stop": stop} for word, start, stop in words],
        "speaker": speaker,
        "language": "en",
        "style": style,
    }


def blocks(config: CorpusConfig) -> Iterator[tuple[str, int, int]]:
    """The blocks of the corpus: (kind, start, stop)."""
    human = len(prompts.read_prompts()[: config.prompts]) if config.prompts else 0
    totals = {"heldout": config.heldout, "train": config.sentences, "human": human}
    totals["quiet"] = config.quiet
    for kind, total in totals.items():
        for start in range(0, total, BLOCK):
            yield kind, start, min(start + BLOCK, total)


def part(out: Path, kind: str, start: int) -> Path:
    """Where the lines of one block wait until all are there."""
    return out / "parts" / f"{kind}-{start:06d}.json"


def make_block(
    config: CorpusConfig,
    block: tuple[str, int, int],
    out: Path,
    scratch: Path,
    alone: dict[str, list[str]],
) -> None:
    """Make the recordings of one block and write its lines, by split, as one part."""
    kind, start, stop = block
    lines: dict[str, list[Line]] = {name: [] for name in MANIFESTS}
    if kind == "human":
        aligner = prompts.Aligner(alone)
        for prompt in prompts.read_prompts()[start:stop]:
            recordings = make_human(config, prompt, out, aligner)
            lines["heldout" if prompt.heldout else "train"] += recordings
    elif kind == "quiet":
        lines["train"] += [make_quiet(config, index, out) for index in range(start, stop)]
    else:
        for index in range(start, stop):
            made, heard = make(plan(config, kind, index), out, scratch, alone)
            lines[kind] += made
            lines["heard"] += heard
    commit.text(part(out, kind, start), json.dumps(lines))


def build(config: CorpusConfig, out: Path, workers: int = 2) -> None:
    """Make what is missing of the corpus, then its manifests and texts."""
    voices.require()
    begun, told = out / "parts" / "config.json", json.dumps(asdict(config))
    if begun.exists() and begun.read_text() != told:
        raise ValueError(f"{out} was begun as another corpus; remove it or choose another --out")
    begun.parent.mkdir(parents=True, exist_ok=True)
    commit.text(begun, told)
    todo = [block for block in blocks(config) if not part(out, *block[:2]).exists()]
    total = sum(stop - start for _, start, stop in blocks(config))
    missing = sum(stop - start for _, start, stop in todo)
    said = {word for prompt in prompts.read_prompts(sounds=None) for word in prompt.text.split()}
    alone = voices.pronunciations(sorted(said | set(language.expected())))
    (out / "audio").mkdir(parents=True, exist_ok=True)
    quiet = (signal.SIGINT, signal.SIG_IGN)  # a worker ends its block, then the pool ends it
    with (
        tempfile.TemporaryDirectory() as scratch,
        ProcessPoolExecutor(workers, get_context("spawn"), signal.signal, quiet) as pool,
    ):
        voices.prepare(Path(scratch))
        futures: dict[Future[None], int] = {
            pool.submit(make_block, config, block, out, Path(scratch), alone): block[2] - block[1]
            for block in todo
        }
        try:
            for future in as_completed(futures):
                future.result()
                missing -= futures[future]
                print(
                    f"\rcorpus: {total - missing} of {total}", end="", file=sys.stderr, flush=True
                )
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        finally:
            print(file=sys.stderr)
    parts = [json.loads(part(out, *block[:2]).read_text()) for block in blocks(config)]
    for split in MANIFESTS:
        lines = [json.dumps(line) + "\n" for made in parts for line in made[split]]
        commit.text(out / f"{split}.jsonl", "".join(lines))
    for name, count in (("text", config.texts), ("written", config.written)):
        texts = (
            sentence(random.Random(f"{config.seed} {name} {i}"), False, config.prompted)
            for i in range(count)
        )
        commit.text(out / f"{name}.txt", "".join(f"{text}\n" for text in texts))
    commit.json_file(out / "corpus.json", asdict(config))
    shutil.rmtree(out / "parts")
    for partial in (out / "audio").glob(".*.partial"):
        partial.unlink()


def report(config: CorpusConfig, out: Path) -> str:
    """What is in the corpus, for people."""
    rows = []
    for split, asked in (("train", config.sentences), ("heldout", config.heldout)):
        lines = [json.loads(item) for item in (out / f"{split}.jsonl").read_text().splitlines()]
        copies = sum("augmented" in line for line in lines)
        human, quiet = (
            sum(line["speaker"] == who and "augmented" not in line for line in lines)
            for who in OTHERS
        )
        words = Counter(word for line in lines for word in line["text"].split())
        apart = out / "heard.jsonl"
        heard = split == "train" and apart.exists() and len(apart.read_text().splitlines())
        rows.append(
            f"{split}: {sum(line['seconds'] for line in lines) / 3600:.2f} h, "
            f"{len(lines) - human - quiet - copies} sentences, {copies} changed copies, "
            f"{f'{heard} further ones apart, ' if heard else ''}"
            f"{human} human recordings, {quiet} without words, "
            f"{words.total()} words ({len(words)} different), "
            f"{asked - len(lines) + human + quiet + copies} dropped"
        )
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the recipe's corpus.")
    parser.add_argument("--out", type=Path, required=True)
    for name, default in asdict(CorpusConfig()).items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    parser.add_argument("--workers", type=int, default=2)
    args = vars(parser.parse_args())
    out, workers = args.pop("out"), args.pop("workers")
    config = CorpusConfig(**args)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        made = out / "corpus.json"
        # A corpus that was made before there were these has none of them.
        none = {"noisy": 0.0, "written": 0}
        held = none | json.loads(made.read_text()) if made.exists() else {}
        if held and held != asdict(config):
            raise ValueError(f"{out} holds another corpus; remove it or choose another --out")
        if not made.exists():
            build(config, out, workers)
        print(report(config, out))
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
