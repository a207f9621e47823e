"""How fast the language model learns: against Hugging Face's Trainer, and of what a GPU can do.

    python benchmarks/training.py                     (two threads of a CPU; --quick for less)
    python benchmarks/training.py --device cuda       (MFU and memory of 0.4 B and 1.2 B weights)

On a CPU our loop and the Trainer take turns, in one process: the same Llama, packed rows, threads,
dtype (bf16 by autocast), AdamW, clipping and schedule; the same mask, so that no document sees
another, which the Trainer gets ready-made as a table of all pairs. Their first losses must agree.
Prints JSON: tokens a second, the best of the rounds, and the ratio of the bests (the bar is 1.1),
by the clock and by the CPU's own; on a busy machine they differ.

On a GPU, with real bfloat16 weights under ZeRO-2: tokens a second, MFU by the formula that is
printed with it, and peak memory, for each model with everything, and without compiling, without
the fused loss, and without packing (a document a row).
"""

import argparse
import gc
import json
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spirit import engine
from spirit.data.loader import pack
from spirit.engine import Engine, ranks
from spirit.engine.flops import Utilization
from spirit.lm import model as llama
from spirit.lm.learner import Learner, LMTrainingConfig, in_rows

ROOT = Path(__file__).parents[1]
SIZES = {
    "tiny": {"hidden": 256, "layers": 6, "heads": 4, "ffn": 704},
    "0.4b": {"hidden": 1_024, "layers": 24, "heads": 16, "ffn": 2_816},
    "1.2b": {"hidden": 2_048, "layers": 20, "heads": 16, "ffn": 5_632},
}
Batch = dict[str, Tensor]
Result = tuple[float, float, float]
"""Tokens a second by the clock and of CPU, and the first loss."""


def batches(
    count: int, rows: int, row: int, vocab: int, longest: int, packed: bool = True
) -> list[Batch]:
    """Rows of random documents of 8 tokens up to `longest`, as the loader gives them."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(count):
        lengths = [int(n) for n in rng.integers(8, longest + 1, rows * row // 8)]
        filled = pack(lengths, row)[:rows] if packed else [[i] for i in range(rows)]
        ids = torch.from_numpy(rng.integers(0, vocab, (rows, row)))
        document, positions = torch.full((rows, row), -1), torch.zeros(rows, row, dtype=torch.long)
        labels = torch.full((rows, row), -100)
        for number, members in enumerate(filled):
            start = 0
            for at, member in enumerate(members):
                stop = start + lengths[member]
                document[number, start:stop] = at
                positions[number, start:stop] = torch.arange(stop - start)
                labels[number, start + 1 : stop] = ids[number, start + 1 : stop]
                start = stop
        batch = {"ids": ids, "document": document, "positions": positions, "labels": labels}
        made.append(batch)
    return made


def network(size: str, vocab: int, row: int) -> Any:
    """The same fresh weights at every call."""
    torch.manual_seed(0)
    return llama.new_llama(vocab, **SIZES[size], positions=row, tied=False)


def our_steps(
    learner: Learner, motor: Engine, data: list[Batch]
) -> Callable[[int], dict[str, float | Tensor]]:
    """What `spirit train` does in a step, but for drawing documents and modalities."""

    def step(number: int) -> dict[str, float | Tensor]:
        batch = data[number % len(data)]
        docs = learner.lay_out(batch)
        total = ranks.total(len(docs.labels))
        losses, _ = motor(docs.to(motor.device))
        metrics = motor.update(losses.sum() / total)
        tokens = float((batch["document"] >= 0).sum())
        return {"loss": losses.detach().mean(), "tokens": tokens, **metrics}

    return step


def ours(data: list[Batch], config: LMTrainingConfig, vocab: int, row: int) -> Result:
    """Our loop, behind two steps to warm up."""
    learner = Learner(network("tiny", vocab, row))
    motor = Engine(learner, config)
    work, marks, losses = our_steps(learner, motor, data), [], []

    def step(number: int) -> dict[str, float | Tensor]:
        marks.append(now())
        metrics = work(number)
        losses.append(metrics["loss"])
        return metrics

    with tempfile.TemporaryDirectory() as out:
        engine.train(step, {"lm": motor}, config, Path(out))
    return (*_rates(marks, data), float(losses[0]))


def theirs(data: list[Batch], config: LMTrainingConfig, vocab: int, row: int) -> Result:
    """The same of the Trainer."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    height = len(data[0]["ids"])
    pairs = torch.ones(row, row, dtype=torch.bool).tril()
    examples = []
    for batch in data:
        document = batch["document"]
        mask = (document[:, :, None] == document[:, None, :]) & pairs
        examples += [
            {
                "input_ids": batch["ids"][i],
                "position_ids": batch["positions"][i],
                "labels": batch["labels"][i],
                "attention_mask": mask[i][None],
            }
            for i in range(height)
        ]
    marks: list[tuple[float, float]] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            marks.append(now())

    with tempfile.TemporaryDirectory() as out:
        settings = TrainingArguments(
            out,
            max_steps=config.steps,
            per_device_train_batch_size=height,
            learning_rate=config.lr,
            lr_scheduler_type="cosine",
            warmup_steps=config.warmup,
            weight_decay=config.weight_decay,
            adam_beta2=config.betas[1],
            max_grad_norm=config.clip,
            bf16=config.dtype == "bf16",
            use_cpu=True,
            logging_steps=1_000,
            logging_first_step=True,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        trainer = Trainer(
            network("tiny", vocab, row),
            settings,
            train_dataset=examples,
            callbacks=[Clock()],
        )
        # Rows in their order, and no words on stdout.
        trainer._get_train_sampler = lambda *_: torch.utils.data.SequentialSampler(examples)
        trainer.remove_callback(_printer())
        trainer.train()
        first = next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)
    return (*_rates(marks, data), float(first))


def _printer() -> type:
    from transformers import PrinterCallback

    return PrinterCallback


def now() -> tuple[float, float]:
    """Seconds by the clock, and of CPU."""
    return time.perf_counter(), time.process_time()


def _rates(marks: list[tuple[float, float]], data: list[Batch]) -> tuple[float, float]:
    """Tokens a second, by the clock and of CPU, from the third step's beginning to the last's."""
    tokens = [float((batch["document"] >= 0).sum()) for batch in data]
    done = sum(tokens[i % len(data)] for i in range(2, len(marks) - 1))
    clock, work = (last - first for first, last in zip(marks[2], marks[-1], strict=True))
    return done / clock, done / work


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Our loop and the Trainer in turns."""
    torch.set_num_threads(options.threads)
    row, vocab = options.row, 1_088
    config = LMTrainingConfig(
        steps=options.steps,
        lr=1e-4,
        warmup=2,
        device="cpu",
        dtype=options.dtype,
        threads=options.threads,
        save_seconds=1e6,
    )
    data = batches(8, options.rows, row, vocab, options.longest)
    found: dict[str, list[Result]] = {"ours": [], "trainer": []}
    order = [("ours", ours), ("trainer", theirs)]
    for number in range(options.rounds):
        for name, run in order if number % 2 == 0 else reversed(order):
            found[name].append(run(data, config, vocab, row))
            clock, cpu, _ = found[name][-1]
            print(f"{name}: {clock:,.0f} tokens/s, {cpu:,.0f} by CPU", file=sys.stderr)
        one, two = (results[-1][2] for results in found.values())
        # In bf16 another order of sums shows in the third digit.
        if abs(one - two) > 0.02 or abs(one - np.log(vocab)) > 0.5:
            raise SystemExit(f"not the same problem: the first losses are {one} and {two}")
    best = [{name: max(r[i] for r in results) for name, results in found.items()} for i in (0, 1)]
    return {
        "rows": f"{options.rows} x {row}, documents of 8 to {options.longest} tokens",
        "dtype": options.dtype,
        "threads": options.threads,
        "rounds": options.rounds,
        "tokens_per_second": {name: round(rate) for name, rate in best[0].items()},
        "ratio": round(best[0]["ours"] / best[0]["trainer"], 3),
        "ratio_of_cpu": round(best[1]["ours"] / best[1]["trainer"], 3),
    }


def utilization(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Models on one GPU, with everything, and without one thing after the other."""
    row, vocab = max(options.row, 4_096), 32_768
    for size in ("0.4b", "1.2b"):
        for without in ("", "compile", "fused loss", "packing"):
            config = LMTrainingConfig(
                steps=options.steps,
                lr=1e-4,
                warmup=2,
                device="cuda",
                dtype="bf16-weights",
                deepspeed=str(ROOT / "recipes" / "deepspeed" / "zero2.json"),
                compile=without != "compile",
                fused_loss="no" if without == "fused loss" else "yes",
            )
            gc.collect()  # DeepSpeed's engines refer to themselves
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            model, device = network(size, vocab, row), torch.device("cuda", 0)
            learner = Learner(
                model,
                in_rows=in_rows(model, config, device, row, False),
                compiled=config.compile,
                fused_loss=config.fused_loss,
            )
            motor = Engine(learner, config)
            data = batches(4, options.rows, row, vocab, 2_048, packed=without != "packing")
            step = our_steps(learner, motor, data)
            for number in range(5):
                step(number)
            torch.cuda.synchronize()
            rounds = []
            for _ in range(options.rounds):
                began = time.perf_counter()
                for number in range(options.steps):
                    step(number)
                torch.cuda.synchronize()
                rounds.append(time.perf_counter() - began)
            work, tokens = 0.0, 0
            for number in range(options.steps):
                batch = data[number % len(data)]
                real = batch["document"] >= 0
                tokens += int(real.sum())
                pairs = int((batch["positions"][real] + 1).sum())
                labels = int((batch["labels"] != -100).sum())
                work += learner.flops(int(real.sum()), labels, pairs)
            used = Utilization(learner.formula, device, config.dtype, options.peak_tflops, 1)
            share = used.share(work, min(rounds))
            yield {
                "weights": sum(p.numel() for p in model.parameters()),
                "without": without or None,
                "tokens_per_second": round(tokens / min(rounds)),
                "mfu": share and round(share, 4),
                "peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2),
                "formula": used.said,
            }
            del model, learner, motor, step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--row", type=int, default=1_024)
    parser.add_argument("--longest", type=int, default=300, help="tokens of a document")
    parser.add_argument("--dtype", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peak-tflops", type=float, default=0.0)
    parser.add_argument("--quick", action="store_true", help="two rounds of six steps")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.steps = 2, 6
    warnings.simplefilter("ignore")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if options.device == "cpu":
        print(json.dumps(compare(options), indent=2))
        return
    if not torch.cuda.is_available():
        raise SystemExit("no GPU that torch can use")
    for found in utilization(options):
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
