"""Parquet as a corpus: bytes are decoded where they lie, and no column is guessed."""

import hashlib
import io
import os
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import soundfile
from pyarrow import parquet

from spirit.audio import AudioError, read_audio, read_hashed
from spirit.data.corpus import Utterance, read_corpus
from spirit.sound import Sound

RATE = 16_000
SOUND = pyarrow.struct([("bytes", "binary"), ("path", "string")])


def tone(hertz: int, seconds: float = 0.25) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype("f4")


def flac(wave: np.ndarray) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, wave, RATE, format="FLAC")
    return stream.getvalue()


def write(
    path: Path, audio: list[object], form: object = SOUND, group: int = 2, **columns: list
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = {"audio": pyarrow.array(audio, type=form), **columns}
    parquet.write_table(pyarrow.table(table), path, row_group_size=group)
    return path


def refused(path: Path, complaint: str, **options: object) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        list(read_corpus(path, **options))
    assert "\n" not in str(caught.value)


def test_rows_are_utterances_and_their_bytes_are_heard_from_memory(tmp_path):
    waves = [tone(200 + 50 * i, 0.2 + 0.1 * i) for i in range(5)]
    audio = [{"bytes": flac(wave), "path": f"../../{i}.flac"} for i, wave in enumerate(waves)]
    path = write(
        tmp_path / "train-00000.parquet",
        audio,
        sentence=list("abcde"),
        speaker_id=[7, 7, 8, 8, 9],
        seconds=[0.2 + 0.1 * i for i in range(5)],
        locale=["en"] * 5,
    )
    before = sorted(os.walk(tmp_path.parent))
    found = list(read_corpus(path))
    assert found[1] == Utterance(
        "train-00000.parquet#1",
        Sound(str(path), row=1, column="audio"),
        0.2 + 0.1 * 1,
        "b",
        speaker="7",
        language="en",
    )
    for utterance, wave, entry in zip(found, waves, audio, strict=True):
        heard, digest = read_hashed(utterance.audio)
        np.testing.assert_allclose(heard, wave, atol=1e-4)
        assert digest == hashlib.sha256(entry["bytes"]).hexdigest()
    assert sorted(os.walk(tmp_path.parent)) == before


def test_a_folder_of_files_is_read_in_order_and_names_rows_by_file(tmp_path):
    for name in ("b/1.parquet", "a/2.parquet"):
        write(tmp_path / name, [{"bytes": b"x", "path": None}] * 3)
    assert [u.id for u in read_corpus(tmp_path)] == [
        *(f"a/2.parquet#{i}" for i in range(3)),
        *(f"b/1.parquet#{i}" for i in range(3)),
    ]


def test_rows_without_bytes_name_files(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(300), RATE)
    path = write(tmp_path / "x.parquet", [{"bytes": None, "path": "a.wav"}])
    (utterance,) = read_corpus(path)
    assert len(read_audio(utterance.audio)) == len(tone(300))
    plain = write(tmp_path / "y.parquet", ["a.wav", "file:///b.wav"], "string", id=["p", "q"])
    one, two = read_corpus(plain)
    assert (one.id, one.audio) == ("p", tmp_path / "a.wav")
    assert two.audio == Sound("file:///b.wav")


def test_options_name_columns(tmp_path):
    audio = [{"bytes": b"x", "path": None}]
    path = write(tmp_path / "x.parquet", audio, text=["raw"], sentence=["Raw."], who=["me"])
    refused(path, r"x\.parquet: has text and sentence; say which: --column text=text")
    (utterance,) = read_corpus(path, columns={"text": "sentence", "speaker": "who"})
    assert (utterance.text, utterance.speaker) == ("Raw.", "me")
    refused(path, "has no column 'words'; there are audio, text", columns={"text": "words"})


def test_what_is_no_corpus_is_one_line(tmp_path):
    audio = [{"bytes": b"x", "path": None}] * 2
    no_sound = write(tmp_path / "n.parquet", [1], "int64")
    refused(no_sound, r"n\.parquet: the column 'audio' is int64; sound is a struct of bytes")
    parquet.write_table(pyarrow.table({"text": ["a"]}), no_sound)
    refused(no_sound, r"n\.parquet: has no column of sound, but text; say which: --column audio")
    torn = write(tmp_path / "t.parquet", audio)
    torn.write_bytes(torn.read_bytes()[:-9])
    refused(torn, r"t\.parquet: cannot be read as Parquet")
    refused(write(tmp_path / "d.parquet", audio, id=["a", "a"]), r"row 1: the id 'a' was used")
    refused(write(tmp_path / "l.parquet", audio, id=["a", "b\n"]), r"row 1: .* control character")
    refused(write(tmp_path / "s.parquet", audio, text=[1, 2]), "row 0: `text` is 1, not a string")


def test_splits_and_other_recordings_are_not_mixed_in_silence(tmp_path):
    for name in ("train-00000-of-00001.parquet", "test-00000-of-00001.parquet"):
        write(tmp_path / "data" / name, [{"bytes": b"x", "path": None}])
    refused(tmp_path, "holds the splits test, train; name one file")
    write(tmp_path / "more" / "x.parquet", [{"bytes": b"x", "path": None}])
    (tmp_path / "more" / "a.wav").touch()
    refused(tmp_path / "more", "holds both recordings and Parquet files")
    (tmp_path / "more" / "wav.scp").touch()
    refused(tmp_path / "more", r"holds both wav\.scp and Parquet files")


def test_bytes_that_are_no_sound_are_refused_by_row(tmp_path):
    audio = [{"bytes": b"text", "path": None}, {"bytes": None, "path": None}, None]
    found = [u.audio for u in read_corpus(write(tmp_path / "x.parquet", audio))]
    for sound, code in zip(found, ("not_audio", "missing", "missing"), strict=True):
        with pytest.raises(AudioError, match=rf"x\.parquet row {sound.row}: ") as caught:
            read_audio(sound)
        assert caught.value.code == code
