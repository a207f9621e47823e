"""What the commands of `spirit eval` share."""

from collections.abc import Callable
from pathlib import Path

import click

from spirit.cli.options import PATH

Command = Callable[..., None]


def data_option(default: str | None, what: str) -> Callable[[Command], Command]:
    """Where the data are: required where there is no default."""
    return click.option(
        "--data",
        type=PATH,
        metavar="PATH",
        default=default,
        show_default=default is not None,
        required=default is None,
        help=what,
    )


def out_option(default: str) -> Callable[[Command], Command]:
    """Where everything goes."""
    return click.option(
        "--out",
        type=PATH,
        metavar="FOLDER",
        default=Path(default),
        show_default=True,
        help="Where figures, answers and recordings go.",
    )


jobs_option = click.option(
    "--jobs", type=click.IntRange(1), default=2, show_default=True, help="Processes."
)


def left_out(skipped: dict[str, int]) -> str:
    """What is not in the figures, in a line."""
    told = ", ".join(f"{count} x {reason}" for reason, count in skipped.items())
    return f"Left out: {told or 'nothing'}."


def tell(out: Path, table: str, as_json: bool) -> None:
    click.echo((out / "figures.json").read_text(encoding="utf-8") if as_json else table)
