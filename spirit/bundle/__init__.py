"""Where the bundled model is: beside the package in a checkout, inside it in a wheel."""

from pathlib import Path


def locate(name: str) -> Path | None:
    """The folder of `checkpoints/tiny` or `tokenizers/tiny`, or None where it was not built."""
    here = Path(__file__).resolve().parent
    for root in (here, here.parents[1]):
        if (root / name).is_dir():
            return root / name
    return None
