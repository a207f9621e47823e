"""Average the weights of a model before and after its last training.

    python recipes/tiny/average.py work/lm2/model work/lm/model work/average/model

A longer training hears ever better, and learns the recordings by heart that it is to speak like.
The mean hears as well, and held-out speech is likelier to it than to either (WiSE-FT: Wortsman et
al. 2022, "Robust fine-tuning of zero-shot models").
"""

import argparse
import shutil
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

from spirit import commit

WEIGHTS = "model.safetensors"
SHARE = 0.6
"""Of the later model in the mean."""


def average(before: Path, after: Path, out: Path, share: float = SHARE) -> None:
    """Write `after` with the weights `share * after + (1 - share) * before` into `out`.

    Raises ValueError where the two are not the same network.
    """
    first, second = (load_file(folder / WEIGHTS) for folder in (before, after))
    shapes = [{name: rows.shape for name, rows in some.items()} for some in (first, second)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"{before} and {after} are not the same network; train one from the other")
    mixed = {
        name: (share * rows.float() + (1 - share) * first[name].float()).to(rows.dtype).contiguous()
        for name, rows in second.items()
    }
    with commit.folder(out) as partial:
        shutil.copytree(after, partial, dirs_exist_ok=True)
        save_file(mixed, partial / WEIGHTS, metadata={"format": "pt"})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("before", "after", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--share", type=float, default=SHARE)
    args = parser.parse_args()
    try:
        average(args.before, args.after, args.out, args.share)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
