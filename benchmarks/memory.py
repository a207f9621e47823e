"""Whether memory stays flat while much is tokenized: many short clips, and one very long file.

    python benchmarks/memory.py                     (--clips 5000 --hours 1 for a first impression)

Two runs of `spirit.prepare.tokenize` in a process of its own. The first has stretches of one second
of a FLAC file of ten minutes, each opened, decoded, encoded and packed by itself; what it takes
when the first part is finished is where it starts from. The second has one minute and then one file
of six hours; it starts from what it takes after the minute. The resident memory of the process and
its children is read five times a second. Prints JSON, in MB: at the start, the most after it, and
the growth from the one to the other.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from spirit.audio import read_audio
from spirit.units import SAMPLE_RATE

ROOT = Path(__file__).parents[1]
EVERY = 0.2
"""Seconds between two looks at the memory."""
PROGRAM = """
import sys
from pathlib import Path
from spirit.prepare import tokenize
corpus, tokenizer, out, dtype, rows = sys.argv[1:]
tokenize(
    Path(corpus), Path(tokenizer), Path(out), dtype=dtype, rows_per_part=int(rows), device="cpu"
)
"""


def write_tape(path: Path, seconds: float) -> None:
    """Speech over and over, a minute at a time and every minute a little louder or softer."""
    speech = read_audio(ROOT / "tests" / "data" / "jfk.flac")
    minute = np.resize(speech, 60 * SAMPLE_RATE)
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1) as file:
        for number in range(round(seconds / 60)):
            file.write(minute * np.float32(0.6 + 0.4 * np.sin(number)))


def resident(process: int) -> float:
    """MB of a process and of all that it has started."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
        tasks = Path(f"/proc/{process}/task").iterdir()
        children = [
            int(child) for task in tasks for child in (task / "children").read_text().split()
        ]
    except OSError:  # it has just ended
        return 0.0
    return pages * 4096 / 1e6 + sum(map(resident, children))


def watch(folder: Path, lines: list[dict[str, Any]], rows: int, asked: Any) -> dict[str, float]:
    """Tokenize a corpus and look at the memory from the first finished part on."""
    corpus, out = folder / "corpus.jsonl", folder / "units"
    corpus.write_text("".join(json.dumps(line) + "\n" for line in lines))
    told = [str(corpus), str(asked.tokenizer), str(out), asked.dtype, str(rows)]
    began = time.monotonic()
    running = subprocess.Popen([sys.executable, "-c", PROGRAM, *told])
    seen: list[float] = []
    while running.poll() is None:
        if (out / "part-00000.parquet").exists():
            seen.append(resident(running.pid))
        time.sleep(EVERY)
    if running.returncode:
        sys.exit(f"benchmarks/memory.py: tokenizing ended with {running.returncode}")
    manifest = json.loads((out / "manifest.json").read_text())
    return {
        "rows": manifest["rows"],
        "hours": manifest["hours"],
        "start": seen[0],
        "most": max(seen),
        "growth": max(seen) - seen[0],
        "looks": len(seen),
        "took_seconds": time.monotonic() - began,
    }


def many(folder: Path, asked: Any) -> dict[str, float]:
    write_tape(folder / "tape.flac", 600)
    starts = np.random.default_rng(0).integers(0, 599, asked.clips).tolist()
    lines = [
        {"id": f"{number:06d}", "audio": "tape.flac", "start": start, "duration": 1.0}
        for number, start in enumerate(starts)
    ]
    return watch(folder, lines, 512, asked)


def long(folder: Path, asked: Any) -> dict[str, float]:
    write_tape(folder / "tape.flac", asked.hours * 3600)
    minute = {"id": "minute", "audio": "tape.flac", "start": 0.0, "duration": 60.0}
    return watch(folder, [minute, {"id": "hours", "audio": "tape.flac"}], 1, asked)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tokenizer", type=Path, default=Path("tokenizers/tiny"))
    parser.add_argument("--clips", type=int, default=100_000, help="of one second; 0: none")
    parser.add_argument("--hours", type=float, default=6.0, help="of the long file; 0: none")
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
    asked = parser.parse_args()
    table: dict[str, Any] = {"torch": torch.__version__, "python": platform.python_version()}
    table |= {"tokenizer": str(asked.tokenizer), "dtype": asked.dtype}
    for name, run, wanted in (("short_clips", many, asked.clips), ("long_file", long, asked.hours)):
        if wanted:
            with tempfile.TemporaryDirectory() as folder:
                table[name] = run(Path(folder), asked)
            print(name, "done", file=sys.stderr)
    print(
        json.dumps(
            json.loads(json.dumps(table), parse_float=lambda x: round(float(x), 1)), indent=1
        )
    )


if __name__ == "__main__":
    main()
