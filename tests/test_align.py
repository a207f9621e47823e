"""Word times: near the truth, spelled as the text, gated, and the same however often stopped."""

import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import transformers
from click.testing import CliRunner

from spirit.align import Choice, align
from spirit.align import ctc as ctc_module
from spirit.align.aligner import Unaligned, check, spell
from spirit.align.ctc import CTC, align_words
from spirit.align.given import Given
from spirit.align.pronounce import read_letters
from spirit.align.sphinx import Pocketsphinx
from spirit.align.textgrid import read_textgrid
from spirit.audio import read_audio
from spirit.cli import main
from spirit.data.parts import Row
from spirit.data.shards import read_shards, verify, write_shards
from spirit.units import SAMPLE_RATE, Kind, Track, Tracks, Word
from spirit.vocab import Vocab

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "recipes/tiny"))

import voices  # noqa: E402

needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")

JFK = ROOT / "tests" / "data" / "jfk.flac"
WAVE = read_audio(JFK)
SAID = "And so, my fellow Americans:"
VOCAB = Vocab.build(259, 256, 257, {Kind.HUBERT: 20, Kind.PITCH: 8, Kind.STYLE: 4})
SENTENCES = (
    "the weather in paris is often cold",
    "people walk slowly along the river",
    "she bought seven green apples on monday",
    "please call my brother before dinner",
    "nobody knows when the train will leave",
    "we found an old letter under the chair",
)


def utterance(name: str, text: str, words: tuple[Word, ...] = (), audio: Path = JFK) -> Row:
    units = {Kind.HUBERT: [1, 2, 2, 3] * 15, Kind.PITCH: [4, 5] * 15, Kind.STYLE: [1, 2, 3]}
    hops = {Kind.HUBERT: 640, Kind.PITCH: 1280, Kind.STYLE: 16_000}
    tracks = {kind: Track(kind, np.array(unit), hops[kind]) for kind, unit in units.items()}
    seconds = soundfile.info(audio).duration
    return Row(name, str(audio), seconds, text, words, "jfk", "en", "calm", Tracks(tracks))


def shards(folder: Path, rows: Sequence[Row]) -> Path:
    write_shards(folder, rows, VOCAB, tokenizer="feed", rows_per_part=2)
    return folder


def times(path: Path, **texts: str) -> Path:
    """A JSONL file with a word each tenth of a second."""
    lines = []
    for name, text in texts.items():
        spots = [
            {"text": word, "start": 1600 * i, "stop": 1600 * i + 800}
            for i, word in enumerate(text.split())
        ]
        lines.append(json.dumps({"id": name, "words": spots}) + "\n")
    path.write_text("".join(lines))
    return path


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def reasons(folder: Path) -> dict[str, str]:
    lines = (folder / "unaligned.jsonl").read_text().splitlines()
    return {entry["id"]: entry["reason"] for entry in map(json.loads, lines)}


def refused(aligner, words: Sequence[str], wave=WAVE) -> str:
    with pytest.raises(Unaligned) as caught:
        aligner("a", words, lambda: wave)
    return caught.value.reason


# pocketsphinx


@pytest.fixture(scope="module")
def sphinx() -> Pocketsphinx:
    return Pocketsphinx()


@needs_flite
def test_pocketsphinx_is_within_40_ms_of_what_a_voice_says_it_did(sphinx, tmp_path) -> None:
    alone = voices.pronunciations(sorted({word for text in SENTENCES for word in text.split()}))
    errors = []
    for text, voice in zip(SENTENCES, itertools.cycle(("slt", "awb", "kal16"))):
        wave, phones = voices.speak(
            text, voice, voices.Settings(*voices.VOICES[voice], 1.0), tmp_path
        )
        truth = voices.locate(text, phones, alone)
        found = sphinx("a", text.split(), lambda wave=wave: wave)
        assert [word.text for word in found] == text.split()
        assert np.mean([word.score for word in found]) > 0.6
        for word, (_, start, stop) in zip(found, truth, strict=True):
            errors += [word.start - start, word.stop - stop]
    assert np.median(np.abs(errors)) <= 0.04 * SAMPLE_RATE


def test_an_utterance_is_aligned_the_same_after_any_other(sphinx) -> None:
    words = ["And", "so,", "my", "fellow", "Americans:"]
    fresh = sphinx("a", words, lambda: WAVE)
    assert [word.text for word in fresh] == words
    noise = 0.1 * np.random.default_rng(0).normal(size=SAMPLE_RATE).astype(np.float32)
    refused(sphinx, ["blorpy"] * 40, noise)
    assert sphinx("a", words, lambda: WAVE) == fresh
    assert Pocketsphinx()("a", words, lambda: WAVE) == fresh


def test_other_words_than_were_said_are_below_the_gate_or_do_not_fit(sphinx) -> None:
    right = sphinx("a", SAID.split(), lambda: WAVE)
    assert min(word.score for word in right) > sphinx.gate
    found = sphinx("a", ["and", "so", "my", "old", "brother", "in", "law"], lambda: WAVE)
    assert min(word.score for word in found) < sphinx.gate
    assert refused(sphinx, ["five", "cups", "of", "tea", "for", "everybody"]) == "not found"


def test_words_that_no_dictionary_lists_are_read_by_letters(sphinx) -> None:
    words = ["Ænd", "sow", "my", "fella", "Amerricanns’s"]
    assert refused(sphinx, words) == "unknown word"  # æ is no letter with an accent
    found = sphinx("a", ["Ánd", "sew-so", "mmy", "fellough", "Amerricanns’s"], lambda: WAVE)
    assert [word.start for word in found] == sorted(word.start for word in found)
    assert refused(sphinx, ["and", "40", "fellows"]) == "unknown word"
    assert refused(sphinx, ["Здравствуй"]) == "unknown word"


@pytest.mark.parametrize(
    ("letters", "phones"),
    [
        ("blorp", "B L AO R P"),
        ("nation", "N AE SH AH N"),
        ("bitter", "B IH T ER"),
        ("cake", "K AE K"),
    ],
)
def test_letters_are_read_by_the_longest_rule(letters: str, phones: str) -> None:
    assert read_letters(letters) == phones


def test_nothing_is_not_aligned(sphinx) -> None:
    for wave in (np.zeros(1, np.float32), np.zeros(8_000, np.float32)):
        assert refused(sphinx, ["and", "so", "my", "fellow"], wave) == "not found"
    assert refused(sphinx, ["so"], np.zeros(1_201 * SAMPLE_RATE, np.float32)) == "too long"


# CTC


def collapse(path: Sequence[int], blank: int) -> list[int]:
    return [unit for unit, _ in itertools.groupby(path) if unit != blank]


@pytest.mark.parametrize("words", [[[1, 2], [3]], [[1, 1], [2]], [[3], [3]], [[2, 1, 3]]])
@pytest.mark.parametrize("delimiter", [None, 3])
def test_ctc_takes_the_best_of_all_paths(words, delimiter) -> None:
    generator = torch.Generator().manual_seed(len(words) + sum(map(sum, words)))
    emissions = (2 * torch.randn(7, 4, generator=generator)).log_softmax(-1)
    between = [] if delimiter is None else [delimiter]
    targets = [*words[0], *(id for word in words[1:] for id in (*between, *word))]
    paths = [p for p in itertools.product(range(4), repeat=7) if collapse(p, 0) == targets]
    best = max(paths, key=lambda path: sum(float(emissions[t, id]) for t, id in enumerate(path)))
    spans = []
    starts = [t for t, id in enumerate(best) if id and (not t or best[t - 1] != id)]
    for number, word in enumerate(words):
        position = sum(len(w) + len(between) for w in words[:number])
        first, last = starts[position], starts[position + len(word) - 1]
        while last + 1 < 7 and best[last + 1] == word[-1]:
            last += 1
        probabilities = [float(emissions[t, best[t]].exp()) for t in range(first, last + 1)]
        spans.append((first, last + 1, pytest.approx(np.mean(probabilities), abs=1e-6)))
    assert align_words(emissions, words, 0, delimiter) == spans


def test_ctc_needs_a_frame_for_each_character_and_between_equal_ones() -> None:
    emissions = torch.zeros(3, 4).log_softmax(-1)
    assert [span[:2] for span in align_words(emissions, [[1, 1]], 0)] == [(0, 3)]
    with pytest.raises(Unaligned, match="3 frames of sound for 3 characters"):
        align_words(emissions, [[1, 1], [2]], 0)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A wav2vec 2.0 with a CTC head, as small as it goes, as its authors would publish it."""
    folder = tmp_path_factory.mktemp("ctc")
    torch.manual_seed(0)
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAOINHSRDLUMWCFGYPBVK'XJQZ"]
    shape = transformers.Wav2Vec2Config(
        vocab_size=len(letters),
        hidden_size=16,
        num_hidden_layers=0,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(8, 8, 8),
        conv_kernel=(10, 8, 4),
        conv_stride=(5, 8, 8),
        feat_extract_norm="layer",
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        pad_token_id=0,
    )
    transformers.Wav2Vec2ForCTC(shape).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({c: i for i, c in enumerate(letters)}))
    (folder / "preprocessor_config.json").write_text('{"do_normalize": true}')
    return folder


def test_a_ctc_folder_aligns_characters_as_written_or_as_the_model_writes_them(model) -> None:
    aligner = CTC.load(model)
    found = aligner("a", ["And", "só,", "fellow!"], lambda: WAVE)
    assert [word.text for word in found] == ["And", "só,", "fellow!"]
    again = aligner("a", ["AND", "SO", "FELLOW"], lambda: WAVE)
    for one, other in zip(again, found, strict=True):
        assert (one.start, one.stop, one.score) == (other.start, other.stop, other.score)
    places = [at for word in found for at in (word.start, word.stop)]
    assert places == sorted(places)
    assert all(0 < word.score <= 1 for word in found)
    assert refused(aligner, ["40"]) == "unknown word"
    assert refused(aligner, ["fellow"], WAVE[:900]) == "not found"
    assert refused(aligner, ["fellow"], WAVE[:10]) == "not found"
    assert refused(aligner, ["so"], np.zeros(1_201 * SAMPLE_RATE, np.float32)) == "too long"


def test_chunks_of_a_long_recording_join_without_a_seam(model, monkeypatch) -> None:
    aligner = CTC.load(model)
    whole = aligner.emissions(WAVE)
    normal = torch.from_numpy((WAVE - WAVE.mean()) / np.sqrt(WAVE.var() + 1e-7))
    with torch.inference_mode():
        theirs = aligner.network(normal[None]).logits[0].log_softmax(-1)
    torch.testing.assert_close(whole, theirs, atol=1e-4, rtol=0)
    monkeypatch.setattr(ctc_module, "CHUNK", 1)
    monkeypatch.setattr(ctc_module, "CONTEXT", 0.5)
    torch.testing.assert_close(aligner.emissions(WAVE), whole, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("file", "text", "complaint"),
    [
        ("vocab.json", '{"eng": {"a": 1}}', "no table of characters"),
        ("vocab.json", '{"a": 99}', "does not fit the 32 outputs"),
        ("vocab.json", "{", "cannot be read as JSON"),
        ("config.json", '{"model_type": "bert"}', "a model of the type 'bert'"),
        ("preprocessor_config.json", '{"sampling_rate": 8000}', "hears 8000 Hz"),
    ],
)
def test_a_folder_that_is_no_ctc_model_is_refused(model, tmp_path, file, text, complaint) -> None:
    shutil.copytree(model, tmp_path / "ctc")
    (tmp_path / "ctc" / file).write_text(text)
    with pytest.raises(ValueError, match=complaint):
        CTC.load(tmp_path / "ctc")


def test_a_model_without_a_ctc_head_is_refused(model, tmp_path) -> None:
    shutil.copytree(model, tmp_path / "ctc")
    network = transformers.Wav2Vec2ForCTC.from_pretrained(model).wav2vec2
    network.save_pretrained(tmp_path / "ctc")
    with pytest.raises(ValueError, match="no CTC head"):
        CTC.load(tmp_path / "ctc")


# times from files

LONG = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 2.5
tiers? <exists>
size = 3
item []:
    item [1]:
        class = "TextTier"
        name = "marks"
        xmin = 0
        xmax = 2.5
        points: size = 1
        points [1]:
            number = 0.5
            mark = "a ""click"" at 0.5"
    item [2]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 2.5
        intervals: size = 1
        intervals [1]:
            xmin = 0
            xmax = 2.5
            text = "AH"
    item [3]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 2.5
        intervals: size = 4
        intervals [1]:
            xmin = 0
            xmax = 0.25
            text = ""
        intervals [2]:
            xmin = 0.25
            xmax = 0.5
            text = "só ""so"" "
        intervals [3]:
            xmin = 0.5
            xmax = 0.75
            text = "sil"
        intervals [4]:
            xmin = 0.75
            xmax = 2.5e0
            text = "1 2 go!"
"""
SHORT = """File type = "ooTextFile"
Object class = "TextGrid"

0
2.5
<exists>
1
"IntervalTier"
"words"
0 2.5 ! a comment with a "quote"
3
0
0.25
""
0.25
0.5
"só ""so"" "
0.75
2.5
"1 2 go!"
"""
GRID = [Word('só "so"', 4_000, 8_000), Word("1 2 go!", 12_000, 40_000)]


@pytest.mark.parametrize("text", [LONG, SHORT])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_textgrids_are_read_in_both_formats_and_encodings(tmp_path, text, encoding) -> None:
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    (tmp_path / "a.TextGrid").write_bytes((mark + text).encode(encoding))
    assert read_textgrid(tmp_path / "a.TextGrid") == GRID
    assert read_textgrid(tmp_path / "a.TextGrid", "words") == GRID


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "cut short"),
        (LONG[:300], "cut short"),
        ("hello", "cut short"),
        ('"ooTextFile" "Sound"', "does not begin as a TextGrid"),
        (SHORT.replace("<exists>", "<absent>"), "no tiers"),
        (SHORT.replace('"words"', '"speech"'), "give --tier, one of speech"),
        (SHORT.replace("0.25\n0.5", '"x"\n0.5'), "'x' stands where a number is due"),
        (SHORT.replace('"1 2 go!"', "12"), "12 stands where a label is due"),
        (SHORT.replace("IntervalTier", "PitchTier"), "a tier of the class 'PitchTier'"),
        (SHORT.replace("0.5", "1e999"), "infinity"),
        ("\udcff\udcfe\udc80", "neither UTF-8 nor UTF-16"),
    ],
)
def test_a_bad_textgrid_is_an_error_with_its_name(tmp_path, text, complaint) -> None:
    path = tmp_path / "a.TextGrid"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=complaint) as caught:
        read_textgrid(path)
    assert str(caught.value).startswith(f"{path}: ")


def no_sound():
    raise AssertionError("times from files need no recording")


def test_a_folder_of_textgrids_is_matched_by_id_with_or_without_the_suffix(tmp_path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.TextGrid").write_text(SHORT)
    (tmp_path / "b.wav.textgrid").write_text(SHORT)
    (tmp_path / "broken.TextGrid").write_text(SHORT[:99])
    given = Given(tmp_path)
    for name in ("deep/a", "deep/a.flac", "b.wav"):
        assert given(name, [], no_sound) == GRID
    with pytest.raises(Unaligned, match=r"bad times: .*broken\.TextGrid"):
        given("broken", [], no_sound)
    with pytest.raises(Unaligned, match="no times"):
        given("a", [], no_sound)
    assert Given(tmp_path / "deep" / "a.TextGrid")("a.wav", [], no_sound) == GRID


CTM = """;; utterance channel start duration word confidence
a 1 0.25 0.25 so 0.5
a 1 0.75 1.75 gö

deep/b A 0 .5 my
"""


def test_ctm_and_jsonl_give_the_words_of_an_id(tmp_path) -> None:
    (tmp_path / "x.ctm").write_text(CTM)
    given = Given(tmp_path / "x.ctm")
    assert given("a", [], no_sound) == [Word("so", 4_000, 8_000, 0.5), Word("gö", 12_000, 40_000)]
    assert given("deep/b.wav", [], no_sound) == [Word("my", 0, 8_000)]
    given = Given(times(tmp_path / "x.jsonl", a="sö what", b="my"))
    assert given("b", [], no_sound) == [Word("my", 0, 800)]
    assert given("a.wav", [], no_sound) == [Word("sö", 0, 800), Word("what", 1600, 2400)]
    with pytest.raises(Unaligned, match="no times"):
        given("c", [], no_sound)


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("x.ctm", "a 1 0 1", r"x\.ctm:1: 4 fields"),
        ("x.ctm", ";;\na 1 zero 1 so", r"x\.ctm:2: could not convert"),
        ("x.ctm", "a 1 0 -1 so", r"x\.ctm:1: 'so' starts at 0\.0 s and takes -1\.0 s"),
        ("x.ctm", "a 1 0 nan so", "takes nan s"),
        ("x.ctm", "a 1 0 1 so 1.5", "confidence of 'so' is 1.5"),
        ("x.ctm", "a 1 0 1 so\nb 1 0 1 so\na 1 1 1 so", r"x\.ctm:3: 'a' had its times before"),
        ("x.ctm", "", "no word times here"),
        (
            "x.jsonl",
            '{"id": "a", "words": [{"text": "so", "start": 0.5, "stop": 1}]}',
            "are samples",
        ),
        ("x.jsonl", '{"words": []}', r"x\.jsonl:1: `id` is missing"),
        ("x.jsonl", "[]", "one JSON object"),
        ("x.jsonl", "\n{", r"x\.jsonl:2: "),
        ("x.jsonl", "\udcff", "not UTF-8"),
        ("x.txt", "a", "are JSONL, CTM or TextGrid"),
    ],
)
def test_bad_times_are_an_error_with_file_and_line(tmp_path, name, text, complaint) -> None:
    (tmp_path / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=complaint):
        Given(tmp_path / name)


def test_a_word_may_hold_a_line_separator(tmp_path) -> None:
    path = tmp_path / "t.jsonl"
    word = {"text": "so\u2028so\x85", "start": 0, "stop": 9}
    line = json.dumps({"id": "a", "words": [word]}, ensure_ascii=False)
    path.write_text(line + "\n", encoding="utf-8")
    (found,) = Given(path)("a", ["so"], no_sound)
    assert found.text == "so\u2028so\x85"


def test_an_id_with_two_lines_in_jsonl_is_refused(tmp_path) -> None:
    path = times(tmp_path / "x.jsonl", a="so")
    path.write_text(path.read_text() * 2)
    with pytest.raises(ValueError, match=r"x\.jsonl:2: 'a' had its times before"):
        Given(path)


# words spell the text


def test_words_are_spelled_as_the_text_and_silent_ones_lie_between() -> None:
    found = [Word("hello", 100, 200, 0.5), Word("world", 300, 400, 0.25)]
    assert spell("— Hello, – world! …", found) == (
        Word("—", 100, 100, 0.5),
        Word("Hello,", 100, 200, 0.5),
        Word("–", 200, 200, 0.5),
        Word("world!", 300, 400, 0.25),
        Word("…", 400, 400, 0.25),
    )


@pytest.mark.parametrize("text", ["hello", "world hello", "hello there world", "hello word", "…"])
def test_other_words_are_no_alignment(text: str) -> None:
    with pytest.raises(Unaligned, match="other words"):
        spell(text, [Word("hello", 100, 200), Word("world", 300, 400)])


@pytest.mark.parametrize(
    "words",
    [
        [Word("a", 5, 4)],
        [Word("a", -1, 4)],
        [Word("a", 5, 9), Word("b", 4, 10)],
        [Word("a", 5, 9), Word("b", 6, 8)],
        [Word("a", 0, 12_000)],
        [Word("a", 0, 1, 1.5)],
        [Word("a", 0, 1, float("nan"))],
    ],
)
def test_times_that_no_recording_can_have_are_refused(words) -> None:
    with pytest.raises(Unaligned, match="bad times"):
        check(words, 10_000)


def test_a_word_a_little_beyond_the_end_is_cut() -> None:
    assert check([Word("a", 0, 11_000)], 10_000) == (Word("a", 0, 10_000),)


# shards


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three parts: texts, one without, and words that the corpus knew."""
    texts = {"a": SAID, "b": "and so", "c": "", "d": "my fellow", "e": "americans"}
    old = (Word("and", 0, 5), Word("so", 5, 9))
    rows = [utterance(name, text, old if name == "b" else ()) for name, text in texts.items()]
    return shards(tmp_path / "units", rows)


@pytest.fixture
def given(tmp_path) -> Choice:
    path = times(tmp_path / "t.jsonl", a="and so my fellow americans", b="and so", d="my yellow")
    return Choice(aligner="given", times=path)


def test_aligned_shards_have_words_and_are_otherwise_the_same(folder, given) -> None:
    before = list(read_shards(folder))
    report = align(folder, given)
    after = read_shards(folder, fingerprint=VOCAB.fingerprint)
    assert [len(row.words) for row in after] == [5, 2, 0, 0, 0]
    assert " ".join(word.text for word in after[0].words) == SAID
    for old, new in zip(before, after, strict=True):
        for name in ("id", "audio", "seconds", "text", "speaker", "language", "style"):
            assert getattr(old, name) == getattr(new, name)
        for kind, track in old.tracks.by_kind.items():
            assert new.tracks.by_kind[kind].unit.tolist() == track.unit.tolist()
            assert new.tracks.by_kind[kind].hop == track.hop
    assert reasons(folder) == {"d": "other words", "e": "no times"}
    counts = ("utterances", "aligned", "gated", "without_text", "words", "mean_score", "parts")
    assert [report[name] for name in counts] == [5, 2, 0, 1, 7, 1.0, 3]
    assert report["failed"] == {"no times": 1, "other words": 1}
    assert report["hours"] == pytest.approx(2 * 2.5 / 3600, abs=1e-6)
    assert after.manifest["alignment"]["aligned"] == 2
    assert not list(folder.glob(".*"))


def test_a_word_below_the_gate_keeps_its_utterance_from_being_cut(tmp_path) -> None:
    folder = shards(tmp_path / "units", [utterance(name, "and so") for name in "abc"])
    ctm = "".join(
        f"{n} 1 0 1 and 0.9\n{n} 1 1 1 so {s}\n"
        for n, s in zip("abc", "012", strict=True)
        if n != "c"
    )
    (tmp_path / "x.ctm").write_text(ctm + "c 1 0 1 and 0.9\nc 1 1 1 so 0.6\n")
    choice = Choice(aligner="given", times=tmp_path / "x.ctm")
    report = align(folder, choice, min_score=0.7)
    assert (report["aligned"], report["gated"]) == (1, 2)
    assert read_shards(folder).word_counts.tolist() == [0, 2, 0]
    assert reasons(folder) == {"a": "score", "c": "score"}
    assert align(folder, choice, min_score=0.6)["aligned"] == 2
    assert align(folder, choice)["aligned"] == 3


def test_the_same_settings_leave_the_folder_alone_and_others_do_it_again(folder, given) -> None:
    align(folder, given)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    again = align(folder, given)
    assert (again["aligned"], again["x_real_time"]) == (2, 0)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    first = content(folder)
    times(given.times, a="and so", d="my fellow", e="americans")
    assert align(folder, given)["aligned"] == 2
    assert read_shards(folder).word_counts.tolist() == [0, 0, 0, 2, 1]
    times(given.times, a="and so my fellow americans", b="and so", d="my yellow")
    align(folder, given)
    assert content(folder) == first


def test_two_processes_make_the_same_bytes(folder, given, tmp_path) -> None:
    shutil.copytree(folder, tmp_path / "two")
    align(folder, given)
    align(tmp_path / "two", given, workers=2)
    assert content(tmp_path / "two") == content(folder)


def test_stopped_before_any_rename_it_goes_on_to_the_same_bytes(
    folder, given, tmp_path, monkeypatch
) -> None:
    whole, replace = tmp_path / "whole", Path.replace
    shutil.copytree(folder, whole)
    align(whole, given)
    for left in itertools.count():
        stopped, names = tmp_path / f"stopped-{left}", []

        def stop(path, target, left=left, names=names):
            if len(names) == left:
                raise KeyboardInterrupt
            names.append(path.name)
            return replace(path, target)

        shutil.copytree(folder, stopped)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", stop)
            try:
                align(stopped, given)
                break
            except KeyboardInterrupt:
                pass
        if (stopped / ".align" / "manifest.json").exists():
            with pytest.raises(ValueError, match=r"stopped while.*run again: spirit align"):
                read_shards(stopped)
        else:  # as they were, or already as they will be
            assert verify(stopped)
        align(stopped, given)
        assert content(stopped) == content(whole)
    assert len(names) == 11  # the plan, 3 parts, a list and a manifest; 3 parts and 2 more moved


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path) -> None:
    rows = [utterance(f"{number:02d}", SAID) for number in range(16)]
    folder, whole = shards(tmp_path / "units", rows), tmp_path / "whole"
    shutil.copytree(folder, whole)
    align(whole, Choice())
    assert read_shards(whole).word_counts.tolist() == [5] * 16
    script = (
        "from pathlib import Path\nfrom spirit.align import Choice, align\n"
        f"if __name__ == '__main__':\n    align(Path({str(folder)!r}), Choice())\n"
    )
    running = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    while running.poll() is None and not list(folder.glob(".align/part-*")):
        time.sleep(0.01)
    running.kill()
    running.wait()
    kept = {path: path.stat().st_mtime_ns for path in folder.glob(".align/part-*")}
    assert 0 < len(kept) < 8
    assert verify(folder)["parts"]
    # As if it had died while writing, on a disk that forgets.
    (folder / ".align" / ".part-00007.parquet.123.partial").write_bytes(b"half")
    next(iter(kept)).write_bytes(b"torn")
    align(folder, Choice())
    assert content(folder) == content(whole)


def test_where_nothing_can_be_aligned_the_shards_stay_as_they_are(folder, tmp_path) -> None:
    before = content(folder)
    wrong = Choice(aligner="given", times=times(tmp_path / "w.jsonl", x="and so"))
    with pytest.raises(
        ValueError, match=r"none of 4 .*the first \(a\) because: no times.*as it was"
    ):
        align(folder, wrong)
    assert content(folder) == before
    silent = shards(tmp_path / "silent", [utterance("a", "")])
    with pytest.raises(ValueError, match="nothing to align"):
        align(silent, wrong)


def test_a_recording_that_is_gone_or_another_one_is_reported(tmp_path) -> None:
    names = [tmp_path / f"{name}.wav" for name in "abc"]
    for name in names:
        soundfile.write(name, WAVE, SAMPLE_RATE)
    rows = [utterance(name.stem, SAID, audio=name) for name in names]
    folder = shards(tmp_path / "units", rows)
    names[0].unlink()
    soundfile.write(names[1], WAVE[:-9], SAMPLE_RATE)
    assert align(folder, Choice())["failed"] == {"recording": 2}
    assert reasons(folder) == {"a": "recording", "b": "recording"}


def test_a_network_that_fails_costs_no_words(tmp_path, monkeypatch) -> None:
    folder = shards(tmp_path / "units", [utterance("a", SAID)])

    def gone(*_: object) -> None:
        raise ConnectionError("memory://a.wav: no answer; run again to go on")

    with monkeypatch.context() as patch:
        patch.setattr("spirit.align.parts.read_audio", gone)
        with pytest.raises(ConnectionError, match="run again"):
            align(folder, Choice())
    assert align(folder, Choice())["aligned"] == 1


def test_a_damaged_part_is_noticed_before_any_work(folder, given) -> None:
    part = folder / "part-00001.parquet"
    part.write_bytes(part.read_bytes()[:-9] + b"corrupted")
    with pytest.raises(ValueError, match=r"part-00001\.parquet is not the file that was written"):
        align(folder, given)


def test_a_folder_that_another_process_aligns_is_left_to_it(folder, given) -> None:
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(ValueError, match="another `spirit align` works on"):
        align(folder, given)
    os.close(handle)


def test_a_ctc_model_aligns_shards(folder, model) -> None:
    report = align(folder, Choice(aligner="ctc", model=model), min_score=0)
    assert report["aligned"] == 4
    assert read_shards(folder).manifest["alignment"]["settings"]["aligner"] == "ctc"
    with pytest.raises(ValueError, match=r"because: score, .* below 0\.999.*as it was"):
        align(folder, Choice(aligner="ctc", model=model), min_score=0.999)


# the command line


def run(*arguments: object):
    return CliRunner().invoke(main, ["align", *map(str, arguments)])


def test_the_report_is_json_or_a_few_lines(folder, given) -> None:
    done = run(folder, "--aligner", "given", "--times", given.times, "--json")
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["aligned"], report["failed"]["no times"]) == (2, 1)
    done = run(folder, "--aligner", "given", "--times", given.times)
    first, second = done.stdout.splitlines()
    assert "2 of 5 utterances aligned, 7 words" in first
    assert (
        second == "without words: no times 1, other words 1, no text 1 (unaligned.jsonl says why)"
    )


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nowhere"], "no such folder of unit shards"),
        (["{units}", "--aligner", "ctc"], "takes --model FOLDER"),
        (["{units}", "--aligner", "given"], "takes --times PATH"),
        (["{units}", "--times", "x.ctm"], "takes --times PATH"),
        (["{units}", "--aligner", "given", "--times", "x.ctm"], "no such file of word times"),
        (["{units}", "--aligner", "ctc", "--model", "nowhere"], "no such file"),
        (["{units}", "--min-score", "2"], "between 0 and 1"),
        (["{units}", "--workers", "0"], "one or more"),
        (["{units}", "--corpus", "nowhere"], "say where they are, --corpus PATH"),
    ],
)
def test_errors_are_one_line(folder, arguments, complaint) -> None:
    before = content(folder)
    done = run(*(argument.format(units=folder) for argument in arguments))
    assert done.exit_code == 1
    assert done.stdout == ""
    assert done.stderr.startswith("spirit: ")
    assert complaint in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert content(folder) == before
