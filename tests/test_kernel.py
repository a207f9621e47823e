"""Our product with 8-bit weights against sums in double precision, and where it is not there."""

import copy
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from spirit.lm import kernel, weights
from spirit.lm.reader import reader
from tests.test_generate_llama import CPU, network, prompts

here = pytest.mark.skipif(not kernel.available(), reason="no compiler, or a CPU without VNNI")


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A machine without a compiler."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", "no-such-compiler")
    kernel._made.cache_clear()
    yield
    kernel._made.cache_clear()


@here
def test_what_is_compiled_is_kept_only_where_a_cache_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert kernel._load()
    assert not (tmp_path / "home").exists()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert kernel._load()
    assert len(list((tmp_path / "cache/spirit").iterdir())) == 1
    monkeypatch.setenv("CC", "no-such-compiler")
    assert kernel._load()


def layer(out: int, channels: int) -> weights.Int8:
    return weights.Int8(torch.randn(out, channels, generator=torch.Generator().manual_seed(0)))


def kept(layer: weights.Int8) -> Tensor:
    """The weights that were kept, exactly."""
    return layer.weight.double() * layer.scale.double()[:, None]


@pytest.mark.skipif(not torch.cpu._is_vnni_supported(), reason="a CPU without VNNI")
@pytest.mark.skipif(shutil.which("cc") is None, reason="no compiler")
def test_it_compiles_where_it_can() -> None:
    assert kernel._load()
    assert kernel.available()


@here
@pytest.mark.parametrize("channels", [64, 96, 100, 2_624])
@pytest.mark.parametrize("rows", [1, 5])
def test_norm_gate_and_sum_are_those_of_torch(rows: int, channels: int) -> None:
    some = layer(34, channels)
    x, gain, add = torch.randn(rows, channels), torch.rand(channels), torch.randn(rows, 17)
    normed = F.rms_norm(x.double(), gain.shape, gain.double(), 1e-5)
    gate, up = (normed @ kept(some).T).chunk(2, -1)
    found = kernel.product(
        x, some.weight, some.exact, gain=gain, eps=1e-5, add=add, gated=True
    ).double()
    wanted = F.silu(gate) * up
    torch.testing.assert_close(found - add, wanted, atol=3e-4 * float(wanted.std()), rtol=2e-4)
    plain = kernel.product(x, some.weight, some.exact).double()
    wanted = x.double() @ kept(some).T
    torch.testing.assert_close(plain, wanted, atol=2e-4 * float(wanted.std()), rtol=1e-5)


@here
def test_it_is_nearer_to_the_weights_than_the_product_of_torch() -> None:
    some = layer(64, 768)
    x = torch.randn(1, 768)
    x[0, 5] = 300.0  # as some channels of large models are
    wanted = x.double() @ kept(some).T
    theirs = torch._weight_int8pack_mm(x.bfloat16(), some.weight, some.scale).double()
    ours = kernel.product(x, some.weight, some.exact).double()
    assert (ours - wanted).square().mean() < 0.1 * (theirs - wanted).square().mean()


@here
def test_a_row_says_the_same_alone_and_among_others() -> None:
    some = layer(40, 96)
    x = torch.randn(7, 96) * torch.logspace(-4, 4, 7)[:, None]
    together = kernel.product(x, some.weight, some.exact)
    alone = [kernel.product(row, some.weight, some.exact) for row in x.split(1)]
    assert torch.equal(together, torch.cat(alone))


@here
def test_no_sum_overflows_where_all_is_as_large_as_can_be() -> None:
    some = weights.Int8(torch.ones(3, kernel.CHANNELS))
    x = torch.full((1, kernel.CHANNELS), 2.0)
    torch.testing.assert_close(
        some(x), torch.full((1, 3), 2.0 * kernel.CHANNELS), rtol=1e-2, atol=0
    )


@here
def test_a_damaged_row_is_damaged_and_zeros_are_zeros() -> None:
    some = layer(40, 96)
    x = torch.zeros(4, 96)
    x[1, 3], x[2, 90], x[3] = float("nan"), float("-inf"), 1e-38
    found = kernel.product(x, some.weight, some.exact, gain=torch.ones(96), eps=1e-5)
    assert found[1].isnan().all()
    assert found[2].isnan().all()
    assert (found[[0, 3]] == 0).all()


@here
def test_a_model_says_the_same_with_and_without_the_kernel(request: pytest.FixtureRequest) -> None:
    model = network(num_key_value_heads=2).bfloat16()
    small = weights.prepare(copy.deepcopy(model), "int8", CPU)

    def said() -> Tensor:
        source = reader(copy.deepcopy(small))
        found = [source.start(prompts(5, 3), 4)]  # few rows, one step each, then many rows
        found += [source.step(torch.tensor([7, 9])) for _ in range(3)]
        found.append(reader(copy.deepcopy(small)).start(prompts(40), 1))
        return torch.cat(found).flatten()

    ours = said()
    request.getfixturevalue("without")
    assert not kernel.available()
    theirs = said()
    assert not torch.equal(ours, theirs)
    assert np.corrcoef(ours, theirs)[0, 1] > 0.999
