"""Offline assembly: a corpus of recordings to unit shards, part by part, in several processes.

A part is a fixed stretch of the corpus. It is made alone, from its own sorted content and with a
fixed number of threads, so the shards are the same bytes whoever makes them, in whatever order, and
however often the work is stopped.
"""

import hashlib
import json
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from spirit import commit, engine
from spirit.data.children import run_jobs
from spirit.data.corpus import Utterance, read_corpus, root_of
from spirit.data.decoder import LIMITS, Limits
from spirit.data.parts import Note, part_name, read_note
from spirit.data.shards import write_manifest
from spirit.prepare.parts import (
    THREADS,
    Dtype,
    Job,
    PartMaker,
    Progress,
    Variant,
    add_up,
    audio_name,
    precision,
)
from spirit.sound import Sound, is_url

# Of a note: how units were made.
_SETTINGS = ("variant", "device", "dtype", "threads", "batch_seconds", "windows")
_SAME = ("format", "vocabulary", "tokenizer", *_SETTINGS, "source")  # of a part that is kept


def tokenize(
    corpus: Path | str,
    tokenizer: Path,
    out: Path,
    *,
    workers: int = 1,
    part: tuple[int, int] = (0, 1),
    variant: Variant = "expressive",
    batch_seconds: float = 120.0,
    rows_per_part: int = 512,
    device: str = "auto",
    dtype: Dtype = "auto",
    root: Path | None = None,
    columns: Mapping[str, str] | None = None,
    ray: str | None = None,
    limits: Limits | None = LIMITS,
) -> dict[str, Any]:
    """Turn a corpus into unit shards in the folder `out`, in `workers` processes; returns a report.

    `corpus`, `root` and `columns` are those of `read_corpus`.
    `tokenizer` is a folder of ours or the released Spirit LM's `speech_tokenizer/`, whose units get
    the ids of the released models of that variant.
    `dtype` is the precision of its HuBERT: fp32, bf16, or auto, which is bf16 on a GPU for
    tokenizers of ours. Units of recordings do not depend on how they are batched, but a few of a
    thousand depend on the precision, so it stands in the manifest.
    Recordings are decoded within `limits` of memory and time, in a child of each process;
    `limits=None` decodes in the process itself.

    `part = (i, n)` makes the parts `i, i + n, ...` only, for n machines that share the folder; who
    ends last writes the manifest. What is finished is kept, so the same call goes on after a stop;
    a folder made from something else is refused. `ray` puts the workers on a Ray cluster, `local`,
    `auto` or `HOST:PORT`, see `on_ray`.

    Recordings that cannot be used are listed in `rejected.jsonl` with a code and a reason. The
    report says how many utterances of the corpus have a text, how many seconds each stage took,
    over all processes (`decode` runs beside the others), and which was the slowest. Raises
    `ValueError` or `OSError` with one line.
    """
    given = {"workers": workers, "rows_per_part": rows_per_part, "batch_seconds": batch_seconds}
    for name, value in given.items():
        if value <= 0:
            raise ValueError(f"{name} is above 0, not {value:g}")
    if not 0 <= part[0] < part[1]:
        raise ValueError(f"part {part[0]}/{part[1]}: parts of {part[1]} are 0 to {part[1] - 1}")
    if ray is not None:
        from spirit.prepare import on_ray  # a missing Ray shows before any work
    began, threads, where = time.monotonic(), torch.get_num_threads(), engine.device(device)
    base = root_of(corpus) if root is None else root
    read = partial(read_corpus, corpus, root=root, columns=columns)
    exact = precision(dtype, where.type, tokenizer)
    there = partial(PartMaker.load, tokenizer, base, str(where), variant, exact, limits)
    here = there()
    vocab = here.tokenizer.vocab
    note = Note(
        vocabulary=vocab.fingerprint,
        tokenizer=here.tokenizer.fingerprint,
        variant=variant,
        device=where.type,
        dtype=exact,
        threads=THREADS,
        batch_seconds=batch_seconds,
        windows=dict(here.tokenizer.windows),
    )
    # The whole corpus is read before the work begins: a fault in its last line shows at once.
    listing = time.perf_counter()
    stretches = [
        (len(some), _digest(some, base), sum(bool(utterance.text) for utterance in some))
        for some in _stretches(read(), rows_per_part)
    ]
    spent = {"list": time.perf_counter() - listing}
    mine = {
        i: replace(note, source=stretches[i][1]) for i in range(part[0], len(stretches), part[1])
    }
    todo = _take_stock(out, mine, len(stretches), alone=part[1] == 1)
    jobs = (
        Job(index, mine[index], some)
        for index, some in enumerate(_stretches(read(), rows_per_part))
        if index in todo
    )
    try:
        if ray is not None:
            # Of a GPU, Ray says which: a worker sees one alone.
            far = partial(PartMaker.load, tokenizer, base, where.type, variant, exact, limits)
            places = [Path(place) for place in (tokenizer, base) if not is_url(str(place))]
            gpu = where.type == "cuda"
            made = on_ray.run_jobs(far, jobs, workers, ray, places=places, gpu=gpu)
        elif workers > 1:
            made = run_jobs(there, jobs, workers)
        else:
            made = (progress for job in jobs for progress in here(job))
        sizes = {index: stretches[index][0] for index in mine}
        left = sum(sizes[index] for index in todo)
        seconds = _write(out, made, sum(sizes.values()), left, spent)
    finally:
        here.decoder.close()
        torch.set_num_threads(threads)
    whole = all((out / part_name(index)).exists() for index in range(len(stretches)))
    if whole and (todo or not (out / "manifest.json").exists()):
        settings = {key: getattr(note, key) for key in _SETTINGS}
        about = {"corpus": str(corpus), "tokenizer": here.tokenizer.name, **settings}
        if root is not None:
            about["root"] = str(root)
        write_manifest(out, vocab, about)
    wall = time.monotonic() - began
    return {
        **_count(out, mine),
        "with_text": sum(stretches[index][2] for index in mine),
        "finished": whole,
        "seconds": wall,
        "x_real_time": seconds / wall,
        "stages": spent,
        "slowest": max(spent, key=lambda stage: spent[stage]),
    }


def _write(
    out: Path,
    made: Generator[Progress, None, None],
    total: int,
    left: int,
    spent: dict[str, float],
) -> float:
    """Write parts as they come, under a progress bar; returns the seconds of audio in them, and
    adds the seconds of work by stage to `spent`."""
    seconds, rejected, began = 0.0, 0, time.monotonic()
    bar = tqdm(total=total, initial=total - left, unit=" utterances", smoothing=0)
    with closing(made), bar:
        for progress in made:
            if progress.content is not None:
                writing = time.perf_counter()
                with commit.file(out / part_name(progress.index)) as path:
                    path.write_bytes(progress.content)
                add_up(spent, {"write": time.perf_counter() - writing})
            add_up(spent, progress.spent)
            seconds += progress.seconds
            rejected += progress.rejected
            speed = seconds / (time.monotonic() - began)
            bar.set_postfix_str(f"{speed:.0f} h/h, {rejected} rejected", refresh=False)
            bar.update(progress.utterances)
    return seconds


def _take_stock(out: Path, mine: Mapping[int, Note], parts: int, *, alone: bool) -> set[int]:
    """Which of `mine` are to be made; what a kill has left behind is removed.

    Raises `ValueError` for a folder that holds something else.
    """
    for path in out.glob(".part-*.partial"):
        if any(path.name.startswith(f".{part_name(index)}.") for index in mine):
            path.unlink(missing_ok=True)
    if alone:
        for path in (*out.glob(".manifest.json.*.partial"), *out.glob(".rejected.jsonl.*.partial")):
            path.unlink(missing_ok=True)
    todo = set()
    for index, note in mine.items():
        path = out / part_name(index)
        if not path.exists():
            todo.add(index)
            continue
        wanted = asdict(note)
        # A note that does not know a setting is of the time before there was a choice; the windows
        # were part of the tokenizer before they were written down.
        found = read_note(path)
        found["windows"] = found.get("windows") or wanted["windows"]
        for key in _SAME:
            if found.setdefault(key, getattr(Note, key, None)) != wanted[key]:
                raise ValueError(
                    f"{path} was made from another corpus or in another way ({key} "
                    f"{found.get(key)}, now {wanted[key]}); give a new --out or delete {out}"
                )
    if any(path.name >= part_name(parts) for path in out.glob("part-*.parquet")):
        raise ValueError(f"{out} holds parts of a larger corpus; give a new --out or delete it")
    return todo


def _count(out: Path, mine: Mapping[int, Note]) -> dict[str, Any]:
    notes = [read_note(out / part_name(index)) for index in mine]
    rejected = [entry for note in notes for entry in note["rejected"]]
    utterances = sum(note["rows"] for note in notes)
    if rejected and not utterances:
        first = rejected[0]
        raise ValueError(
            f"all {len(rejected)} recordings were rejected, the first ({first['audio']}) because: "
            f"{first['reason']}"
        )
    hours = sum(note["seconds"] for note in notes) / 3600
    return {
        "utterances": utterances,
        "hours": hours,
        "rejected": len(rejected),
        "parts": len(notes),
    }


def _stretches(utterances: Iterator[Utterance], size: int) -> Iterator[tuple[Utterance, ...]]:
    while stretch := tuple(islice(utterances, size)):
        yield stretch


def _digest(utterances: Sequence[Utterance], root: Path | str) -> str:
    """A hash of everything that goes from the corpus into a part."""
    digest = hashlib.sha256()
    for u in utterances:
        words = [(word.text, word.start, word.stop, word.score) for word in u.words]
        sound = Sound.of(u.audio)
        line = [
            u.id,
            audio_name(sound, root),
            (sound.start, sound.stop, sound.row, sound.column),
            u.text,
            words,
            u.speaker,
            u.language,
            u.style,
            u.seconds,
            # A recording that was mended or replaced is another one; of a URL it is not asked.
            sound.size,
        ]
        digest.update(json.dumps(line).encode())
    return digest.hexdigest()
