"""The tables of the ablations: two models beside each other, item by item.

    python recipes/ablations/table.py work/ablations/report

prints Markdown and writes it into the folder as `README.md`.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from spirit import commit
from spirit.eval.figures import Figure, Ratio, rate, rate_difference

Group = Callable[[str], str]
SUITES: dict[str, tuple[str, Group]] = {
    "storycloze": ("mean", lambda item: item.rsplit(" ", 1)[-1]),
    "salmon": ("mean", lambda item: item.split("/")[0].replace("_", " ")),
    "stsp": ("accuracy", lambda item: "mood kept, speech to speech"),
}
"""Suite to the figure that is told, and which row of the table an item belongs to."""
PAIRS = (("separate", "base"), ("base", "expressive"))
NAMES = {
    "base": "interleaved, Base",
    "separate": "no interleaving, Base",
    "expressive": "interleaved, Expressive",
}
Rows = dict[str, dict[str, Ratio]]


def read(folder: Path) -> Rows:
    """What every item of a model's suites counts, by row of the table."""
    found: Rows = {}
    for suite, (figure, group) in SUITES.items():
        path = folder / suite / "values.json"
        if not path.is_file():
            continue
        told = json.loads(path.read_text(encoding="utf-8"))["values"][figure]
        for item, (above, below) in told.items():
            found.setdefault(group(item), {})[item] = (above, below)
    if not found:
        raise ValueError(f"{folder} holds no figures; run recipes/ablations/run.sh first")
    return found


def table(report: Path, first: str, second: str) -> str:
    """Both models and the second minus the first, on the items that both were asked."""
    ours, theirs = read(report / first), read(report / second)
    lines = [
        f"| right | {NAMES[first]} | {NAMES[second]} | difference | items |",
        "|---|---|---|---|---|",
    ]
    for row in [name for name in theirs if name in ours]:
        both = [item for item in theirs[row] if item in ours[row]]
        sides = [[side[row][item] for item in both] for side in (ours, theirs)]
        change = rate_difference(sides[1], sides[0])
        told = [rate(side).percent() for side in sides]
        sure = change.low > 0 or change.high < 0
        points = f"**{change.points()}**" if sure else change.points()
        lines.append(f"| {row} | {told[0]} | {told[1]} | {points} | {len(both)} |")
    return "\n".join(lines)


def judged(report: Path) -> str:
    """How often the judge of moods is right about recordings; "" where none was fitted."""
    path = report.parent / "judge.json"
    if not path.is_file():
        return ""
    figure = Figure(**json.loads(path.read_text(encoding="utf-8"))["on_recordings"])
    return f"The judge of moods is right about {figure.percent()} of {figure.count} recordings.\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="The tables of the ablations.")
    parser.add_argument("report", type=Path)
    report = parser.parse_args().report
    try:
        told = "\n\n".join(table(report, *pair) for pair in PAIRS)
    except (ValueError, OSError) as error:
        print(f"table.py: {error}", file=sys.stderr)
        return 1
    text = f"{told}\n\n{judged(report)}".strip() + "\n"
    commit.text(report / "README.md", text)
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
