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


def save_values(
    out: Path, suite: str, values: Values, judges: Mapping[str, str] | None = None
) -> None:
    """Write them into the folder of a suite, and who judged which figure."""
    commit.json_file(out / NAME, {"suite": suite, "values": values, "judges": dict(judges or {})})


@dataclass(frozen=True)
class _Kept:
    """What a folder of a suite holds."""

    values: dict[str, dict[str, Ratio]]
    judges: dict[str, str]


def compare(first: Path, second: Path) -> list[Difference]:
    """The differences between two reports: folders of a suite, or folders of such folders.

    A figure that one judged in the first and another in the second is left out: two opinions have
    no difference. Raises ValueError where a folder is no report, or nothing is left to compare.
    """
    one, other = _read(first), _read(second)
    found = []
    for suite, figure in _common(one, other):
        ours, theirs = one[suite].values[figure], other[suite].values[figure]
        both = [item for item in ours if item in theirs]
        if not both or _opinions(one, other, suite, figure):
            continue
        sides = [[side[item] for item in both] for side in (ours, theirs)]
        alone = len(ours) + len(theirs) - 2 * len(both)
        change = rate_difference(sides[1], sides[0])
        found.append(Difference(suite, figure, rate(sides[0]), rate(sides[1]), change, alone))
    if not found:
        named = [", ".join(report) for report in (one, other)]
        raise ValueError(
            f"{first} ({named[0]}) and {second} ({named[1]}) have no item of one suite in common "
            "that the same judge has judged"
        )
    return found


def unshared(first: Path, second: Path) -> list[str]:
    """A line for each report that holds suites or figures that the other has not, and for each
    figure of both that was left to different judges."""
    reports = one, other = _read(first), _read(second)
    ours, theirs = (
        {f"{suite}: {figure}" for suite, kept in report.items() for figure in kept.values}
        for report in reports
    )
    lines = [
        f"Only in {folder}, not compared: {', '.join(alone)}."
        for folder, alone in ((first, sorted(ours - theirs)), (second, sorted(theirs - ours)))
        if alone
    ]
    for suite, figure in _common(one, other):
        if judges := _opinions(one, other, suite, figure):
            lines.append(f"Judged by {' and by '.join(judges)}, not compared: {suite}: {figure}.")
    return lines


def _common(one: dict[str, _Kept], other: dict[str, _Kept]) -> list[tuple[str, str]]:
    """Suite and figure of what both reports hold."""
    return [
        (suite, figure)
        for suite, kept in one.items()
        if suite in other
        for figure in kept.values
        if figure in other[suite].values
    ]


def _opinions(
    one: dict[str, _Kept], other: dict[str, _Kept], suite: str, figure: str
) -> tuple[str, str] | None:
    """Who judged a figure, where they are known and not the same."""
    ours, theirs = (report[suite].judges.get(figure, "") for report in (one, other))
    return (ours, theirs) if ours and theirs and ours != theirs else None


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


def _read(folder: Path) -> dict[str, _Kept]:
    paths = [folder / NAME] if (folder / NAME).is_file() else sorted(folder.glob(f"*/{NAME}"))
    if not paths:
        raise ValueError(f"{folder} holds no {NAME}; make it with `spirit eval`")
    found: dict[str, _Kept] = {}
    for path in paths:
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["suite"] in found:
                raise ValueError(f"it holds {kept['suite']}, which another folder beside it holds")
            values = {
                figure: {item: (float(a), float(b)) for item, (a, b) in items.items()}
                for figure, items in kept["values"].items()
            }
            found[str(kept["suite"])] = _Kept(values, dict(kept.get("judges", {})))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} cannot be used ({error}); run the evaluation again") from None
    return found
