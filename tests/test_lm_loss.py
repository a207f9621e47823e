import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from spirit.lm import loss

VOCAB, TOKENS, CHANNELS = 1_000, 300, 16


def problem() -> tuple[nn.Linear, Tensor, Tensor]:
    torch.manual_seed(0)
    head = nn.Linear(CHANNELS, VOCAB, bias=False)
    return head, torch.randn(TOKENS, CHANNELS), torch.randint(0, VOCAB, (TOKENS,))


class Largest(TorchDispatchMode):
    """The elements of the largest tensor that is made."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        if isinstance(made, Tensor):
            self.size = max(self.size, made.numel())
        return made


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_losses_in_pieces_are_those_of_the_whole_table_and_so_are_gradients(monkeypatch, dtype):
    monkeypatch.setattr(loss, "PIECE", 64 * VOCAB)
    found = []
    for fused in ("no", "yes"):
        head, hidden, labels = problem()
        hidden.requires_grad_()
        weights = torch.linspace(0.5, 2.0, TOKENS)  # not every label weighs the same
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"):
            losses = loss.token_losses(head, hidden, labels, vocab=VOCAB, fused=fused)
        (losses * weights).sum().backward()
        found.append((losses.detach(), hidden.grad, head.weight.grad))
    for whole, pieces in zip(*found, strict=True):
        exact = {"rtol": 1e-5, "atol": 1e-5} if dtype == "fp32" else {"rtol": 0.02, "atol": 0.02}
        torch.testing.assert_close(pieces, whole, **exact)


def test_losses_in_pieces_never_make_the_whole_table(monkeypatch):
    monkeypatch.setattr(loss, "PIECE", 64 * VOCAB)
    sizes, kept = {}, {}
    for fused in ("no", "yes"):
        head, hidden, labels = problem()
        hidden.requires_grad_()
        stored: list[int] = []

        def keep(tensor: Tensor, stored: list[int] = stored) -> Tensor:
            stored.append(tensor.numel())
            return tensor

        with Largest() as largest:
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                losses = loss.token_losses(head, hidden, labels, vocab=VOCAB, fused=fused)
            losses.sum().backward()
        sizes[fused], kept[fused] = largest.size, max(stored)
    assert sizes["no"] == TOKENS * VOCAB
    assert sizes["yes"] == 64 * VOCAB
    assert kept["no"] == TOKENS * VOCAB
    assert kept["yes"] <= TOKENS * CHANNELS


def test_small_tables_are_made_at_once_unless_a_recipe_says_otherwise(monkeypatch):
    head, hidden, labels = problem()
    monkeypatch.setattr(loss, "PIECE", 64 * VOCAB)
    sizes = []
    for limit in (TOKENS * VOCAB, TOKENS * VOCAB - 1):
        monkeypatch.setattr(loss, "WHOLE", limit)
        with Largest() as largest, torch.no_grad():
            loss.token_losses(head, hidden, labels, vocab=VOCAB)
        sizes.append(largest.size)
    assert sizes == [TOKENS * VOCAB, 64 * VOCAB]


def test_no_labels_have_no_losses():
    head, hidden, labels = problem()
    found = loss.token_losses(head, hidden[:0], labels[:0], vocab=VOCAB, fused="yes")
    assert found.shape == (0,)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("amp", [False, True], ids=["fp32", "autocast"])
def test_ligers_kernels_find_the_same_losses_and_gradients(amp):
    pytest.importorskip("liger_kernel")
    found = []
    for by in (loss._loss, loss._by_liger):
        head, hidden, labels = (part.cuda() for part in problem())
        hidden = hidden.requires_grad_()
        with torch.autocast("cuda", torch.bfloat16, enabled=amp):
            losses = by(head, hidden, labels)
        (losses * torch.linspace(0.5, 2.0, TOKENS, device="cuda")).sum().backward()
        found.append((losses.detach(), hidden.grad, head.weight.grad))
    near = 3e-2 if amp else 1e-3
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(theirs, ours, rtol=near, atol=near)
