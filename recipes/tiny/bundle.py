"""Put what the stages made together: the model folder, its card, and the delivery.

    python recipes/tiny/bundle.py model|card|deliver --work recipes/tiny/work

Every folder appears whole or not at all, and is loaded before it counts as made.
"""

import argparse
import datetime
import os
import shutil
import subprocess
import sys
from pathlib import Path

from spirit import commit

NAME = "tiny"
LICENSE = "Apache-2.0"
LIMIT = 40_000_000
"""Bytes of the whole bundle."""
RESULTS, RESULTS_END = "<!-- results: written by recipes/tiny -->", "<!-- /results -->"
"""Between these lines of the README stand the figures and answers."""


def model(work: Path) -> None:
    """`work/bundle`, with the folders as they lie in the repository."""
    from spirit.pipeline import Spirit
    from spirit.tokenizer import Tokenizer

    with commit.folder(work / "bundle") as partial:
        home, target = partial / "tokenizers" / NAME, partial / "checkpoints" / NAME
        shutil.copytree(work / "tokenizer", home)
        shutil.copytree(work / "average/model", target)
        shutil.copytree(work / "vocoder/vocoder", target / "vocoder")
        made = Tokenizer.load(home)
        commit.text(
            target / "spirit.toml",
            f"# {NAME}: the bundled model; README.md says what it can do\n"
            f'tokenizer = "{os.path.relpath(home, target)}"\n'
            f'fingerprint = "{made.fingerprint}"\n'
            f'vocabulary = "{made.vocab.fingerprint}"\n'
            f'license = "{LICENSE}"\n',
        )
        size = sum(path.stat().st_size for path in partial.rglob("*") if path.is_file())
        if size > LIMIT:
            raise ValueError(f"the bundle has {size:,} bytes, the limit is {LIMIT:,}")
        Spirit.load(target, device="cpu")
    print(f"bundle: {size / 1e6:.1f} MB")


def card(work: Path, preset: str, device: str, asked: str) -> None:
    """The model card, from the figures and from the files."""
    from spirit.eval.card import write_card

    spans = {path.stem: _spans(path) for path in (work / "stages").glob("*.times")}
    order = sorted(spans, key=lambda name: spans[name][0])
    build = {
        "preset": preset,
        "device": _in_words(device),
        "command": asked,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "code": _code(),
        "seconds": {name: sum(stop - start for start, stop in spans[name]) for name in order},
        "total": _covered([span for found in spans.values() for span in found]),
    }
    commit.json_file(work / "build.json", build)
    made = work / "bundle"
    write_card(
        made / "checkpoints" / NAME,
        made / "tokenizers" / NAME,
        work / "corpus",
        work / "eval/figures.json",
        work / "build.json",
    )


def _spans(path: Path) -> list[tuple[int, int]]:
    """When a stage ran: start and stop, in seconds since 1970, of each of its runs."""
    rows = (line.split() for line in path.read_text().splitlines())
    return [(int(start), int(stop)) for start, stop in rows]


def _covered(spans: list[tuple[int, int]]) -> int:
    """Seconds in which at least one stage ran."""
    total, end = 0, 0
    for start, stop in sorted(spans):
        total += max(0, stop - max(start, end))
        end = max(end, stop)
    return total


def _code() -> str:
    """Which code made it, as git knows it: a checkout may have moved on between two stages."""
    said = []
    for command in (
        ["rev-parse", "--short", "HEAD"],
        ["status", "--porcelain", "spirit", "recipes"],
    ):
        git = subprocess.run(["git", *command], capture_output=True, text=True, check=False)
        if git.returncode:
            return "unknown"
        said.append(git.stdout.strip())
    commit_, changed = said
    return f"{commit_} with changes" if changed else commit_


def _in_words(device: str) -> str:
    if device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    return f"{os.cpu_count()} CPU cores"


def deliver(work: Path, out: Path) -> None:
    """Copy the bundle to where it is used, and its figures into the README there."""
    for kind in ("tokenizers", "checkpoints"):
        with commit.folder(out / kind / NAME) as partial:
            shutil.copytree(work / "bundle" / kind / NAME, partial, dirs_exist_ok=True)
        print(out / kind / NAME)
    readme = out / "README.md"
    before, found, after = (readme.read_text() if readme.is_file() else "").partition(RESULTS)
    if found:
        from spirit.eval.report import Report, markdown

        _, end, rest = after.partition(RESULTS_END)
        measured = markdown(Report.load(work / "eval/figures.json"))
        commit.text(readme, f"{before}{RESULTS}\n{measured}\n{end}{rest}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["model", "card", "deliver"])
    parser.add_argument("--work", type=Path, default=Path("recipes/tiny/work"))
    parser.add_argument("--out", type=Path, default=Path(), help="only for deliver")
    for name in ("preset", "device", "asked"):
        parser.add_argument(f"--{name}", default="", help="only for card")
    args = parser.parse_args()
    try:
        match args.what:
            case "model":
                model(args.work)
            case "card":
                card(args.work, args.preset, args.device, args.asked)
            case _:
                deliver(args.work, args.out)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
