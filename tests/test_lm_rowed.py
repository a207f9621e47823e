import subprocess
import sys

import pytest
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask

from spirit.lm import packed, rowed
from spirit.lm.learner import Learner, LMTrainingConfig, in_rows
from spirit.units import Kind
from spirit.vocab import Vocab
from tests.stand_ins import alone
from tests.test_lm_model import rows, tiny

# On CPUs FlexAttention is not compiled, which it says.
pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
LENGTHS = [[7, 200, 100, 45], [130, 126, 100], [384]]
ROW = 384


@pytest.fixture(scope="module")
def vocab() -> Vocab:
    units = {Kind.HUBERT: 20, Kind.PITCH: 8, Kind.STYLE: 3}
    return Vocab.build(text_tokens=50, bos=48, eos=49, units=units)


def learner(vocab: Vocab, in_rows: bool) -> Learner:
    return Learner(tiny(vocab, kv_heads=2), in_rows=in_rows)


def test_blocks_are_those_of_a_mask_over_all_pairs(vocab):
    positions = rowed.lay_out(**rows(LENGTHS, ROW, vocab)).positions
    found = rowed.mask(positions)
    first = torch.arange(ROW) - positions

    def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (first[batch, query] <= key)

    wanted = create_block_mask(visible, 3, None, ROW, ROW, device="cpu")
    assert torch.equal(found.to_dense(), wanted.to_dense())
    for count in ("kv_num_blocks", "full_kv_num_blocks", "q_num_blocks", "full_q_num_blocks"):
        assert torch.equal(getattr(found, count), getattr(wanted, count)), count
    assert found.full_kv_num_blocks.sum() > 0, "some blocks need no mask inside"


def both(vocab: Vocab, device: str) -> list[tuple[Tensor, ...]]:
    """Places, labels, losses and gradients of documents laid out in groups and in rows."""
    batch, results = rows(LENGTHS, ROW, vocab), []
    for kind in (False, True):
        one = learner(vocab, kind).to(device)
        docs = one.lay_out(batch)
        losses, _ = one(docs.to(torch.device(device)))
        losses.sum().backward()
        order = docs.origin.argsort()
        places = (docs.origin[order], docs.labels[order], losses.detach().cpu()[order])
        results.append((*places, *(p.grad for p in one.model.parameters())))
    return results


def test_rows_and_groups_find_the_same_losses_and_gradients(vocab):
    for groups, in_a_row in zip(*both(vocab, "cpu"), strict=True):
        torch.testing.assert_close(in_a_row, groups, rtol=1e-4, atol=1e-4)


def test_flex_attention_finds_the_losses_of_groups(vocab):
    batch, found = rows(LENGTHS, ROW, vocab), []
    for kind in (False, True):
        docs = learner(vocab, kind).lay_out(batch)
        with torch.no_grad():
            losses, _ = learner(vocab, kind)(docs)
        found.append(losses[docs.origin.argsort()])
    torch.testing.assert_close(*found)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_rows_and_groups_find_the_same_losses_and_gradients(vocab):
    for groups, in_a_row in zip(*both(vocab, "cuda"), strict=True):
        torch.testing.assert_close(in_a_row, groups, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("kind", [False, True], ids=["groups", "rows"])
@pytest.mark.parametrize("across", [False, True])
def test_documents_see_those_before_them_only_where_a_recipe_says_so(vocab, kind, across):
    batch = rows([[150, 100]], 256, vocab)
    one = learner(vocab, kind)
    docs = one.lay_out(batch, across)
    embedded: list[Tensor] = []

    def watch(module: torch.nn.Module, inputs: object, output: Tensor) -> None:
        output.retain_grad()
        embedded.append(output)

    one.model.get_input_embeddings().register_forward_hook(watch)
    losses, _ = one(docs)
    second = docs.origin >= 150
    losses[second].sum().backward()
    # Groups lay longer documents out first: this row's order stays.
    gradient = embedded[0].grad.flatten(0, 1).abs().sum(-1)
    seen = gradient[:150]
    assert (seen.min() > 0) if across else (seen.max() == 0)
    assert gradient[150:249].min() > 0
    assert second.sum() == 99, "the first token of a document is never asked for"


def test_a_window_of_sight_is_kept_in_groups(vocab):
    """Mistral's: what stands farther back than that is not seen."""
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, 40, 8).unbind()
    groups, layer = ((1, 40),), torch.nn.Module()
    found, _ = packed.attend(
        layer, query, key, value, None, groups=groups, scaling=0.3, sliding_window=10
    )
    gap = torch.arange(40)[:, None] - torch.arange(40)
    scores = (query @ key.mT * 0.3).masked_fill((gap < 0) | (gap >= 10), float("-inf"))
    torch.testing.assert_close(found, (scores.softmax(-1) @ value).transpose(1, 2))


def test_rows_are_refused_where_they_cannot_be(vocab):
    config = LMTrainingConfig(steps=1, lr=1e-3, attention="rows")
    model, cpu = tiny(vocab), torch.device("cpu")
    assert in_rows(model, config, cpu, 256, False)
    for row, guided, match in ((200, False, "no multiple of 128"), (256, True, "guided heads")):
        with pytest.raises(ValueError, match=match):
            in_rows(model, config, cpu, row, guided)
    auto = LMTrainingConfig(steps=1, lr=1e-3)
    assert not in_rows(model, auto, cpu, 256, False)
    assert in_rows(model, auto, torch.device("cuda"), 256, False)
    assert not in_rows(model, auto, torch.device("cuda"), 256, True)


VARIANTS = """
import copy
import torch
from torch import nn
from torch._dynamo.utils import counters
from spirit.lm import model
from spirit.lm.learner import Learner

# What dynamo does is looked at, not what a compiler makes of it.
plain = nn.Module.compile
nn.Module.compile = lambda self, **told: plain(self, backend="aot_eager", **told)
torch.manual_seed(0)
network = model.new_llama(64, 16, 3, 2, 32, positions=256).train()
settings = {"in_rows": True, "checkpointing": True}
pairs = [Learner(copy.deepcopy(network), compiled=made, **settings) for made in (False, True)]
for number in range(2):
    for rows in range(1, 6):
        ids = torch.randint(0, 64, (rows, 128))
        document = (torch.arange(128) >= torch.randint(9, 99, (rows, 1))).long()
        batch = {"ids": ids, "document": document, "labels": ids}
        found = []
        for one in pairs:
            docs = one.train().lay_out(batch)
            loss = one(docs)[0].sum()
            loss.backward()
            with torch.no_grad():
                found.append((loss.detach(), one.eval()(docs)[0].sum()))
        torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)
for ours, theirs in zip(pairs[0].parameters(), pairs[1].parameters()):
    torch.testing.assert_close(theirs.grad, ours.grad, rtol=1e-3, atol=1e-4)
print(counters["stats"]["unique_graphs"], len(counters["graph_break"]))
"""


def test_layers_share_what_is_compiled_and_every_shape_is():
    """More variants than dynamo allows by itself, which would then go on without compiling."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", VARIANTS],
        env={**alone(), "TORCHDYNAMO_DISABLE": "0"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert "recompile_limit" not in done.stderr
    graphs, breaks = map(int, done.stdout.split())
    assert 10 <= graphs < 20, "five shapes, with and without gradients, and not for every layer"
    assert breaks == 0


def test_across_documents_windows_stay_on_their_word(vocab):
    batch = rows([[10, 20]], 32, vocab)
    positions = torch.cat([torch.arange(10), torch.arange(20), torch.zeros(2, dtype=torch.long)])
    first, last = torch.zeros(2, 1, 32, dtype=torch.long).unbind()
    first[0, 18], last[0, 18] = 3, 5  # the ninth token of the second document
    batch |= {"positions": positions[None], "first": first, "last": last}
    one = learner(vocab, False)
    alone, across = one.lay_out(batch), one.lay_out(batch, across=True)
    assert alone.windows[:, 8].tolist() == [3, 5], "the longer document is laid out first"
    assert across.windows[:, 18].tolist() == [13, 15]
    assert across.windows.count_nonzero() == 2
