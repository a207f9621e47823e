"""What a Base model needs, from what an Expressive one has: units without pitch and style.

    python recipes/ablations/base.py tokenizer TOKENIZER OUT
    python recipes/ablations/base.py shards SHARDS OUT --tokenizer OUT_OF_THE_FIRST
    python recipes/ablations/base.py vocoder VOCODER OUT

HuBERT, its units and the text tokenizer stay as they are, so that nothing else differs. What is
there already is left alone, where it was made from the same; `OUT.from` says from what.
"""

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from spirit import commit
from spirit.data.shards import read_shards, write_shards
from spirit.eval.tiny import digest
from spirit.tokenizer import Tokenizer, assemble
from spirit.units import Kind, Tracks
from spirit.vocoder import Vocoder


def tokenizer(source: Path, out: Path) -> None:
    """The tokenizer without pitch and style."""
    whole = Tokenizer.load(source)
    assemble(
        hubert=source,
        units=source / "units.safetensors",
        pitch=None,
        style=None,
        out=out,
        name=f"{whole.name}-base",
        text=lambda path: shutil.copyfile(source / "text.json", path),
        license=whole.license,
    )


def shards(source: Path, out: Path, home: Path) -> None:
    """The shards without pitch and style, for the tokenizer in `home`."""
    base = Tokenizer.load(home)
    rows = [replace(row, tracks=units_alone(row.tracks)) for row in read_shards(source)]
    write_shards(out, rows, base.vocab, tokenizer=base.fingerprint)


def units_alone(tracks: Tracks) -> Tracks:
    """The track of HuBERT's units."""
    return Tracks({Kind.HUBERT: tracks.by_kind[Kind.HUBERT]})


def vocoder(source: Path, out: Path) -> None:
    """The same vocoder, for streams that never have a pitch or a style: it has learnt to do without
    either, and draws its melody from the units."""
    voice = Vocoder.load(source)
    voice.alphabet = {"unit": voice.alphabet["unit"]}
    voice.save(out)


def once(make: Callable[[], None], out: Path, sources: Sequence[Path]) -> None:
    """Make `out`, where it is not there already. Raises ValueError where it was made from something
    else than `sources`."""
    note, now = out.with_name(f"{out.name}.from"), "".join(f"{digest(x)}\n" for x in sources)
    if not out.exists():
        commit.text(note, now)
        make()
    elif not note.exists() or note.read_text() != now:
        told = (
            "was made from another" if note.exists() else "does not say that it was made from the"
        )
        raise ValueError(
            f"{out} {told} {sources[0]} that is there now; remove {out}, and what was learnt from "
            f"it, to have it made afresh"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description="Units without pitch and style.")
    parser.add_argument("what", choices=("tokenizer", "shards", "vocoder"))
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tokenizer", type=Path, help="the Base tokenizer that shards are for")
    args = parser.parse_args()
    makers: dict[str, Callable[[], None]] = {
        "tokenizer": lambda: tokenizer(args.source, args.out),
        "shards": lambda: shards(args.source, args.out, args.tokenizer),
        "vocoder": lambda: vocoder(args.source, args.out),
    }
    try:
        if args.what == "shards" and args.tokenizer is None:
            raise ValueError("--tokenizer says which Base tokenizer the shards are for")
        sources = [args.source, *([args.tokenizer] if args.what == "shards" else [])]
        once(makers[args.what], args.out, sources)
    except (ValueError, OSError) as error:
        print(f"base.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
