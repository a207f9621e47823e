"""Long recordings become units a section at a time, and what is wrong with them shows."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from spirit import commit, prepare
from spirit.audio import MAX_SECONDS, AudioError, read_audio, read_hashed
from spirit.data.decoder import Decoder
from spirit.data.shards import read_shards
from spirit.prepare.long import Long
from spirit.sound import Sound
from spirit.speech.encoder import BEYOND, SECTION
from spirit.tokenizer import Tokenizer
from spirit.units import SAMPLE_RATE, Kind

ROOT = Path(__file__).parent.parent
SPEECH = read_audio(ROOT / "tests" / "data" / "jfk.flac")
SECONDS = 820
BASE = {"variant": "base", "rows_per_part": 8}

pytest_plugins = "tests.fixtures"


@pytest.fixture(scope="module")
def talk(tmp_path_factory):
    """Some minutes at 8 kHz, which are resampled."""
    path = tmp_path_factory.mktemp("corpus") / "talk.flac"
    soundfile.write(path, np.resize(SPEECH[::2], SECONDS * 8_000), 8_000)
    return path


@pytest.mark.parametrize("stretch", [(0, None), (77_777, None), (16_000, 813 * SAMPLE_RATE)])
def test_sections_are_the_recording(talk, stretch):
    sound = Sound(str(talk), *stretch)
    whole = read_audio(sound)
    long = Long(sound, read_hashed)
    sections = list(long)
    assert [more for _, more in sections] == [True] * (len(sections) - 1) + [False]
    size = SECTION * SAMPLE_RATE
    for number, (wave, more) in enumerate(sections):
        assert len(wave) == (SECTION + BEYOND) * SAMPLE_RATE if more else len(wave) <= 1.1 * size
        np.testing.assert_allclose(wave, whole[number * size :][: len(wave)], atol=2e-5)
    assert (long.samples, long.sha256) == (len(whole), commit.sha256(talk))


def test_a_long_recording_has_the_units_of_the_whole(talk, tokenizer, tmp_path, monkeypatch):
    heard = []
    monkeypatch.setattr(
        Decoder,
        "read_hashed",
        lambda _, audio, max_seconds=MAX_SECONDS, then=None: (
            found := read_hashed(audio, max_seconds=max_seconds),
            heard.append(found),
        )[0],
    )
    prepare.tokenize(talk.parent, tokenizer, tmp_path / "units", **BASE)
    (row,) = read_shards(tmp_path / "units")
    assert max(len(wave) for wave, _ in heard) == (SECTION + BEYOND) * SAMPLE_RATE
    assert len(heard) == 2
    wave = read_audio(talk)
    encoder = Tokenizer.load(tokenizer).encoder
    assert row.seconds == len(wave) / SAMPLE_RATE == SECONDS
    assert row.sha256 == commit.sha256(talk)
    wanted = encoder.encode(wave, [Kind.HUBERT]).by_kind[Kind.HUBERT].unit
    # Resampled stretches differ from the whole by less than 16 bits tell, and so may a few units.
    assert (row.tracks.by_kind[Kind.HUBERT].unit == wanted).mean() > 0.995


def test_what_is_wrong_at_the_end_refuses_the_whole(talk, tokenizer, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "cut.flac").write_bytes(talk.read_bytes()[:-2_000])
    wave = np.resize(SPEECH, SECONDS * SAMPLE_RATE)
    wave[-5] = np.nan
    soundfile.write(folder / "nan.wav", wave, SAMPLE_RATE, "FLOAT")
    late = [{"text": "late", "start": 0, "stop": 821 * SAMPLE_RATE}]
    lines = [
        {"id": "cut", "audio": "cut.flac"},
        {"id": "nan", "audio": "nan.wav"},
        {"id": "late", "audio": str(talk), "words": late},
        {"id": "short", "audio": str(talk), "duration": 2.0},
    ]
    corpus = folder / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(line) + "\n" for line in lines))
    report = prepare.tokenize(corpus, tokenizer, tmp_path / "units", **BASE)
    assert (report["utterances"], report["rejected"]) == (1, 3)
    said = (tmp_path / "units" / "rejected.jsonl").read_text().splitlines()
    refused = {entry["id"]: entry for entry in map(json.loads, said)}
    codes = {name: entry["code"] for name, entry in refused.items()}
    assert codes["nan"] == "nan"
    assert codes["late"] == "words_beyond_end"
    assert codes["cut"] in ("cut_short", "not_audio")
    assert all(str(folder) not in entry["reason"] for entry in refused.values())
    assert refused["nan"]["reason"].startswith("some samples are NaN")


def test_more_than_is_allowed_is_refused_before_any_work(talk):
    with pytest.raises(AudioError, match=r"talk.flac: longer than 815 seconds; cut it") as caught:
        next(iter(Long(talk, read_hashed, 815.0)))
    assert caught.value.code == "too_long"
    assert len(list(Long(talk, read_hashed, float(SECONDS)))) == 2
