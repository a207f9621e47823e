"""Corpora: folders and manifests, and what is refused."""

import json
import os
from pathlib import Path

import pytest

from spirit.data.corpus import Utterance, read_corpus
from spirit.units import Word


def write(folder: Path, *entries: object) -> Path:
    path = folder / "corpus.jsonl"
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    return path


def test_a_manifest_line_becomes_an_utterance_with_its_words_and_phones(tmp_path):
    entry = {
        "id": "slt-1",
        "audio": "audio/slt-1.flac",
        "seconds": 2,
        "text": "the weather",
        "words": [
            {"text": "the", "start": 3536, "stop": 5504},
            {"text": "weather", "start": 5504, "stop": 9000, "score": 0.5},
        ],
        "speaker": "slt",
        "language": "en",
        "style": "neutral",
        "phones": [["dh", 3536, 4816]],
        "settings": {"rate": 1.1},
    }
    assert list(read_corpus(write(tmp_path, entry))) == [
        Utterance(
            "slt-1",
            tmp_path / "audio/slt-1.flac",
            2.0,
            "the weather",
            (Word("the", 3536, 5504), Word("weather", 5504, 9000, 0.5)),
            "slt",
            "en",
            "neutral",
            (Word("dh", 3536, 4816),),
        )
    ]


def test_a_manifest_needs_nothing_but_the_path_of_the_audio(tmp_path):
    path = write(tmp_path, {"audio": "b.wav"}, {"audio": "/abs/a.wav", "id": "x"})
    first, second = read_corpus(path)
    assert first == Utterance("b.wav", tmp_path / "b.wav")
    assert second == Utterance("x", Path("/abs/a.wav"))


def test_words_without_a_text_give_the_text(tmp_path):
    words = [{"text": "good", "start": 0, "stop": 9}, {"text": "day", "start": 9, "stop": 20}]
    (utterance,) = read_corpus(write(tmp_path, {"audio": "a.wav", "words": words}))
    assert utterance.text == "good day"


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ([1], "one JSON object"),
        ({}, "`audio` is missing"),
        ({"audio": 3}, "`audio` is 3, not a string"),
        ({"audio": "a.wav", "seconds": "long"}, "not a length in seconds"),
        ({"audio": "a.wav", "seconds": float("nan")}, "not a length in seconds"),
        ({"audio": "a.wav", "seconds": True}, "not a length in seconds"),
        ({"audio": "a.wav", "text": "\ud800"}, "half of a character"),
        ({"audio": "a.wav", "words": "the"}, "`words` is not a list"),
        ({"audio": "a.wav", "words": ["the"]}, "a word is an object"),
        ({"audio": "a.wav", "words": [{"text": "", "start": 0, "stop": 1}]}, "has no text"),
        ({"audio": "a.wav", "words": [{"text": "a", "start": 5, "stop": 1}]}, "'a' lies at 5..1"),
        ({"audio": "a.wav", "words": [{"text": "a", "start": 0.5, "stop": 1}]}, "are samples"),
        (
            {"audio": "a", "words": [{"text": "a", "start": 0, "stop": 1, "score": "good"}]},
            "score of a word is a number",
        ),
        (
            {
                "audio": "a",
                "words": [
                    {"text": "b", "start": 5, "stop": 6},
                    {"text": "a", "start": 1, "stop": 2},
                ],
            },
            "not in order of time at 'a'",
        ),
        ({"audio": "a.wav", "phones": [["dh", 1]]}, r"a phone is \[name, start, stop\]"),
    ],
)
def test_a_bad_line_is_one_line_with_file_and_number(tmp_path, entry, complaint):
    path = write(tmp_path, {"audio": "good.wav"}, entry)
    with pytest.raises(ValueError, match=f"corpus.jsonl:2: .*{complaint}") as caught:
        list(read_corpus(path))
    assert "\n" not in str(caught.value)


def test_a_line_that_is_no_json_is_named(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(b'{"audio": "a.wav"}\n\n{"audio": \xff}\n')
    with pytest.raises(ValueError, match=r"corpus\.jsonl:3"):
        list(read_corpus(path))


def test_an_id_may_be_used_once(tmp_path):
    path = write(tmp_path, {"id": "one", "audio": "a.wav"}, {"id": "one", "audio": "b.wav"})
    with pytest.raises(ValueError, match=r"corpus\.jsonl:2: the id 'one' was used before"):
        list(read_corpus(path))


def test_a_folder_is_read_in_order_with_transcripts(tmp_path):
    for name in ("b/z.FLAC", "b/.hidden.wav", "a.wav", "c.opus", ".git/x.wav", "notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b/z.txt").write_text("good\n  day\n")
    found = [(u.id, u.audio, u.text) for u in read_corpus(tmp_path)]
    assert found == [
        ("a.wav", tmp_path / "a.wav", ""),
        ("c.opus", tmp_path / "c.opus", ""),
        ("b/z.FLAC", tmp_path / "b/z.FLAC", "good day"),
    ]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("train.jsonl", {"audio": "a.wav", "text": "lost"}),
        ("deep/cuts.jsonl", {"type": "MonoCut", "recording": {}}),
        ("deep/wav.scp", None),
    ],
)
def test_a_manifest_among_recordings_is_not_passed_over(tmp_path, name, line):
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.wav").touch()
    (tmp_path / name).write_text("a a.wav\n" if line is None else json.dumps(line) + "\n")
    with pytest.raises(ValueError, match=f"{name} lies among the recordings.*name .*{name}, or"):
        list(read_corpus(tmp_path))


def test_lists_that_describe_no_recordings_are_left_alone(tmp_path):
    (tmp_path / "a.wav").touch()
    (tmp_path / "log.jsonl").write_text('{"step": 1}\nno JSON\n')
    refused = {"id": "b", "audio": "b.wav", "code": "missing", "reason": "no such file"}
    (tmp_path / "rejected.jsonl").write_text(json.dumps(refused))
    assert [utterance.id for utterance in read_corpus(tmp_path)] == ["a.wav"]


def test_a_name_that_is_not_utf8_gets_an_id_that_is(tmp_path):
    audio = os.fsencode(tmp_path) + b"/caf\xe9.wav"
    Path(os.fsdecode(audio)).touch()
    (utterance,) = read_corpus(tmp_path)
    assert utterance.id == "caf\\xe9.wav"
    assert utterance.audio.is_file()


def test_a_transcript_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "a.wav").touch()
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match=r"a\.txt: a transcript must be UTF-8"):
        list(read_corpus(tmp_path))


def test_a_symlink_loop_ends(tmp_path):
    (tmp_path / "a.wav").touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    assert [u.id for u in read_corpus(tmp_path)] == ["a.wav"]


def test_nothing_to_read_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no such corpus"):
        read_corpus(tmp_path / "missing")
    with pytest.raises(ValueError, match="no recordings here"):
        list(read_corpus(tmp_path))
    (tmp_path / "one.wav").touch()
    with pytest.raises(ValueError, match="is one recording"):
        read_corpus(tmp_path / "one.wav")
