"""What came of a suite that judges speech or texts one by one: figures, a table of items, and all
that is needed to judge again."""

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spirit import commit
from spirit.eval.compare import Values, save_values
from spirit.eval.figures import Figure, rate
from spirit.eval.ledger import Result
from spirit.eval.report import shown


@dataclass(frozen=True)
class Verdict:
    """What a suite says about a model."""

    suite: str
    model: str
    data: str
    settings: dict[str, Any]
    """How it was asked, and by whom it was judged."""
    versions: dict[str, str]
    figures: dict[str, Figure]
    skipped: dict[str, int]
    """Why what is not in the figures was left out: reason to how many."""
    lacking: dict[str, str]
    """Figures that were not taken: name to why."""

    def save(
        self,
        out: Path,
        values: Values,
        items: Mapping[str, Result],
        columns: Sequence[str],
        judges: Mapping[str, Iterable[str]],
    ) -> None:
        """Write `figures.json`, `values.json` for comparisons and `items.csv` into `out`; `judges`
        are those in the settings, with the figures that they judge; a figure may have several."""
        commit.json_file(out / "figures.json", asdict(self))
        named: dict[str, list[str]] = {}
        for judge, some in judges.items():
            for figure in some if self.settings[judge] else ():
                named.setdefault(figure, []).append(str(self.settings[judge]))
        known = {figure: ", ".join(named[figure]) for figure in values if figure in named}
        save_values(out, self.suite, values, known)
        stream = io.StringIO()
        table = csv.DictWriter(
            stream, ["item", *columns], restval="", extrasaction="ignore", lineterminator="\n"
        )
        table.writeheader()
        table.writerows({"item": name, **result} for name, result in items.items())
        commit.text(out / "items.csv", stream.getvalue())

    def markdown(self) -> str:
        """A table, and what is not in it."""
        lines = [f"| {self.suite} | value (95 % interval) | items |", "|---|---|---|"]
        for name, figure in self.figures.items():
            lines.append(f"| {name} | {shown(name, figure)} | {figure.count} |")
        left = ", ".join(f"{count} x {reason}" for reason, count in self.skipped.items())
        lines += ["", f"Left out: {left or 'nothing'}. Model: {self.model}, data: {self.data}."]
        lines += [f"Without {name}: {why}." for name, why in self.lacking.items()]
        return "\n".join(lines)


CURVES: dict[str, tuple[str, Callable[[float], float]]] = {
    "log_perplexity": ("perplexity", math.exp),
    "f0_squared_error": ("f0_rmse", math.sqrt),
}
"""Figures that are told by another number than the one that is averaged."""


def figures_of(values: Values) -> dict[str, Figure]:
    """A rate over the items of each figure that has any."""
    found: dict[str, Figure] = {}
    for name, items in values.items():
        if not sum(below for _, below in items.values()):
            continue
        figure = rate(list(items.values()))
        told, curve = CURVES.get(name, (name, float))
        found[told] = Figure(
            curve(figure.value), curve(figure.low), curve(figure.high), figure.count
        )
    return found


def of(found: Mapping[str, Result], above: str, below: str = "") -> dict[str, tuple[float, float]]:
    """What each item that knows it adds: `above` over `below`, or over 1."""
    return {
        name: (float(entry[above]), float(entry[below]) if below else 1.0)
        for name, entry in found.items()
        if entry.get(above) is not None and (not below or entry.get(below))
    }
