"""Tokenize a folder of hostile files; nothing may crash, hang or be lost.

    python tests/drills/hostile_files.py --count 2000 --seed 0

Makes the files of `tests/hostile.py`, a bomb of six hours among them, and a tokenizer with random
weights; runs `spirit tokenize` in one process and again in two, within a time that a hang would
exceed. Takes minutes, so it is no part of the test suite. The last line of its output is the
verdict.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from spirit.data.corpus import read_corpus
from spirit.data.faults import find_faults
from tests.bundle import JFK, build_tokenizer
from tests.hostile import LIST, write

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def tokenize(folder: Path, out: Path, tokenizer: Path, workers: int, seconds: float) -> str:
    """What is wrong with a run, in words; nothing if all is well."""
    command = ["-m", "spirit", "tokenize", folder, "--tokenizer", tokenizer, "--out", out]
    began = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, *map(str, command), "--workers", str(workers)],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return f"not done after {seconds:g} seconds"
    print(f"{done.stdout.strip()} ({time.monotonic() - began:.0f} s)", flush=True)
    if done.returncode or "Traceback" in done.stderr:
        return f"exit code {done.returncode}, {done.stderr[-2_000:]}"
    return "; ".join(find_faults(out, read_corpus(folder)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1_800.0, help="that a run may take")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, outs = Path(name, "in"), [Path(name, "one"), Path(name, "two")]
        folder.mkdir()
        made = write(folder, options.count, options.seed)
        (folder / "well.flac").write_bytes(JFK.read_bytes())
        build_tokenizer(Path(name, "tiny"))
        for workers, out in enumerate(outs, 1):
            if wrong := tokenize(folder, out, Path(name, "tiny"), workers, options.seconds):
                print(f"FAILED with {workers} workers: {wrong}")
                return 1
        lines = (outs[0] / "rejected.jsonl").read_text().splitlines()
        codes = Counter(json.loads(line)["code"] for line in lines)
        print(dict(codes.most_common()))
        for path in outs[0].iterdir():
            if path.read_bytes() != (outs[1] / path.name).read_bytes():
                print(f"FAILED: two workers made another {path.name}")
                return 1
    odd = sum(codes[code] for code in ("crashed", "timed_out", "too_large"))
    print(
        f"{len(made)} files of {len(LIST)} families: {sum(codes.values())} refused, each for one "
        f"reason ({odd} by the limits of the child), the others heard, no crash and no hang"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
