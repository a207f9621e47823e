"""Average the weights of one network at several points of its training.

    python recipes/tiny/average.py work/mean/model 0.4=work/lm2/model 0.6=work/lm3/model

A longer training hears ever better, and learns the recordings by heart that it is to speak like; a
last one for one purpose forgets others. The mean hears as well, and held-out speech is likelier to
it than to any of them (WiSE-FT and model soups: Wortsman et al. 2022, "Robust fine-tuning of
zero-shot models" and "Model soups").
"""

import argparse
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file, save_file

from spirit import commit

WEIGHTS = "model.safetensors"
RECIPE = "recipe.toml"


def average(shares: Mapping[Path, float], out: Path) -> None:
    """Write the last model into `out`, with the mean of the weights of all, each with its share.

    Raises ValueError where the shares are not those of one whole or the networks differ.
    """
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise ValueError(f"the shares add up to {sum(shares.values()):g}, not to 1")
    models = {folder: load_file(folder / WEIGHTS) for folder in shares}
    *_, last = models
    shapes = {name: rows.shape for name, rows in models[last].items()}
    for folder, some in models.items():
        if {name: rows.shape for name, rows in some.items()} != shapes:
            raise ValueError(f"{folder} and {last} are not the same network")
    mixed = {
        name: sum(shares[folder] * some[name].float() for folder, some in models.items())
        .to(rows.dtype)
        .contiguous()
        for name, rows in models[last].items()
    }
    with commit.folder(out) as partial:
        shutil.copytree(last, partial, dirs_exist_ok=True)
        save_file(mixed, partial / WEIGHTS, metadata={"format": "pt"})
        if (last / RECIPE).exists():
            told = " + ".join(f"{share:g} {folder.parent.name}" for folder, share in shares.items())
            head = f"# The weights are the mean {told}; what follows made the last.\n"
            commit.text(partial / RECIPE, head + (last / RECIPE).read_text(encoding="utf-8"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("parts", nargs="+", metavar="SHARE=FOLDER")
    args = parser.parse_args()
    try:
        parts = [part.partition("=") for part in args.parts]
        average({Path(folder): float(share) for share, _, folder in parts}, args.out)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
