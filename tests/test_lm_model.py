import numpy as np
import pytest
import torch

from spirit.lm import model as llama
from spirit.lm import packed
from spirit.lm.train import Learner, Modalities
from spirit.units import Kind
from spirit.vocab import Vocab


@pytest.fixture(scope="module")
def vocab() -> Vocab:
    units = {Kind.HUBERT: 20, Kind.PITCH: 8, Kind.STYLE: 3}
    return Vocab.build(text_tokens=50, bos=48, eos=49, units=units)


def tiny(vocab: Vocab, **changes: object) -> llama.LlamaForCausalLM:
    torch.manual_seed(0)
    shape = {"hidden": 32, "layers": 2, "heads": 4, "ffn": 48, **changes}
    return llama.new_llama(vocab.size, **shape)


def rows(lengths: list[list[int]], row: int, vocab: Vocab) -> dict[str, torch.Tensor]:
    """Packed rows of random documents, padded at the end."""
    rng = torch.Generator().manual_seed(1)
    shape = (len(lengths), row)
    ids = torch.randint(0, vocab.size, shape, generator=rng)
    document, labels = torch.full(shape, -1), torch.full(shape, packed.IGNORED)
    for number, parts in enumerate(lengths):
        start = 0
        for at, length in enumerate(parts):
            document[number, start : start + length] = at
            labels[number, start + 1 : start + length] = ids[number, start + 1 : start + length]
            start += length
    return {"ids": ids, "document": document, "labels": labels}


LENGTHS = [[7, 20, 5], [31, 1], [8, 8, 8]]


def test_packed_documents_get_the_losses_they_get_alone(vocab):
    batch = rows(LENGTHS, 33, vocab)
    learner = Learner(tiny(vocab, kv_heads=2))
    found, _ = learner(packed.lay_out(**batch))
    alone = []
    reference = tiny(vocab, kv_heads=2)
    for ids, document in zip(batch["ids"], batch["document"], strict=True):
        for at in range(int(document.max()) + 1):
            one = ids[document == at][None]
            if one.shape[1] > 1:
                logits = reference(input_ids=one).logits[0, :-1]
                alone.append(torch.nn.functional.cross_entropy(logits, one[0, 1:], reduction="sum"))
    assert len(found) == int((batch["labels"] != packed.IGNORED).sum())
    torch.testing.assert_close(found.sum(), torch.stack(alone).sum())


def test_packed_documents_get_the_losses_of_a_mask_over_whole_rows(vocab):
    batch = rows(LENGTHS, 33, vocab)
    found, _ = Learner(tiny(vocab))(packed.lay_out(**batch))
    document = batch["document"]
    causal = torch.ones(33, 33, dtype=torch.bool).tril()
    mask = (document[:, :, None] == document[:, None, :]) & causal
    change = torch.ones_like(document, dtype=torch.bool)
    change[:, 1:] = document[:, 1:] != document[:, :-1]
    count = torch.arange(33).expand_as(document)
    positions = count - torch.where(change, count, 0).cummax(1).values
    logits = tiny(vocab)(
        input_ids=batch["ids"], attention_mask=mask[:, None], position_ids=positions
    ).logits
    wanted = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), reduction="sum"
    )
    torch.testing.assert_close(found.sum(), wanted)


def test_the_guide_measures_the_attention_inside_the_windows():
    torch.manual_seed(0)
    heads, channels, groups = 2, 4, ((2, 5), (1, 3))
    query, key, value = torch.randn(3, 1, heads, 13, channels).unbind()
    windows = torch.zeros(2, 13, dtype=torch.long)
    windows[:, 4] = torch.tensor([1, 3])  # the last place of the first document
    windows[:, 8] = torch.tensor([0, 2])  # the fourth of the second
    windows[:, 12] = torch.tensor([2, 3])  # the last of the third looks at itself
    expected = []
    for place, start in ((4, 0), (8, 5), (12, 10)):
        seen = query[0, 0, place] @ key[0, 0, start : place + 1].T * 0.5
        first, last = windows[:, place]
        expected.append(-seen.softmax(0)[first:last].sum().log())
    layer = torch.nn.Module()
    for layer.layer_idx, loss in ((1, torch.stack(expected).mean()), (0, torch.tensor(0.0))):
        guide = packed.Guide([1], windows)
        packed.attend(layer, query, key, value, None, groups=groups, scaling=0.5, guide=guide)
        torch.testing.assert_close(guide.loss(), loss)


@pytest.mark.parametrize("length", [20, 300], ids=["own kernel", "torch's kernel"])
def test_no_gradient_flows_from_one_document_into_another(vocab, length):
    batch = rows([[length, 30]], length + 40, vocab)
    learner = Learner(tiny(vocab))
    docs = packed.lay_out(**batch)
    table = learner.model.get_input_embeddings()
    embedded = table(docs.ids[None]).detach().requires_grad_()
    hidden = learner.model.model(
        inputs_embeds=embedded, position_ids=docs.positions[None], groups=docs.groups
    ).last_hidden_state
    (longer, _), (shorter, _) = docs.groups[0], docs.groups[1]
    assert longer == shorter == 1
    longest = docs.groups[0][1]
    first, second = slice(0, longest), slice(longest, None)
    last_of_first = longest - 1
    (hidden[0, last_of_first].sum()).backward(retain_graph=True)
    assert embedded.grad is not None
    assert embedded.grad[0, first].abs().sum(-1).min() > 0
    assert embedded.grad[0, second].abs().max() == 0
    embedded.grad = None
    hidden[0, -1].sum().backward()
    assert embedded.grad[0, first].abs().max() == 0
    assert embedded.grad[0, second].abs().sum(-1).min() > 0


def test_layout_keeps_every_token_and_pads_little(vocab):
    rng = np.random.default_rng(0)
    lengths = [[int(n) for n in rng.integers(3, 60, 6)] for _ in range(20)]
    batch = rows(lengths, 400, vocab)
    docs = packed.lay_out(**batch)
    real = sum(map(sum, lengths))
    assert sum(count * length for count, length in docs.groups) == len(docs.ids)
    assert real <= len(docs.ids) <= 1.12 * real
    assert sum(count for count, _ in docs.groups) == 120
    wanted = batch["labels"][batch["labels"] != packed.IGNORED].sort().values
    assert torch.equal(docs.labels.sort().values, wanted)
    assert torch.equal(docs.ids[docs.asked + 1], docs.labels)


def test_modalities_are_reported_by_the_blocks_of_the_vocabulary(vocab):
    modalities = Modalities(vocab)
    first = vocab.first
    labels = torch.tensor([3, vocab.eos, vocab.markers["speech"], first[Kind.HUBERT] + 2])
    found = modalities.losses(torch.tensor([1.0, 2.0, 3.0, 5.0]), labels)
    assert found["text"] == 2.0
    assert found["hubert"] == 5.0
    assert found["pitch"].isnan()


def test_saved_model_says_the_same_again(vocab, tmp_path):
    model = tiny(vocab).eval()
    llama.save(tmp_path, model, vocab)
    again, same = llama.load(tmp_path)
    assert same == vocab
    assert again.config.eos_token_id == vocab.eos
    ids = torch.arange(10)[None]
    assert torch.equal(model(ids).logits, again(ids).logits)


def test_model_saved_in_half_the_bytes_is_the_model_rounded(vocab, tmp_path):
    model = tiny(vocab)
    llama.save(tmp_path, model, vocab, dtype=torch.bfloat16)
    assert (tmp_path / "model.safetensors").stat().st_size < 2.5 * model.num_parameters()
    again, _ = llama.load(tmp_path)
    for name, weight in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight.bfloat16().float())


def test_widened_model_says_the_same_of_old_ids(vocab):
    for tied in (True, False):
        model = tiny(vocab, tied=tied)
        ids = torch.arange(10)[None]
        before = model(ids).logits
        wide = Vocab.build(text_tokens=vocab.size, bos=48, eos=49, units={Kind.HUBERT: 70})
        llama.widen(model, wide)
        after = model(ids).logits
        assert after.shape[-1] == wide.size
        torch.testing.assert_close(after[..., : vocab.size], before)
        # New ids are about as likely as an average old one, none above the likeliest.
        assert (after[..., vocab.size :].amax(-1) < before.amax(-1)).all()
        rows = model.get_input_embeddings().weight[vocab.size :]
        assert rows.std(0).min() > 0


def refuse(folder, match: str) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        llama.load(folder)
    assert "\n" not in str(caught.value)


def test_incomplete_or_damaged_model_is_one_clear_line(vocab, tmp_path):
    refuse(tmp_path / "nothing", "no such model folder")
    refuse(tmp_path, "config.json is missing")
    llama.save(tmp_path / "a", tiny(vocab), vocab)
    weights = tmp_path / "a" / "model.safetensors"
    content = weights.read_bytes()
    weights.unlink()
    refuse(tmp_path / "a", "no .safetensors weights")
    weights.write_bytes(content[: len(content) // 2])
    refuse(tmp_path / "a", "does not hold a readable Llama")
    weights.write_bytes(content)
    (tmp_path / "a" / "vocab.json").unlink()
    refuse(tmp_path / "a", "vocab.json is missing")
    Vocab.build(text_tokens=500, bos=1, eos=2, units={}).save(tmp_path / "a" / "vocab.json")
    refuse(tmp_path / "a", "do not belong together")


def test_model_and_vocabulary_of_another_size_are_not_saved(vocab, tmp_path):
    other = Vocab.build(text_tokens=500, bos=1, eos=2, units={})
    with pytest.raises(ValueError, match="do not belong together"):
        llama.save(tmp_path / "a", tiny(vocab), other)
    assert not (tmp_path / "a").exists()
