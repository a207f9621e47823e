"""Corpora of others: Kaldi folders and Lhotse's cuts, stretches of long files, and URLs."""

import gzip
import json
from pathlib import Path

import pytest

from spirit.data.corpus import Utterance, read_corpus
from spirit.sound import Sound
from spirit.units import Word


def kaldi(folder: Path, **tables: str) -> Path:
    """Tables of a Kaldi folder; `wav` is wav.scp."""
    for name, content in tables.items():
        (folder / ("wav.scp" if name == "wav" else name)).write_text(content, encoding="utf-8")
    return folder


def cut(**changes: object) -> dict[str, object]:
    """A cut as lhotse writes it, 1.5 s from the middle of a recording."""
    source = {"type": "file", "channels": [0], "source": "talks/a.wav"}
    recording = {
        "id": "a",
        "sources": [source],
        "sampling_rate": 16000,
        "num_samples": 160000,
        "duration": 10.0,
        "channel_ids": [0],
    }
    said = {
        "id": "a-1",
        "recording_id": "a",
        "start": 0.0,
        "duration": 1.5,
        "channel": 0,
        "text": "good day",
        "language": "English",
        "speaker": "anna",
        "alignment": {"word": [["good", 0.1, 0.4, 0.9], ["day", 0.5, 0.95, None]]},
    }
    whole = {
        "id": "a-1",
        "start": 2.0,
        "duration": 1.5,
        "channel": 0,
        "supervisions": [said],
        "recording": recording,
        "type": "MonoCut",
    }
    for part in (whole, recording, said):
        part.update({key: value for key, value in changes.items() if key in part})
    return whole


def write(path: Path, *lines: object) -> Path:
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def refused(path: Path | str, complaint: str, **options: object) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        list(read_corpus(path, **options))
    assert "\n" not in str(caught.value)


def test_a_kaldi_folder_gives_its_recordings_with_what_its_tables_say(tmp_path):
    kaldi(
        tmp_path,
        wav="a1 b/one.wav\na2  /abs/two words.flac\nb1\t../three.wav\n",
        text="a1 guten  tag\nb1 ça va\n",
        utt2spk="a1 anna\na2 anna\nb1 ben\n",
        utt2lang="a1 de\nb1 fr\n",
    )
    expected = [
        Utterance("a1", tmp_path / "b/one.wav", None, "guten  tag", (), "anna", "de"),
        Utterance("a2", Path("/abs/two words.flac"), speaker="anna"),
        Utterance("b1", tmp_path / "../three.wav", None, "ça va", (), "ben", "fr"),
    ]
    assert list(read_corpus(tmp_path)) == expected
    assert list(read_corpus(tmp_path / "wav.scp")) == expected
    (first, *_) = read_corpus(tmp_path, root=Path("/data"))
    assert first.audio == Path("/data/b/one.wav")


def test_kaldi_segments_are_stretches_of_recordings(tmp_path):
    kaldi(
        tmp_path,
        wav="call-2 2.wav\ncall-1 1.wav\n",
        segments="u1 call-1 0.5 2.25\nu2 call-2 3 -1\nu3 call-1 2.25 4\n",
        text="u3 yes\n",
    )
    with pytest.raises(ValueError, match=r"wav\.scp:2: 'call-1' comes after 'call-2'; sort"):
        list(read_corpus(tmp_path))
    kaldi(tmp_path, wav="call-1 1.wav\ncall-2 2.wav\n")
    one, two = str(tmp_path / "1.wav"), str(tmp_path / "2.wav")
    assert list(read_corpus(tmp_path)) == [
        Utterance("u1", Sound(one, 8_000, 36_000), 1.75),
        Utterance("u2", Sound(two, 48_000)),
        Utterance("u3", Sound(one, 36_000, 64_000), 1.75, "yes"),
    ]


@pytest.mark.parametrize(
    ("tables", "complaint"),
    [
        ({"wav": "a sph2pipe -f wav a.sph |\n"}, r"wav\.scp:1: a command with a pipe is not run"),
        ({"wav": "a | touch hacked\n"}, "a command with a pipe is not run"),
        ({"wav": "a raw.ark:17\n"}, "an archive is not read"),
        ({"wav": "a\n"}, "the path of the recording is missing"),
        ({"wav": "b 1.wav\na 2.wav\n"}, r"wav\.scp:2: 'a' comes after 'b'; sort the table"),
        ({"wav": "a 1.wav\na 2.wav\n"}, "the id 'a' was used before"),
        ({"wav": "a 1.wav\nb 2.wav\n", "text": "b x\na y\n"}, r"text:2: 'a' comes after 'b'"),
        ({"segments": "u other 0 1\n"}, r"segments:1: the recording 'other' is not in wav\.scp"),
        ({"segments": "u a 2 1\n"}, "segments:1: -1 s from 2 s on are no stretch"),
        ({"segments": "u a -1 1\n"}, "2 s from -1 s on are no stretch"),
        ({"segments": "u a 1 1\n"}, "0 s from 1 s on are no stretch"),
        ({"segments": "u a 0 nan\n"}, "segments:1: "),
        ({"segments": "u a 0\n"}, "a segment is its id, a recording, start and end"),
        ({"segments": "u a 0 x\n"}, "segments:1: could not convert string"),
        ({"wav": "a \0.wav\n"}, "cannot be the name of a file"),
        ({"wav": "a\x07 1.wav\n"}, "control character"),
    ],
)
def test_a_bad_kaldi_folder_is_one_line_with_file_and_number(
    tmp_path, monkeypatch, tables, complaint
):
    monkeypatch.chdir(tmp_path)
    refused(kaldi(tmp_path, **{"wav": "a 1.wav\n", **tables}), complaint)
    assert not (tmp_path / "hacked").exists()


def test_a_cut_is_a_stretch_with_its_words(tmp_path):
    for name in ("cuts.jsonl", "cuts.jsonl.gz"):
        (utterance,) = read_corpus(write(tmp_path / name, cut()))
        assert utterance == Utterance(
            "a-1",
            Sound(str(tmp_path / "talks/a.wav"), 32_000, 56_000),
            1.5,
            "good day",
            (Word("good", 1_600, 8_000, 0.9), Word("day", 8_000, 23_200)),
            "anna",
            "English",
        )


def test_silence_in_an_alignment_is_no_word_and_late_words_end_with_the_cut(tmp_path):
    words = [["", 0.0, 0.2], ["good", 0.2, 0.4], ["", 0.6, 0.9], ["day", 1.52, 0.03]]
    (utterance,) = read_corpus(write(tmp_path / "c.jsonl", cut(alignment={"word": words})))
    assert utterance.words == (Word("good", 3_200, 9_600), Word("day", 24_000, 24_000))


def test_a_cut_of_all_of_a_recording_is_the_file(tmp_path):
    (utterance,) = read_corpus(write(tmp_path / "c.jsonl", cut(start=0, duration=10.0)))
    assert utterance.audio == tmp_path / "talks/a.wav"


def test_the_supervisions_of_a_cut_are_joined_in_order_of_time(tmp_path):
    said = [{"start": 1.0, "text": "b", "speaker": "x"}, {"start": 0, "text": "a", "speaker": "y"}]
    (utterance,) = read_corpus(write(tmp_path / "c.jsonl", cut(supervisions=said)))
    assert (utterance.text, utterance.speaker) == ("a b", "")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"type": "MixedCut"}, "is MixedCut; only MonoCuts"),
        ({"recording": None}, "only MonoCuts with their recording"),
        ({"duration": -1.0}, "-1 s from 2 s on are no stretch"),
        ({"start": "soon"}, "`start` is 'soon', not a time"),
        ({"sources": []}, "the recording has 0 sources"),
        (
            {"sources": [{"type": "command", "channels": [0], "source": "sox a - |"}]},
            "the source is of type 'command'; only file and url",
        ),
        ({"channel_ids": [0, 1]}, "one channel of several"),
        ({"supervisions": [3]}, "a supervision is one JSON object"),
        ({"alignment": {"word": [["late", 1.4, 0.5]]}}, "'late' at 1.4 s lies outside of its cut"),
        ({"alignment": {"word": [["late"]]}}, "a word is"),
        ({"id": "a\nb"}, r"the id 'a\\nb' holds a control character"),
    ],
)
def test_a_bad_cut_is_one_line_with_file_and_number(tmp_path, changes, complaint):
    refused(
        write(tmp_path / "c.jsonl", {**cut(), "id": "good"}, cut(**changes)),
        rf"c\.jsonl:2: .*{complaint}",
    )


def test_a_gz_that_is_torn_is_named(tmp_path):
    lines = [{"audio": f"{i * 7919 % 1000}.wav", "text": str(i**5)} for i in range(1000)]
    path = write(tmp_path / "c.jsonl.gz", *lines)
    assert len(list(read_corpus(path))) == 1000
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(path, r"c\.jsonl\.gz:\d+: the rest cannot be unpacked .*copy it again")
    path.write_bytes(b"{}")
    refused(path, r"c\.jsonl\.gz:1: the rest cannot be unpacked")


def test_a_manifest_may_name_stretches_in_seconds(tmp_path):
    path = write(
        tmp_path / "c.jsonl",
        {"id": "a", "audio": "../long.wav", "start": 1.5, "duration": 2},
        {"id": "b", "audio": "long.wav", "start": 3600},
        {"id": "c", "audio": "long.wav", "duration": 0.5, "text": "so"},
    )
    where = str(tmp_path / "long.wav")
    assert list(read_corpus(path)) == [
        Utterance("a", Sound(str(tmp_path / "../long.wav"), 24_000, 56_000), 2.0),
        Utterance("b", Sound(where, 57_600_000)),
        Utterance("c", Sound(where, 0, 8_000), 0.5, "so"),
    ]


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ({"start": -1, "duration": 1}, "`start` is -1, not a length"),
        ({"start": 1, "duration": -1}, "`duration` is -1, not a length"),
        ({"start": 1, "duration": 0}, "0 s from 1 s on are no stretch"),
        ({"audio": "nothing://a.wav"}, "nothing:// cannot be read here: Protocol not known"),
        ({"id": "a\r\nb"}, "holds a control character"),
    ],
)
def test_a_bad_stretch_is_one_line(tmp_path, entry, complaint):
    refused(write(tmp_path / "c.jsonl", {"audio": "a.wav", **entry}), rf"c\.jsonl:1: .*{complaint}")


def test_the_package_behind_a_protocol_is_missed_before_the_work_begins(tmp_path, monkeypatch):
    import fsspec

    def missing(protocol: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    path = write(tmp_path / "c.jsonl", {"audio": "s3a://bucket/a.wav"})
    refused(path, "s3a:// cannot be read here: Install s3fs")


def test_urls_are_kept_and_a_manifest_may_be_one(tmp_path):
    import fsspec

    with fsspec.open("memory://corpora/c.jsonl", "w") as file:
        file.write('{"audio": "sub/a.wav"}\n{"audio": "file:///b.wav", "start": 1}\n')
    first, second = read_corpus("memory://corpora/c.jsonl")
    assert first.audio == Sound("memory://corpora/sub/a.wav")
    assert second.audio == Sound("file:///b.wav", 16_000)


def test_what_kind_of_corpus_a_path_is_is_never_guessed(tmp_path):
    (tmp_path / "list.csv").write_text("a.wav\n")
    refused(tmp_path / "list.csv", r"list\.csv: what kind of corpus this is does not show; give")
    refused(tmp_path / "no.jsonl", "no such corpus; give a folder of audio, a Kaldi data folder")
    refused(tmp_path, "no recordings here")
    recordings = {"id": "r", "sources": [], "sampling_rate": 16000}
    refused(write(tmp_path / "r.jsonl", recordings), "is no cut; only MonoCuts")
    refused(tmp_path / "r.jsonl", "'words' is no column to name", columns={"words": "w"})


def test_a_name_with_a_line_break_gets_an_id_of_one_line(tmp_path):
    (tmp_path / "a\nb.wav").touch()
    (utterance,) = read_corpus(tmp_path)
    assert utterance.id == "a\\x0ab.wav"
    assert utterance.audio == tmp_path / "a\nb.wav"
