import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from spirit.engine import (
    Engine,
    NotFinite,
    TrainingConfig,
    checkpoint,
    device,
    finished,
    launch,
    recipes,
    train,
)
from spirit.engine.flops import Utilization
from spirit.engine.muon import Muon, orthogonalize

CONFIG = TrainingConfig(
    steps=12, lr=1e-2, warmup=3, device="cpu", save_seconds=1_000.0, log_every=5, dtype="fp32"
)


class Counter:
    """A source of inputs that must go on where it was."""

    def __init__(self) -> None:
        self.count = 0

    def state_dict(self) -> dict[str, int]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.count = state["count"]

    def inputs(self) -> Tensor:
        self.count += 1
        return torch.randn(4, 8, generator=torch.Generator().manual_seed(self.count))


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 1))


class Pair:
    """Two networks in one process, one learning through the other, as generator and critic do."""

    def __init__(self, config: TrainingConfig) -> None:
        torch.manual_seed(1)
        self.config = config
        self.counter = Counter()
        self.engines = {name: Engine(network(), config) for name in ("one", "two")}

    def step(self, number: int) -> dict[str, float | Tensor]:
        one, two = self.engines.values()
        inputs = self.counter.inputs()
        two.update((two(inputs) - inputs.sum(1, keepdim=True)).pow(2).mean())
        with two.frozen():
            loss = two(inputs + one(inputs)).pow(2).mean()
            return {"loss": loss, "tokens": 4, **one.update(loss)}

    def run(self, out: Path, stop_before: int = -1) -> None:
        def step(number: int) -> dict[str, float | Tensor]:
            if number == stop_before:
                raise InterruptedError
            return self.step(number)

        train(step, self.engines, self.config, out, state={"counter": self.counter})

    def weights(self) -> Tensor:
        parameters = [p for e in self.engines.values() for p in e.module.parameters()]
        return torch.cat([p.detach().flatten() for p in parameters])


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Tensor:
    pair = Pair(CONFIG)
    pair.run(tmp_path_factory.mktemp("unbroken"))
    return pair.weights()


def interrupted(out: Path, at: int) -> None:
    with pytest.raises(InterruptedError):
        Pair(replace(CONFIG, save_seconds=0.0)).run(out, stop_before=at)


def test_interrupted_training_ends_bit_for_bit_where_an_unbroken_one_does(unbroken, tmp_path):
    interrupted(tmp_path, 7)
    again = Pair(CONFIG)
    again.run(tmp_path)
    assert torch.equal(again.weights(), unbroken)


def test_training_in_bfloat16_keeps_full_weights_and_differs(unbroken, tmp_path):
    pair = Pair(replace(CONFIG, dtype="bf16"))
    pair.run(tmp_path)
    assert pair.weights().dtype == torch.float32
    assert not torch.equal(pair.weights(), unbroken)
    assert (pair.weights() - unbroken).abs().max() < 0.05


def test_two_newest_checkpoints_are_kept_and_latest_names_one(tmp_path):
    interrupted(tmp_path, 7)
    names = sorted(path.name for path in (tmp_path / "state").glob("*"))
    assert names == ["latest", "step-00000006", "step-00000007"]
    assert (tmp_path / "state" / "latest").read_text().startswith("step-00000007 ")


@pytest.mark.parametrize("damage", ["torn", "altered", "missing", "no manifest"])
def test_broken_checkpoint_is_named_and_the_one_before_is_used(unbroken, tmp_path, capsys, damage):
    interrupted(tmp_path, 7)
    broken = tmp_path / "state" / "step-00000007" / "one" / "engine.pt"
    content = bytearray(broken.read_bytes())
    if damage == "torn":
        broken.write_bytes(content[:-100])
    elif damage == "altered":
        content[len(content) // 2] ^= 1
        broken.write_bytes(content)
    elif damage == "missing":
        broken.unlink()
    else:
        (broken.parents[1] / "manifest.json").write_text("{")
    again = Pair(CONFIG)
    again.run(tmp_path)
    said = capsys.readouterr().err
    assert "step-00000007" in said
    assert "going on after step 6" in said
    assert torch.equal(again.weights(), unbroken)
    assert (tmp_path / "state" / "broken-step-00000007").is_dir(), "kept for whoever looks into it"


def test_training_never_starts_from_zero_where_all_checkpoints_are_broken(tmp_path):
    interrupted(tmp_path, 7)
    for path in (tmp_path / "state").glob("*/one/engine.pt"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"none of the checkpoints .* is whole"):
        Pair(CONFIG).run(tmp_path)


@pytest.mark.parametrize("content", ["", "step-9", "\0\0"])
def test_torn_latest_is_survived(tmp_path, capsys, content):
    interrupted(tmp_path, 3)
    (tmp_path / "state" / "latest").write_text(content)
    found = checkpoint.newest(tmp_path / "state")
    assert found == (3, tmp_path / "state" / "step-00000003", 1)
    assert "latest" in capsys.readouterr().err


def test_failed_save_leaves_nothing_and_the_older_checkpoint_stands(tmp_path):
    interrupted(tmp_path, 3)
    before = sorted(p.name for p in (tmp_path / "state").rglob("*"))
    pair = Pair(replace(CONFIG, save_seconds=0.0))
    pair.counter.state_dict = lambda: (_ for _ in ()).throw(OSError(28, "No space left"))
    with pytest.raises(OSError, match="No space left"):
        pair.run(tmp_path)
    assert sorted(p.name for p in (tmp_path / "state").rglob("*")) == before


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)]
)
def test_signal_ends_training_after_the_step_with_all_saved(unbroken, tmp_path, number, error):
    pair = Pair(CONFIG)
    plain = pair.step

    def step(i: int) -> dict[str, float | Tensor]:
        if i == 4:
            os.kill(os.getpid(), number)
        return plain(i)

    pair.step = step
    with pytest.raises(error) as stopped:
        pair.run(tmp_path)
    if number == signal.SIGTERM:
        assert stopped.value.code == 0, "nothing failed"
    assert checkpoint.newest(tmp_path / "state") == (5, tmp_path / "state" / "step-00000005", 1)
    assert not finished(tmp_path, CONFIG)
    again = Pair(CONFIG)
    again.run(tmp_path)
    assert torch.equal(again.weights(), unbroken)


def test_finished_training_is_known_until_more_steps_are_asked(tmp_path):
    assert not finished(tmp_path, CONFIG)
    Pair(CONFIG).run(tmp_path)
    assert finished(tmp_path, CONFIG)
    assert not finished(tmp_path, replace(CONFIG, steps=13))
    (tmp_path / "state" / "finished.json").write_text("{}")
    assert not finished(tmp_path, CONFIG)


@dataclass(frozen=True)
class Recipe:
    out: Path
    training: TrainingConfig
    width: int = 8


def test_a_training_goes_on_with_its_own_recipe_only(tmp_path):
    def run(recipe: Recipe) -> None:
        pair = Pair(recipe.training)
        state = {"counter": pair.counter}
        train(pair.step, pair.engines, recipe.training, tmp_path, recipe=recipe, state=state)

    recipe = Recipe(tmp_path, CONFIG)
    run(recipe)
    assert finished(tmp_path, CONFIG, recipe)
    with pytest.raises(ValueError, match="width = 8, the recipe now says 9"):
        finished(tmp_path, CONFIG, replace(recipe, width=9))
    other = replace(recipe, training=replace(CONFIG, lr=1.0, steps=13))
    with pytest.raises(ValueError, match=r"training\.lr = 0\.01, the recipe now says 1\.0"):
        run(other)
    longer = replace(CONFIG, steps=13, save_seconds=5.0, log_every=1)
    run(Recipe(tmp_path / "elsewhere", longer))  # how long and where is free
    assert finished(tmp_path, longer, recipe)


@dataclass(frozen=True)
class Side:
    rank: int = 16
    dropout: float = 0.0


@dataclass(frozen=True)
class Newer(Recipe):
    """The same recipe after keys were added to it."""

    spans: tuple[int, int] = (10, 30)
    side: Side | None = None


def test_what_an_older_recipe_did_not_know_is_its_default(tmp_path):
    old = recipes.fixed(Recipe(tmp_path, CONFIG))
    del old["training.betas"]
    newer = Newer(tmp_path, CONFIG)
    recipes.check(tmp_path, old, newer)
    with pytest.raises(ValueError, match=r"spans = \[10, 30\], the recipe now says \[5, 9\]"):
        recipes.check(tmp_path, old, replace(newer, spans=(5, 9)))
    with pytest.raises(ValueError, match=r"training\.betas = \[0\.9, 0\.98\], the recipe now"):
        recipes.check(tmp_path, old, replace(newer, training=replace(CONFIG, betas=(0.9, 0.9))))
    with pytest.raises(ValueError, match=r"side\.dropout = None, the recipe now says 0\.0"):
        recipes.check(tmp_path, old, replace(newer, side=Side()))
    aside = replace(newer, side=Side(rank=8))
    old = recipes.fixed(aside)
    del old["side.dropout"]
    recipes.check(tmp_path, old, aside)
    with pytest.raises(ValueError, match=r"side\.rank = 8, the recipe now says None"):
        recipes.check(tmp_path, old, newer)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_training_stops_before_a_step_that_is_no_number(what):
    engine = Engine(network(), CONFIG)
    before = [p.detach().clone() for p in engine.module.parameters()]
    loss = engine(torch.ones(4, 8)).mean()
    # The root of zero is a number, its slope is none.
    loss = loss * float("nan") if what == "loss" else (loss - loss.detach()).abs().sqrt()
    with pytest.raises(ValueError, match=f"the {what} of step 1 is not a finite number"):
        engine.update(loss)
    assert all(torch.equal(a, b) for a, b in zip(before, engine.module.parameters(), strict=True))


def test_gradient_is_clipped_and_its_norm_reported():
    engine = Engine(nn.Linear(8, 1), replace(CONFIG, clip=1e-3))
    parameters = list(engine.module.parameters())
    seen = []
    parameters[0].register_post_accumulate_grad_hook(lambda p: seen.append(p.grad))
    metrics = engine.update(engine(torch.ones(4, 8)).mean() * 1000)
    assert float(metrics["grad"]) == pytest.approx(3_000, rel=0.01)
    assert seen[0].norm() <= 1e-3


def test_orthogonalized_matrices_keep_their_directions_and_lose_their_scales():
    torch.manual_seed(0)
    for shape in ((3, 16, 40), (2, 40, 16), (1, 24, 24)):
        matrices = torch.randn(shape) * 7
        left, _, right = torch.linalg.svd(matrices, full_matrices=False)
        found = orthogonalize(matrices)
        inside = left.mT @ found @ right.mT
        diagonal = inside.diagonal(dim1=1, dim2=2)
        # The smallest of many random singular values rises only slowly.
        assert diagonal.min() > 0.3
        assert diagonal.median() == pytest.approx(0.9, abs=0.3)
        assert diagonal.max() < 1.3
        off = inside - torch.diag_embed(diagonal)
        assert off.abs().max() < 0.1


def test_muon_without_matrices_is_adamw():
    found = []
    for kind in (Muon, torch.optim.AdamW):
        torch.manual_seed(0)
        module = network()[:2]
        groups = [{"params": list(module.parameters()), "weight_decay": 0.1}]
        optimizer = kind(groups, lr=0.01, betas=(0.9, 0.98))
        for _ in range(3):
            module.zero_grad()
            module(torch.ones(2, 8)).pow(2).sum().backward()
            optimizer.step()
        found.append([p.detach() for p in module.parameters()])
    torch.testing.assert_close(*found)


def test_muon_training_resumes_exactly_and_learns(tmp_path):
    config = replace(CONFIG, optimizer="muon", steps=60, lr=0.1)

    def run(out: Path, stop_before: int) -> tuple[list[float], Tensor]:
        torch.manual_seed(1)
        module = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
        settings = config if stop_before < 0 else replace(config, save_seconds=0.0)
        engine = Engine(module, settings, hidden=[module[0].weight])
        losses = []

        def step(i: int) -> dict[str, float | Tensor]:
            if i == stop_before:
                raise InterruptedError
            inputs = torch.randn(16, 8, generator=torch.Generator().manual_seed(i))
            loss = (engine(inputs) - inputs.sum(1, keepdim=True)).pow(2).mean()
            losses.append(loss.item())
            return {"loss": loss, "tokens": 16, **engine.update(loss)}

        with suppress(InterruptedError):
            train(step, {"net": engine}, config, out)
        return losses, module[0].weight.detach()

    losses, wanted = run(tmp_path / "whole", -1)
    assert losses[-1] < 0.5 * losses[0]
    run(tmp_path / "broken", 9)
    assert torch.equal(run(tmp_path / "broken", -1)[1], wanted)


def test_muon_is_refused_where_zero_spreads_the_matrices():
    path = str(Path(__file__).parents[1] / "recipes" / "deepspeed" / "zero2.json")
    with pytest.raises(ValueError, match="ZeRO stage 2"):
        Engine(network(), replace(CONFIG, optimizer="muon", deepspeed=path))


def test_frozen_network_passes_gradients_and_keeps_none():
    one, two = (Engine(nn.Linear(8, 8), CONFIG) for _ in range(2))
    before = [[p.detach().clone() for p in e.module.parameters()] for e in (one, two)]
    with two.frozen():
        one.update(two(one(torch.ones(1, 8))).pow(2).mean())
    assert all(p.grad is None and p.requires_grad for p in two.module.parameters())
    same = [
        all(map(torch.equal, old, engine.module.parameters()))
        for old, engine in zip(before, (one, two), strict=True)
    ]
    assert same == [False, True]


def test_schedules_rise_hold_and_fall():
    config = TrainingConfig(steps=1_000, lr=2.0, warmup=100, final=0.1)
    for schedule in ("cosine", "constant", "wsd"):
        rates = [replace(config, schedule=schedule).rate(i) for i in range(1_000)]
        assert rates[0] == pytest.approx(2.0 / 101)
        assert all(a < b for a, b in pairwise(rates[:101]))
        assert max(rates) == rates[100] == 2.0
        last = 2.0 if schedule == "constant" else 0.2
        assert rates[-1] == pytest.approx(last, abs=0.02)
        assert (rates[500] == 2.0) == (schedule != "cosine")


@pytest.mark.parametrize(
    "change",
    [{"schedule": "line"}, {"dtype": "fp8"}, {"steps": 0}, {"lr": 0.0}, {"optimizer": "sgd"}],
)
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(ValueError, match="training"):
        replace(CONFIG, **change)


def test_device_that_is_not_there_is_refused():
    assert device("cpu") == torch.device("cpu")
    for name in ("tpu", "cuda:99"):
        with pytest.raises(ValueError, match="device"):
            device(name)


def test_deepspeed_settings_that_belong_into_the_recipe_are_refused(tmp_path):
    path = tmp_path / "zero.json"
    for content, match in (('{"bf16": {}}', "belongs into the recipe"), ("{", "not valid JSON")):
        path.write_text(content)
        with pytest.raises(ValueError, match=match):
            Engine(network(), replace(CONFIG, deepspeed=str(path)))
    with pytest.raises(ValueError, match="no such DeepSpeed settings"):
        Engine(network(), replace(CONFIG, deepspeed=str(tmp_path / "none.json")))


def test_checkpoint_of_another_network_is_refused_in_one_line(tmp_path):
    Engine(network(), CONFIG).save(tmp_path)
    with pytest.raises(ValueError, match="does not fit this network") as caught:
        Engine(nn.Linear(3, 3), CONFIG).load(tmp_path)
    assert "\n" not in str(caught.value)


def test_lonely_process_leaves_the_environment_as_it_was():
    Engine(network(), CONFIG)
    assert not {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} & set(os.environ)


def test_loss_and_rate_stand_in_the_logs(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    Pair(CONFIG).run(tmp_path)
    logs = EventAccumulator(str(tmp_path / "logs")).Reload()
    assert {"loss", "grad", "lr", "tokens_per_second"} <= set(logs.Tags()["scalars"])
    assert [point.step for point in logs.Scalars("loss")] == [5, 10, 12]


PROGRAM = """
import json, sys
from dataclasses import replace
from pathlib import Path
import pytest, torch
sys.path.insert(0, sys.argv[1])
from test_engine import CONFIG, Pair
from spirit.engine import rank, world
out, settings = Path(sys.argv[2]), sys.argv[3]
config = replace(CONFIG, deepspeed=settings)

class Shared(Pair):
    def step(self, number):
        torch.manual_seed(100 * number + rank())  # its own part of the data
        self.counter.count = 2 * number + rank()
        return super().step(number)

def gathered(pair):
    tables = [e.weights() for e in pair.engines.values()]
    return torch.cat([v.flatten() for table in tables for v in table.values()])

whole = Shared(config)
whole.run(out / "whole")
half = Shared(replace(config, save_seconds=0.0))
with pytest.raises(InterruptedError):
    half.run(out / "broken", stop_before=7)
again = Shared(config)
again.run(out / "broken")
equal = torch.equal(gathered(again), gathered(whole))
Path(out / f"answer-{rank()}.json").write_text(json.dumps(
    {"equal": equal, "world": world(), "sum": gathered(whole).double().sum().item()}))
"""


@pytest.mark.parametrize(
    "stage",
    [
        pytest.param(0, marks=pytest.mark.slow),
        pytest.param(1, marks=pytest.mark.slow),
        2,
        pytest.param(3, marks=pytest.mark.slow),
    ],
)
def test_two_processes_share_a_training_and_resume_exactly(tmp_path, stage):
    root = Path(__file__).parents[1]
    settings = str(root / "recipes" / "deepspeed" / f"zero{stage}.json") if stage else ""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    subprocess.run(
        [*command, str(program), str(root / "tests"), str(tmp_path), settings],
        check=True,
        timeout=240,
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
    )
    answers = [json.loads((tmp_path / f"answer-{rank}.json").read_text()) for rank in (0, 1)]
    assert answers[0] == answers[1]
    assert answers[0]["equal"]
    assert answers[0]["world"] == 2
    states = sorted((tmp_path / "broken" / "state" / "step-00000012").glob("rank-*.json"))
    assert len(states) == 2


def test_a_step_may_add_up_losses_that_are_made_one_after_another():
    found = []
    inputs = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    for parts in (1, 4):
        torch.manual_seed(1)
        engine = Engine(nn.Linear(8, 1), CONFIG, accumulate=parts)
        for _ in range(3):
            losses = (engine(part).pow(2).sum() for part in inputs.chunk(parts))
            metrics = engine.update(next(losses) if parts == 1 else losses)
        found.append((engine.module.weight.detach(), torch.as_tensor(metrics["grad"])))
    torch.testing.assert_close(*found)
    assert engine.steps == 3


def test_a_loss_that_is_no_number_leaves_the_last_good_checkpoint(tmp_path):
    pair = Pair(replace(CONFIG, save_seconds=0.0))
    pair.counter.inputs = lambda: torch.full((4, 8), float("nan") if pair.broken else 1.0)
    pair.broken, plain = False, pair.step

    def step(number: int) -> dict[str, float | Tensor]:
        pair.broken = number == 4
        return plain(number)

    pair.step = step
    with pytest.raises(NotFinite, match="the loss of step 5"):
        pair.run(tmp_path)
    assert checkpoint.newest(tmp_path / "state") == (4, tmp_path / "state" / "step-00000004", 1)


def test_zero_takes_no_step_down_a_gradient_that_is_no_number():
    path = str(Path(__file__).parents[1] / "recipes" / "deepspeed" / "zero2.json")
    engine = Engine(network(), replace(CONFIG, deepspeed=path))
    before = [p.detach().clone() for p in engine.module.parameters()]
    loss = engine(torch.ones(4, 8)).mean()
    with pytest.raises(NotFinite, match="the gradient of step 1 is not a finite number") as caught:
        engine.update((loss - loss.detach()).abs().sqrt())
    assert caught.value.what == "gradient"
    assert all(torch.equal(a, b) for a, b in zip(before, engine.module.parameters(), strict=True))


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu[003-010,12],cpu1", "gpu003"),
        ("node7", "node7"),
        ("a1,b[1-2]", "a1"),
        ("r[1,4]n[10-12]-ib", "r1n10-ib"),
        ("", ""),
    ],
)
def test_the_first_of_slurms_nodes_is_found(nodes, first):
    assert launch.first_host(nodes) == first


def test_under_srun_a_process_knows_its_place(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")  # so that what is set here is taken back behind the test
        monkeypatch.delenv(name)
    slurm = {
        "SLURM_PROCID": "5",
        "SLURM_LOCALID": "1",
        "SLURM_JOB_ID": "4711",
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NODELIST": "gpu[03-04]",
    }
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    launch.adopt()
    assert "RANK" not in os.environ, "a batch script itself is alone"
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    launch.adopt()
    assert (os.environ["RANK"], os.environ["LOCAL_RANK"]) == ("5", "1")
    assert (os.environ["WORLD_SIZE"], os.environ["MASTER_ADDR"]) == ("8", "gpu03")
    assert 1_024 < int(os.environ["MASTER_PORT"]) < 65_536
    monkeypatch.setenv("RANK", "2")  # torchrun, inside srun
    launch.adopt()
    assert os.environ["RANK"] == "2"


def test_utilization_is_work_by_time_by_what_the_devices_can_do():
    four = Utilization("work", torch.device("cpu"), "bf16", 100.0, 4)
    assert four.share(200e12, 2.0) == pytest.approx(0.25)
    assert "work" in four.said
    assert "4 x 100 TFLOP/s" in four.said
    measured = Utilization("work", torch.device("cpu"), "fp32", 0.0, 1)
    assert 1e-3 < measured.peak < 100
    assert "measured here" in measured.said


def test_weights_and_biases_gets_the_logs_without_a_network(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for number in range(2):  # the second goes on with the run of the first
        Pair(replace(CONFIG, wandb="a-project", steps=6 * (number + 1))).run(tmp_path)
    written = list((tmp_path / "logs").glob("wandb/offline-run-*/run-*.wandb"))
    assert len(written) == 2
    assert len({path.name for path in written}) == 1
    assert all(path.stat().st_size > 1_000 for path in written)


def test_weights_and_biases_that_is_not_installed_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs Weights & Biases; pip install '\.\[wandb\]'"):
        Pair(replace(CONFIG, wandb="a-project")).run(tmp_path)
