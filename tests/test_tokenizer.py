"""Tokenizer folders: assembled, verified, loaded."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from spirit import config
from spirit.audio import read_audio
from spirit.codec import Document
from spirit.speech.hubert import Hubert
from spirit.speech.pitch import PitchFormat, PitchTokenizer
from spirit.speech.quantizer import KMeans
from spirit.speech.style import StyleFormat, StyleTokenizer
from spirit.tokenizer import Manifest, Tokenizer, assemble
from spirit.units import Kind

SPEECH = read_audio(Path(__file__).parent / "data" / "jfk.flac")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fitted parts, as small as they go."""
    folder = tmp_path_factory.mktemp("parts")
    torch.manual_seed(0)
    hubert = Hubert.new(
        hidden=32,
        layers=3,
        heads=2,
        ffn=32,
        conv_dim=(16, 16, 16, 16),
        conv_kernel=(20, 16, 4, 2),
        conv_stride=(10, 8, 4, 2),
    ).eval()
    for name in ("hubert", "units", "pitch", "style"):
        (folder / name).mkdir()
    hubert.save(folder / "hubert")
    (features,) = hubert.features([SPEECH], layer=2)
    KMeans(features[:: len(features) // 12][:12].clone()).save(
        folder / "units" / "units.safetensors"
    )
    form = PitchFormat(width=8, depth=1, channels=16, codes=16)
    network = form.network()
    network.codebook.vectors.normal_(std=0.1)
    PitchTokenizer(form, network, form.hear("cpu")).save(folder / "pitch")
    style = StyleFormat(names=("calm", "lively", "sad"), channels=32, hidden=8)
    StyleTokenizer(style, style.network()).save(folder / "style")
    return folder


def put_together(parts: Path, out: Path, **changes: object) -> float:
    arguments: dict[str, object] = {
        "hubert": parts / "hubert",
        "layer": 2,
        "units": parts / "units",
        "pitch": parts / "pitch",
        "style": parts / "style",
        "out": out,
        "name": "small",
        "license": "Apache-2.0",
    }
    return assemble(**{**arguments, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tokenizers") / "small"
    put_together(parts, out)
    return out


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A folder that a test may damage."""
    out = tmp_path / "copy"
    out.mkdir()
    for path in folder.iterdir():
        (out / path.name).write_bytes(path.read_bytes())
    return out


def test_a_folder_holds_everything_between_sound_and_ids(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {
        "tokenizer.toml",
        "hubert.json",
        "hubert.safetensors",
        "units.safetensors",
        "pitch.json",
        "pitch.safetensors",
        "style.json",
        "style.safetensors",
        "text.json",
        "vocab.json",
    }
    tokenizer = Tokenizer.load(folder)
    assert (tokenizer.name, tokenizer.license) == ("small", "Apache-2.0")
    assert list(tokenizer.styles) == ["calm", "lively", "sad"]
    assert tokenizer.vocab.count == {Kind.HUBERT: 12, Kind.PITCH: 16, Kind.STYLE: 3}
    assert len(tokenizer.fingerprint) == 16
    units = tokenizer.encoder.encode(SPEECH).merge()
    document = Document(("ask not", units, "what"), closed=True)
    assert tokenizer.codec.decode(tokenizer.codec.encode(document)) == document


def test_loading_gives_the_units_of_the_parts(parts: Path, folder: Path) -> None:
    hubert = Hubert.load(parts / "hubert")
    (features,) = hubert.features([SPEECH], layer=2)
    wanted = KMeans.load(parts / "units" / "units.safetensors").units(features)
    tracks = Tokenizer.load(folder).encoder.encode(SPEECH)
    assert tracks.by_kind[Kind.HUBERT].unit.tolist() == wanted.tolist()
    pitch = PitchTokenizer.load(parts / "pitch")
    (f0,) = pitch.f0([torch.from_numpy(SPEECH)])
    codes = tracks.by_kind[Kind.PITCH].unit
    assert codes.tolist() == pitch.tokens(f0, len(codes)).tolist()


def test_half_precision_is_taken_where_units_stay_the_same(parts: Path, tmp_path: Path) -> None:
    agreement = put_together(parts, tmp_path / "half", check=[SPEECH])
    put_together(parts, tmp_path / "single")
    size = {
        name: (tmp_path / name / "hubert.safetensors").stat().st_size for name in ("half", "single")
    }
    before = Tokenizer.load(tmp_path / "single").encoder.encode(SPEECH).by_kind[Kind.HUBERT].unit
    after = Tokenizer.load(tmp_path / "half").encoder.encode(SPEECH).by_kind[Kind.HUBERT].unit
    if agreement >= 0.999:
        assert size["half"] < 0.6 * size["single"]
    else:
        assert size["half"] == size["single"]
        assert (before == after).all()
    assert (before == after).mean() >= 0.999


def test_a_base_tokenizer_has_units_alone(parts: Path, tmp_path: Path) -> None:
    put_together(parts, tmp_path / "base", pitch=None, style=None)
    tokenizer = Tokenizer.load(tmp_path / "base")
    assert tokenizer.vocab.count == {Kind.HUBERT: 12}
    assert list(tokenizer.styles) == []
    assert set(tokenizer.encoder.encode(SPEECH).by_kind) == {Kind.HUBERT}


def test_the_fingerprint_is_that_of_the_content(parts: Path, folder: Path, tmp_path: Path) -> None:
    put_together(parts, tmp_path / "again", name="other name")
    put_together(parts, tmp_path / "base", style=None)
    own = Tokenizer.load(folder).fingerprint
    assert Tokenizer.load(tmp_path / "again").fingerprint == own
    assert Tokenizer.load(tmp_path / "base").fingerprint != own


def test_the_rule_for_long_recordings_is_part_of_the_fingerprint(
    parts: Path, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = config.load(copy / "tokenizer.toml", Manifest)
    assert now.windows == {"window": 40, "stride": 32, "f0_chunk": 100, "f0_least": 10}
    monkeypatch.setattr("spirit.tokenizer.WINDOWS", {**now.windows, "window": 30})
    with pytest.raises(ValueError, match=r"window 40 s, stride 32 s.*cuts them by window 30 s"):
        Tokenizer.load(copy)
    put_together(parts, tmp_path / "other")
    assert Tokenizer.load(tmp_path / "other").fingerprint != now.fingerprint
    monkeypatch.undo()
    path = tmp_path / "other" / "tokenizer.toml"
    path.write_text(path.read_text().replace("window = 30", "window = 40"))
    with pytest.raises(ValueError, match="not the vocabulary that was assembled"):
        Tokenizer.load(tmp_path / "other")


def test_a_tokenizer_without_a_rule_has_the_first_one(copy: Path) -> None:
    path = copy / "tokenizer.toml"
    before, text = Tokenizer.load(copy), path.read_text()
    start, stop = text.index("[windows]"), text.index("[files]")
    path.write_text(text[:start] + text[stop:])
    assert Tokenizer.load(copy).fingerprint == before.fingerprint


def test_assembling_again_replaces_the_folder_whole(parts: Path, copy: Path) -> None:
    (copy / "leftover").write_text("old")
    put_together(parts, copy, style=None)
    assert not (copy / "leftover").exists()
    assert not (copy / "style.json").exists()
    assert Tokenizer.load(copy).vocab.count.keys() == {Kind.HUBERT, Kind.PITCH}


def test_parts_that_do_not_fit_leave_nothing_behind(parts: Path, tmp_path: Path) -> None:
    KMeans(torch.zeros(5, 31)).save(tmp_path / "units.safetensors")
    with pytest.raises(ValueError, match="31 channels but this HuBERT has 32"):
        put_together(parts, tmp_path / "out", units=tmp_path / "units.safetensors")
    with pytest.raises(ValueError, match="layers 1 to 3, not 9"):
        put_together(parts, tmp_path / "out", layer=9)
    with pytest.raises(ValueError, match="spirit fit hubert"):
        put_together(parts, tmp_path / "out", hubert=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["units.safetensors"]


def test_what_is_no_tokenizer_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such tokenizer; give the path"):
        Tokenizer.load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"holds no tokenizer\.toml"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    "name", ["hubert.json", "hubert.safetensors", "units.safetensors", "pitch.json", "text.json"]
)
def test_a_missing_or_changed_file_is_named(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(bytes(content))
    with pytest.raises(ValueError, match=f"{name} is not the file that was assembled") as error:
        Tokenizer.load(copy)
    assert "\n" not in str(error.value)
    (copy / name).unlink()
    with pytest.raises(ValueError, match=f"{name} is missing"):
        Tokenizer.load(copy)


def test_another_vocabulary_is_noticed(parts: Path, copy: Path, tmp_path: Path) -> None:
    put_together(parts, tmp_path / "base", style=None)
    (copy / "vocab.json").write_bytes((tmp_path / "base" / "vocab.json").read_bytes())
    with pytest.raises(ValueError, match=r"vocab\.json is not the vocabulary"):
        Tokenizer.load(copy)


def test_the_manifest_is_read_strictly(copy: Path) -> None:
    path = copy / "tokenizer.toml"
    text = path.read_text()
    path.write_text("colour = 1\n" + text)
    with pytest.raises(ValueError, match="unknown key 'colour'"):
        Tokenizer.load(copy)
    path.write_text(text.replace('"hubert.json"', '"../hubert.json"'))
    with pytest.raises(ValueError, match="must lie beside"):
        Tokenizer.load(copy)
    path.write_text(text)
    manifest = config.load(path, Manifest)
    assert json.loads((copy / "pitch.json").read_text())["codes"] == 16
    assert "vocab.json" not in manifest.files


def test_an_encoder_and_a_vocabulary_must_agree(folder: Path) -> None:
    tokenizer = Tokenizer.load(folder)
    tokenizer.encoder.quantizer = KMeans(torch.from_numpy(np.zeros((13, 32), np.float32)))
    with pytest.raises(ValueError, match=r"12 hubert units but the encoder makes .*13 hubert"):
        Tokenizer(tokenizer.encoder, tokenizer.codec)
