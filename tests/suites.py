"""Miniatures of the likelihood suites, in the layouts in which they are downloaded.

python -m tests.suites FOLDER
"""

import argparse
from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000


def _wave(path: Path, seed: int, seconds: float = 0.4) -> None:
    """A hum with a little noise, different for every seed."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    hum = np.sign(np.sin(2 * np.pi * rng.uniform(80, 300) * time)) * rng.uniform(0.1, 0.4)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, hum + rng.normal(0, 0.02, len(time)), RATE)


def _text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def swuggy(folder: Path) -> Path:
    """Two words in two voices, one of them out of vocabulary; the test split without answers."""
    lines = ["id, filename, voice, frequency, word, phones, length, correct"]
    for item, (word, frequency) in enumerate((("abductor", "0"), ("brick", "12"))):
        for voice in ("aud1", "aud2"):
            for correct in (1, 0):
                name = f"{'aAbBcCdD'[4 * item : 4 * item + 4]}{voice}{correct}"
                _wave(folder / f"lexical/dev/{name}.wav", hash_of(name))
                said = f"{word}, AH B, {len(word)}"
                lines.append(f"{item + 1}, {name}, {voice}, {frequency}, {said}, {correct}")
    _text(folder / "lexical/dev/gold.csv", "\n".join(lines) + "\n")
    for name in ("xYzA", "xYzB"):
        _wave(folder / f"lexical/test/{name}.wav", hash_of(name))
    return folder


def sblimp(folder: Path) -> Path:
    """Two types with one sentence each, two voices."""
    lines = ["id,filename,voice,type,subtype,transcription,correct"]
    for kind, subtype in (("agreement", "number"), ("island_effects", "adjunct")):
        for voice in ("A", "B"):
            for correct in (1, 0):
                name = f"{kind[:3]}{voice}{correct}"
                _wave(folder / f"syntactic/dev/{name}.wav", hash_of(name))
                lines.append(f"1,{name},{voice},{kind},{subtype},some words,{correct}")
    _text(folder / "syntactic/dev/gold.csv", "\n".join(lines) + "\n")
    return folder


def prosaudit(folder: Path) -> Path:
    """One item of each type; the ids of the types overlap."""
    lines = ["id,filename,type,correct"]
    for kind in ("protosyntax", "lexical"):
        for correct in (1, 0):
            name = f"{kind}_{correct}"
            _wave(folder / f"english/dev/{name}.wav", hash_of(name))
            lines.append(f"0,{name},{kind},{correct}")
    _text(folder / "english/dev/gold.csv", "\n".join(lines) + "\n")
    return folder


def stories(folder: Path) -> Path:
    """Two numbered pairs of whole stories."""
    for number in range(4):
        _wave(folder / f"{number}_{'wrong' if number % 2 else 'right'}.wav", number, 0.8)
    return folder


def stories_in_parts(folder: Path) -> Path:
    """One story as sound and as text, with two endings."""
    for part, text in (
        ("mutual", "the rain began at noon"),
        ("correct", "we took an umbrella"),
        ("incorrect", "the soup was too hot"),
    ):
        _wave(folder / f"7_{part}.wav", hash_of(part), 0.6)
        _text(folder / f"7_{part}.txt", text + "\n")
    return folder


def salmon(folder: Path) -> Path:
    """Two samples in each of the eight parts."""
    from spirit.eval.suites.salmon import PARTS

    for part in PARTS:
        for sample in range(2):
            for side in range(2):
                name = f"{part}/sample_{sample}_{side}.wav"
                _wave(folder / name, hash_of(name))
    return folder


def mmlu(folder: Path) -> Path:
    """One subject: five examples and two questions."""
    shown = "".join(f"is {n} even?,yes,no,maybe,never,{'AB'[n % 2]}\n" for n in range(5))
    _text(folder / "dev/numbers_dev.csv", shown)
    asked = 'is 8 even?,yes,no,maybe,never,A\n"is 9, or 11, even?",yes,no,maybe,never,B\n'
    _text(folder / "test/numbers_test.csv", asked)
    return folder


def hash_of(name: str) -> int:
    """A seed that does not change from run to run."""
    return int.from_bytes(name.encode(), "big") % 2**32


MINIATURES = {
    "swuggy": swuggy,
    "sblimp": sblimp,
    "prosaudit": prosaudit,
    "storycloze": stories,
    "stories_in_parts": stories_in_parts,
    "salmon": salmon,
    "mmlu": mmlu,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where they go, each into a folder of its name")
    asked = parser.parse_args()
    for title, build in MINIATURES.items():
        build(asked.folder / title)
