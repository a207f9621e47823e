"""A released Spirit LM from its folder: G16, G25, the golden greedy ids, and broken downloads."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from transformers import LlamaConfig

from spirit.audio import read_audio
from spirit.cli import main
from spirit.codec import Codec, Document
from spirit.formats import spiritlm
from spirit.formats.checkpoints import read_folder
from spirit.formats.foreign import convert
from spirit.formats.spiritlm_model import load_llama
from spirit.formats.spiritlm_text import ReleasedText
from spirit.interop.spiritlm import get_forbidden_tokens, spiritlm_expressive
from spirit.lm.generate import generate
from spirit.pipeline import Spirit
from spirit.units import Kind, Units
from tests.released import EXPECTED, GOLDEN, GREEDY, MODELS, SLT, model_of, speaking

pytest.importorskip("sentencepiece")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A released tree that can say all it writes; read it, do not write to it."""
    return speaking(tmp_path_factory.mktemp("released"))


def text_of(variant: str) -> ReleasedText:
    return ReleasedText.load(MODELS[variant] / "tokenizer.model", spiritlm.vocab(variant))


def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / folder.name))


def beside(tree: Path, tmp_path: Path, name: str) -> Path:
    """A model's folder of its own, beside the speech tokenizer of the tree."""
    (tmp_path / "speech_tokenizer").symlink_to(tree / "speech_tokenizer")
    return copy(tree / "spiritlm_model" / name, tmp_path)


@pytest.mark.parametrize("variant", MODELS)
def test_g16_prompts_have_the_ids_of_the_release_as_strings_and_as_documents(variant):
    text = text_of(variant)
    codec = Codec(text.plain, text.vocab, text.opening)
    units = spiritlm.parse(EXPECTED["slt"][f"{variant}_string"])
    records = [record for record in GREEDY if model_of(record) == variant]
    assert len(records) == 9
    for record in records:
        segments = [units if kind == "speech" else said for kind, said in record["inputs"]]
        want = record["output_modality"].replace("arbitrary", "any")
        assert codec.prompt(segments, want).tolist() == record["prompt_ids"]
        if record["prompt"] is not None:
            assert [1, *text.encode(record["prompt"])] == record["prompt_ids"]
            assert text.decode(record["prompt_ids"]).strip() == record["prompt"]


def test_g16_a_space_stands_before_the_string_and_none_behind_a_tag():
    text = text_of("expressive")
    (space,) = text.opening
    assert text.pieces[space] == "▁"
    assert text.encode("[Text]The") == [space, 32_000, *text.plain.encode("The")]
    assert text.encode("The") == text.plain.encode(" The")
    assert text.encode("[Text] is[Hu7]") == [space, 32_000, *text.plain.encode(" is"), 32_009]
    assert text.encode("") == []
    # What only looks like a unit is text.
    assert text.encode("[Hu501]")[:1] != [32_503]
    assert text.decode(text.encode("[[Pi63]ä[Hu"))[1:] == "[[Pi63]ä[Hu"


def test_documents_of_released_ids_come_back_and_their_text_stays_text():
    text = text_of("expressive")
    codec = Codec(text.plain, text.vocab, text.opening)
    speech = Units.build([(Kind.STYLE, 99), (Kind.PITCH, 63), (Kind.HUBERT, 500)])
    for segments in (("so [Hu12] it", speech, " goes"), (speech, "[Text]"), (" a", speech)):
        document = Document(segments, closed=True)
        ids = codec.encode(document)
        assert ids[:2].tolist() == [1, *text.opening]
        assert codec.decode(ids) == document


def test_a_tokenizer_of_another_model_is_refused():
    base = MODELS["base"] / "tokenizer.model"
    with pytest.raises(ValueError, match=r"id 32503 is '\[Madeuptoken32503\]' but .* \[Pi0\]"):
        ReleasedText.load(base, spiritlm.vocab("expressive"))


@pytest.mark.parametrize("variant", MODELS)
def test_greedy_answers_are_those_of_the_release(variant):
    model = load_llama(MODELS[variant])
    assert model.dtype == torch.bfloat16
    assert model.config.max_position_embeddings == 4_096
    for record in (record for record in GREEDY if model_of(record) == variant):
        allowed = torch.ones(model.config.vocab_size, dtype=torch.bool)
        want = record["output_modality"]
        if want != "arbitrary":
            text = want == "text"
            allowed[
                get_forbidden_tokens(
                    generate_only_text=text,
                    generate_only_speech=not text,
                    ban_expressivity_tokens=text and variant == "expressive",
                )
            ] = False
            allowed[2] = True
        ids = np.array(record["prompt_ids"])
        new = generate(model, ids, allowed, max_new=40, eos=2, temperature=0.0)
        assert list(new) == record["new_ids"]


def test_g25_rope_theta_is_that_of_the_file_in_either_spelling(tmp_path):
    ids = torch.arange(5, 300)[None]

    def logits(**changes):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(MODELS["base"], folder)
        told = json.loads((folder / "config.json").read_text())
        assert told.pop("rope_theta") == 100_000.0
        (folder / "config.json").write_text(json.dumps({**told, **changes}))
        with torch.inference_mode():
            return load_llama(folder, dtype=torch.float32)(ids).logits

    with torch.inference_mode():
        released = load_llama(MODELS["base"], dtype=torch.float32)(ids).logits
    new = {"rope_parameters": {"rope_type": "default", "rope_theta": 100_000.0}}
    assert torch.equal(logits(**new), released)
    assert not torch.allclose(logits(rope_theta=10_000.0), released, atol=1e-4)


def test_g25_a_library_that_does_not_see_the_theta_is_refused(monkeypatch):
    read = LlamaConfig.from_dict
    told = {"rope_theta": 10_000.0, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
    monkeypatch.setattr(LlamaConfig, "from_dict", lambda some: read({**some, **told}))
    with pytest.raises(ValueError, match="does not honour rope_theta 100000 of"):
        load_llama(MODELS["base"])


def test_a_released_model_is_loaded_by_name_and_path_and_speaks(tree, tmp_path, monkeypatch):
    monkeypatch.setenv("SPIRITLM_CHECKPOINTS_DIR", str(tree))
    monkeypatch.chdir(tmp_path)
    spirit = Spirit.load("spirit-lm-expressive-7b", device="cpu")
    assert (spirit.speaker, spirit.model.dtype) == ("ex03", torch.bfloat16)
    assert [len(spirit.tokenizer.styles), spirit.tokenizer.vocab.size] == [100, 32_768]
    heard = spirit.hear(read_audio(SLT))
    assert str(heard) == EXPECTED["slt"]["expressive_string"]
    (answer,) = spirit.generate(["well,", heard], want="speech", max_tokens=60, seed=3)
    assert isinstance(answer, Units)
    # Speech in the middle of a stream begins with any kind of unit, and is spoken all the same.
    voice = spiritlm_expressive()
    for units in (heard, answer, heard[20:], heard[heard.kind == Kind.HUBERT]):
        said = spirit.speak(units)
        np.testing.assert_allclose(said, voice.decode(str(units)), atol=1e-6)
        assert len(said) == round(spirit.seconds(units) * 16_000)
    wave = read_audio(SLT)
    np.testing.assert_allclose(
        spirit.resynth(wave, "ex01"), voice.decode(voice.encode_units(wave), 0), atol=1e-6
    )
    assert not np.array_equal(spirit.speak(heard, "ex01"), spirit.speak(heard))
    assert not np.array_equal(spirit.speak(heard, style=3), spirit.speak(heard))
    with pytest.raises(ValueError, match=r"no speaker 'ex05'.* ex01, ex02, ex03, ex04"):
        spirit.speak(heard, "ex05")


def test_a_base_model_speaks_in_the_styles_of_its_vocoder(tree):
    spirit = Spirit.load(tree / "spiritlm_model" / "spirit-lm-base-7b", device="cpu")
    units = spirit.hear(read_audio(SLT))
    assert str(units) == EXPECTED["slt"]["base_string"]
    assert spirit.tokenizer.styles[:2] == ["s0", "s1"]
    assert np.array_equal(spirit.speak(units), spirit.speak(units, style="s8"))
    assert not np.array_equal(spirit.speak(units), spirit.speak(units, style="s0"))
    with pytest.raises(ValueError, match="hears no style in a recording; name one of s0, s1"):
        spirit.style_of(read_audio(SLT))
    answer = list(spirit.generate([units], want="text", max_tokens=10, temperature=0))
    assert [type(segment) for segment in answer] == [str]


def test_the_command_line_takes_a_released_folder(tree, tmp_path):
    model = str(tree / "spiritlm_model" / "spirit-lm-expressive-7b")
    out = tmp_path / "reply.wav"
    prompt = ["--prompt-text", "the model", "--prompt-audio", str(SLT)]
    asked = ["generate", "--model", model, *prompt, "--device", "cpu"]
    said = CliRunner().invoke(
        main, [*asked, "--want", "speech", "--seconds", "2", "--out", str(out), "--json"]
    )
    assert said.exit_code == 0, said.output
    (segment,) = json.loads(said.stdout)["segments"]
    assert segment["type"] == "speech"
    assert len(read_audio(out)) == round(segment["stop"] * 16_000) <= 2 * 16_000


def test_a_vocoder_that_knows_fewer_units_than_the_model_writes_is_one_clear_line(tmp_path):
    model = MODELS["base"]
    spirit = Spirit.load(model, device="cpu")
    assert list(spirit.generate(["so"], want="text", max_tokens=3))
    line = "hifigan_spiritlm_base knows 21 hubert units but the model writes 501"
    with pytest.raises(ValueError, match=line):
        spirit.check_voice()
    out = str(tmp_path / "reply.wav")
    asked = ["generate", "--model", str(model), "--prompt-text", "so", "--out", out]
    ran = CliRunner().invoke(main, asked)
    assert ran.exit_code == 1
    assert line in ran.output
    assert len(ran.output.splitlines()) == 1


def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers(tree):
    spirit = Spirit.load(tree / "spiritlm_model" / "spirit-lm-base-7b", device="cpu")
    units = Units.build([(Kind.HUBERT, i % 2) for i in range(4_094)])
    with pytest.raises(ValueError, match="4097 tokens but the model reads at most 4096"):
        next(spirit.generate([units], want="speech"))


def test_a_device_without_room_is_told_what_the_weights_need(monkeypatch):
    moved = torch.Tensor.to

    def full(tensor, *asked, **more):
        if asked[1:] == (torch.bfloat16,):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return moved(tensor, *asked, **more)

    monkeypatch.setattr(torch.Tensor, "to", full)
    with pytest.raises(
        ValueError, match=r"no room for the weights, \d\.\d GB.*--dtype int8"
    ) as told:
        load_llama(MODELS["base"])
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("variant", MODELS)
def test_spirit_convert_gives_the_same_model_as_safetensors(tmp_path, variant):
    converted = tmp_path / "model"
    ran = CliRunner().invoke(main, ["convert", str(MODELS[variant]), str(converted)])
    assert ran.exit_code == 0, ran.output
    assert [path.name for path in converted.glob("*.safetensors")] == ["model.safetensors"]
    assert not list(converted.glob("*.bin"))
    before, after = load_llama(MODELS[variant]).state_dict(), load_llama(converted).state_dict()
    assert set(before) == set(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(value.dtype == torch.bfloat16 for value in after.values())


def test_a_converted_tree_is_loaded_like_the_released_one(tmp_path):
    convert(GOLDEN, tmp_path / "tree")
    spirit = Spirit.load(tmp_path / "tree" / "spiritlm_model" / "spirit-lm-expressive-7b", "cpu")
    assert str(spirit.hear(read_audio(SLT))) == EXPECTED["slt"]["expressive_string"]


@pytest.mark.parametrize("share", [0.3, 0.9, 0.97])
@pytest.mark.parametrize("kind", ["pytorch_model.bin", "model.safetensors"])
def test_a_half_downloaded_model_names_its_file_and_the_first_missing_tensor(tmp_path, kind, share):
    folder = copy(MODELS["base"], tmp_path)
    path = folder / "pytorch_model.bin"
    whole = torch.load(path, weights_only=True)
    if kind == "model.safetensors":
        path.unlink()
        path = folder / kind
        save_file(whole, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ValueError, match="is missing") as caught:
        read_folder(folder, mmap=True)
    line = str(caught.value)
    assert str(path) in line
    assert "\n" not in line
    (missing,) = [name for name in whole if f"{name} is missing" in line]
    if kind == "pytorch_model.bin":  # all before it is there, and no more than that
        before = sum(whole[name].nbytes for name in list(whole)[: list(whole).index(missing)])
        headers = 200 * len(whole) + 8_192
        assert before <= len(data) * share < before + whole[missing].nbytes + headers


def test_a_download_without_its_tail_or_its_head_names_the_file(tmp_path):
    folder = copy(MODELS["base"], tmp_path)
    path = folder / "pytorch_model.bin"
    data = path.read_bytes()
    for part in (data[:-100], data[:100], b"", b"not found"):
        path.write_bytes(part)
        with pytest.raises(ValueError, match=r"pytorch_model\.bin ") as caught:
            load_llama(folder)
        assert "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(ValueError, match=r"holds no weights; it needs"):
        load_llama(folder)


def test_a_missing_part_or_tensor_is_named(tmp_path):
    folder = copy(MODELS["base"], tmp_path)
    whole = torch.load(folder / "pytorch_model.bin", weights_only=True)
    (folder / "pytorch_model.bin").unlink()
    names = list(whole)
    parts = {"model-1.safetensors": names[:9], "model-2.safetensors": names[9:]}
    for part, some in parts.items():
        save_file({name: whole[name] for name in some}, folder / part)
    index = {name: part for part, some in parts.items() for name in some}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    assert set(read_folder(folder, mmap=True)) == set(whole)
    (folder / "model-2.safetensors").unlink()
    with pytest.raises(
        ValueError, match=rf"model-2\.safetensors, which holds {names[9]}, is missing"
    ):
        load_llama(folder)
    (folder / "model.safetensors.index.json").unlink()
    lacking = {name: whole[name] for name in names if name != names[3]}
    save_file(lacking, folder / "model.safetensors")
    with pytest.raises(ValueError, match=f"lacks the weights {names[3]}"):
        load_llama(folder)
    save_file({**whole, names[3]: torch.zeros(3, 3)}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=rf"{names[3]} has the shape \(3, 3\) but config\.json"):
        load_llama(folder)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("tokenizer.model", r"tokenizer\.model: no such file"),
        ("../speech_tokenizer", "its speech_tokenizer is missing; put it beside"),
        ("config.json", r"holds no spirit\.toml"),
    ],
)
def test_a_part_that_is_not_there_is_named(tree, tmp_path, monkeypatch, path, message):
    monkeypatch.delenv("SPIRITLM_CHECKPOINTS_DIR", raising=False)
    folder = beside(tree, tmp_path, "spirit-lm-base-7b")
    assert Spirit.load(folder, device="cpu").vocoder is not None
    (folder / path).unlink()
    with pytest.raises(ValueError, match=message):
        Spirit.load(folder, device="cpu")


def test_without_its_vocoder_a_released_model_writes(tree, tmp_path):
    folder = copy(tree / "spiritlm_model" / "spirit-lm-base-7b", tmp_path)
    speech = tmp_path / "speech_tokenizer"
    shutil.copytree(tree / "speech_tokenizer", speech, ignore=shutil.ignore_patterns("hifigan*"))
    spirit = Spirit.load(folder, device="cpu")
    assert list(spirit.generate(["so"], want="text", max_tokens=3))
    with pytest.raises(ValueError, match="hifigan_spiritlm_base is missing, so this model cannot"):
        spirit.speak(Units.build([(Kind.HUBERT, 1)]))
    hubert = speech / "hubert_25hz" / "mhubert_base_25hz.pt"
    hubert.write_bytes(hubert.read_bytes()[:700_000])
    with pytest.raises(ValueError, match=r"mhubert_base_25hz\.pt is not complete: .*encoder\.lay"):
        Spirit.load(folder, device="cpu")
    hubert.unlink()
    with pytest.raises(ValueError, match=r"mhubert_base_25hz\.pt: no such file"):
        Spirit.load(folder, device="cpu")


@pytest.mark.parametrize("damage", ["cut", "other"])
def test_a_damaged_tokenizer_names_its_file(tmp_path, damage):
    data = (MODELS["base"] / "tokenizer.model").read_bytes()
    path = tmp_path / "tokenizer.model"
    path.write_bytes(data[:50_000] if damage == "cut" else b"<html>")
    with pytest.raises(ValueError, match=r"tokenizer\.model") as caught:
        ReleasedText.load(path, spiritlm.vocab("base"))
    assert "\n" not in str(caught.value)
