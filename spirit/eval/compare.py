"""What every item adds to a figure, kept beside it; two models compared on the items of both."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from spirit import commit
from spirit.eval.figures import Figure, Ratio, rate, rate_difference
from spirit.eval.report import change, shown

Values = Mapping[str, Mapping[str, Ratio]]
"""Figure to item to what it adds above and below the line."""
NAME = "values.json"


@dataclass(frozen=True)
class Difference:
    """A figure of two models, on the items that both were asked."""

    suite: str
    figure: str
    first: Figure
    second: Figure
    difference: Figure
    """The second minus the first, paired."""
    alone: int
    """Items that only one of them was asked; they are left out."""


def save_values(out: Path, suite: str, values: Values) -> None:
    """Write them into the folder of a suite."""
    commit.json_file(out / NAME, {"suite": suite, "values": values})


def compare(first: Path, second: Path) -> list[Difference]:
    """The differences between two reports: folders of a suite, or folders of such folders.

    Raises ValueError where a folder is no report, or the two have nothing in common.
    """
    reports = [_read(folder) for folder in (first, second)]
    found = []
    for suite in (name for name in reports[0] if name in reports[1]):
        ours, theirs = reports[0][suite], reports[1][suite]
        for figure in (name for name in ours if name in theirs):
            both = [item for item in ours[figure] if item in theirs[figure]]
            if not both:
                continue
            sides = [[side[figure][item] for item in both] for side in (ours, theirs)]
            alone = len(ours[figure]) + len(theirs[figure]) - 2 * len(both)
            change = rate_difference(sides[1], sides[0])
            found.append(Difference(suite, figure, rate(sides[0]), rate(sides[1]), change, alone))
    if not found:
        named = [", ".join(report) for report in reports]
        raise ValueError(
            f"{first} ({named[0]}) and {second} ({named[1]}) have no item of one suite in common"
        )
    return found


def unshared(first: Path, second: Path) -> list[str]:
    """A line for each report that holds suites or figures that the other has not."""
    one, other = (
        {f"{suite}: {figure}" for suite, figures in _read(folder).items() for figure in figures}
        for folder in (first, second)
    )
    lines = []
    for folder, ours, theirs in ((first, one, other), (second, other, one)):
        if alone := sorted(ours - theirs):
            lines.append(f"Only in {folder}, not compared: {', '.join(alone)}.")
    return lines


def markdown(found: list[Difference], first: str, second: str) -> str:
    """A table; differences whose interval leaves 0 out are in bold."""
    lines = [
        f"| suite | figure | {first} | {second} | difference | items | left out |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in found:
        told = change(one.figure, one.difference)
        sure = one.difference.low > 0 or one.difference.high < 0
        lines.append(
            f"| {one.suite} | {one.figure} | {shown(one.figure, one.first)} | "
            f"{shown(one.figure, one.second)} | "
            f"{f'**{told}**' if sure else told} | {one.difference.count} | {one.alone} |"
        )
    return "\n".join(lines)


def _read(folder: Path) -> dict[str, dict[str, dict[str, Ratio]]]:
    paths = [folder / NAME] if (folder / NAME).is_file() else sorted(folder.glob(f"*/{NAME}"))
    if not paths:
        raise ValueError(f"{folder} holds no {NAME}; make it with `spirit eval`")
    found = {}
    for path in paths:
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["suite"] in found:
                raise ValueError(f"it holds {kept['suite']}, which another folder beside it holds")
            found[str(kept["suite"])] = {
                figure: {item: (float(a), float(b)) for item, (a, b) in items.items()}
                for figure, items in kept["values"].items()
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} cannot be used ({error}); run the evaluation again") from None
    return found
