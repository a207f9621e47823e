"""sWUGGY and sBLIMP (ZeroSpeech 2021, Nguyen et al. 2020, arXiv 2011.11588) and ProsAudit (de
Seyssel et al. 2023, arXiv 2302.12057): a folder of wav files with a `gold.csv`."""

import csv
from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path

from spirit.eval.suites.items import Choice, Reading, Suite, listed

Row = dict[str, str]
BANDS = ((1, 5), (6, 20), (21, 100))


def swuggy(folder: Path, split: str = "dev") -> Suite:
    """Words against what might be words: `lexical/{dev,test}`."""

    def groups(row: Row) -> dict[str, str]:
        frequency = row["frequency"].strip()
        band = _band(frequency)
        return {
            "vocabulary": "out of vocabulary" if band == "oov" else "in vocabulary",
            "frequency": band,
            "length": row.get("length", "").strip(),
        }

    columns = ("id", "filename", "voice", "frequency", "correct")
    return _suite("swuggy", folder, "lexical", split, columns, groups, lambda row: row["id"])


def sblimp(folder: Path, split: str = "dev") -> Suite:
    """Grammatical against ungrammatical sentences: `syntactic/{dev,test}`."""
    return _suite(
        "sblimp",
        folder,
        "syntactic",
        split,
        ("id", "filename", "voice", "type", "subtype", "correct"),
        lambda row: {"type": row["type"], "subtype": row["subtype"]},
        lambda row: f"{row['type']}/{row['subtype']}/{row['id']}",
    )


def prosaudit(folder: Path, split: str = "dev") -> Suite:
    """Pauses in the right and in the wrong places: `english/{dev,test}`."""
    return _suite(
        "prosaudit",
        folder,
        "english",
        split,
        ("id", "filename", "type", "correct"),
        lambda row: {"type": row["type"]},
        lambda row: f"{row['type']}/{row['id']}",
    )


def _suite(
    name: str,
    folder: Path,
    part: str,
    split: str,
    columns: tuple[str, ...],
    groups: Callable[[Row], dict[str, str]],
    item: Callable[[Row], str],
) -> Suite:
    where = next(
        (
            place
            for place in (folder / part / split, folder / split, folder)
            if (place / "gold.csv").is_file() or any(place.glob("*.wav"))
        ),
        None,
    )
    if where is None:
        raise ValueError(
            f"{folder}: expected {part}/{split} with wav files and gold.csv, as downloaded; found "
            f"{listed(folder)}"
        )
    waves = {path.stem: path for path in sorted(where.glob("*.wav"))}
    skipped: list[tuple[str, str]] = []
    choices: list[Choice] = []
    if (where / "gold.csv").is_file():
        rows = _read(where / "gold.csv", columns)
        choices = _pair(rows, waves, groups, item, skipped)
        known = {_stem(row) for row in rows}
        skipped += [(stem, "not in gold.csv") for stem in waves if stem not in known]
        waves = {stem: path for stem, path in waves.items() if stem in known}
    elif split == "dev":  # that of test is not given away: it is scored for a submission alone
        raise ValueError(
            f"{where}: expected gold.csv beside the wav files, as downloaded; found {listed(where)}"
        )
    readings = {stem: Reading((path,)) for stem, path in waves.items()}
    # As their scorer reads it: lexical/dev.txt of sLM21, but english_dev.txt of ProsAudit.
    between = "_" if name == "prosaudit" else "/"
    return Suite(name, where, choices, skipped, readings, f"{part}{between}{split}.txt", split)


def _pair(
    rows: Iterable[Row],
    waves: dict[str, Path],
    groups: Callable[[Row], dict[str, str]],
    item: Callable[[Row], str],
    skipped: list[tuple[str, str]],
) -> list[Choice]:
    """Every right recording of an item with every wrong one in the same voice."""
    found: dict[tuple[str, str], tuple[list[Row], list[Row]]] = defaultdict(lambda: ([], []))
    for row in rows:
        if _stem(row) not in waves:
            skipped.append((_stem(row), "no such wav file"))
        else:
            found[item(row), row.get("voice", "")][row["correct"].strip() != "1"].append(row)
    choices = []
    for (name, voice), (right, wrong) in found.items():
        if not right or not wrong:
            skipped += [(_stem(row), "no partner") for row in right or wrong]
        choices += [
            Choice(
                name,
                (Reading((waves[_stem(good)],)), Reading((waves[_stem(bad)],))),
                voice,
                groups(good),
            )
            for good, bad in product(right, wrong)
        ]
    return choices


def _read(path: Path, columns: tuple[str, ...]) -> list[Row]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            table = csv.DictReader(stream, skipinitialspace=True)
            names = [name.strip() for name in table.fieldnames or ()]
            table.fieldnames = names
            if missing := [name for name in columns if name not in names]:
                raise ValueError(
                    f"{path}: expected the columns {', '.join(columns)}, found "
                    f"{', '.join(names) or 'none'}; {missing[0]} is missing"
                )
            rows = list(table)
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a CSV file ({error}); download it again") from None
    for number, row in enumerate(rows, start=2):
        if any(row[name] is None for name in columns):
            raise ValueError(f"{path} line {number}: fewer values than columns; download it again")
        if row["correct"].strip() not in ("0", "1"):
            raise ValueError(
                f"{path} line {number}: correct is {row['correct']!r}, expected 0 or 1"
            )
    return rows


def _stem(row: Row) -> str:
    return row["filename"].strip().removesuffix(".wav")


def _band(frequency: str) -> str:
    """The bands of frequency that are reported: 0 is out of vocabulary, "12.0" is 12.

    The scorer's code counts 5, 20 and 100 to the band above, unlike its own names say.
    """
    try:
        count = float(frequency)
    except ValueError:
        return "oov"
    for low, high in BANDS:
        if low <= count <= high:
            return f"{low}-{high}"
    return ">100" if count > BANDS[-1][1] else "oov"
