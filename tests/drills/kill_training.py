"""Kill a training at random moments, outright, until it is done; it must end as an unbroken one.

    python tests/drills/kill_training.py --times 20 --processes 2 --zero 2

Takes minutes, so it is no part of the test suite. The last line of its output is the verdict.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from pathlib import Path
import torch
from torch import nn
from spirit.engine import Engine, TrainingConfig, rank, train

out, settings, steps = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
config = TrainingConfig(steps=steps, lr=1e-3, device="cpu", save_seconds=0.2, deepspeed=settings)
torch.manual_seed(0)
wide = nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Dropout(0.1), nn.Linear(512, 64))
engine = Engine(wide, config)

def step(number):
    inputs = torch.randn(16, 64, generator=torch.Generator().manual_seed(2 * number + rank()))
    loss = (engine(inputs) - inputs.roll(1, 1)).pow(2).mean()
    return {"loss": loss, "tokens": 16, **engine.update(loss)}

train(step, {"net": engine}, config, out)
weights = engine.weights()
if rank() == 0:
    torch.save([value.clone() for value in weights.values()], out / "weights.pt")
"""


def command(program: Path, out: Path, options: argparse.Namespace) -> list[str]:
    settings = ROOT / "recipes" / "deepspeed" / f"zero{options.zero}.json"
    launcher = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={options.processes}",
    ]
    return [
        sys.executable,
        *(launcher if options.processes > 1 else []),
        str(program),
        str(out),
        str(settings) if options.zero else "",
        str(options.steps),
    ]


def kill(child: subprocess.Popen[bytes]) -> None:
    """End the training and all its processes without a warning."""
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=10, help="kills")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--zero", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    moments = random.Random(options.seed)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program = folder / "program.py"
        program.write_text(PROGRAM)
        began = time.monotonic()
        quiet = {"env": environment, "stderr": subprocess.DEVNULL, "start_new_session": True}
        subprocess.run(command(program, folder / "whole", options), check=True, **quiet)
        whole = time.monotonic() - began
        kills = 0
        while not (folder / "broken" / "weights.pt").is_file():
            child = subprocess.Popen(command(program, folder / "broken", options), **quiet)
            try:
                child.wait(moments.uniform(0.3, 1.1) * whole if kills < options.times else None)
            except subprocess.TimeoutExpired:
                kill(child)
                kills += 1
            latest = folder / "broken" / "state" / "latest"
            where = latest.read_text().strip() if latest.is_file() else "nothing saved"
            print(f"kill {kills}: {where}", flush=True)
            if child.returncode not in (0, -signal.SIGKILL):
                print(f"FAILED: the training ended with code {child.returncode}")
                return 1
        found = (folder / "broken" / "weights.pt").read_bytes()
        same = found == (folder / "whole" / "weights.pt").read_bytes()
    print(f"{'the same' if same else 'FAILED: other'} weights after {kills} kills")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
