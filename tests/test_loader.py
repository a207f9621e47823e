"""The loader: shares are held, packing loses nothing, and a saved position goes on exactly."""

import hashlib
import json
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spirit.codec import Codec
from spirit.data.documents import SOURCES
from spirit.data.loader import IGNORED, MixtureConfig, Rows, pack
from spirit.data.packing import PATIENCE, draw_back, fill_rows
from spirit.data.parts import Row
from spirit.data.shards import write_shards
from spirit.units import Kind, Track, Tracks, Units, Word
from spirit.vocab import Vocab
from tests.synthetic import COUNTS, byte_codec, same, take

HOPS = {Kind.HUBERT: 640, Kind.PITCH: 1_280, Kind.STYLE: 16_000}


def make_row(number: int, rng: np.random.Generator) -> Row:
    """A synthetic utterance; every tenth has no words, every twentieth no text either."""
    frames = int(rng.integers(20, 90))
    tracks = {}
    for kind, hop in HOPS.items():
        count = -(-frames * 640 // hop)
        tracks[kind] = Track(kind, rng.integers(0, COUNTS[kind], count), Fraction(hop))
    cuts = np.linspace(0, frames * 640, int(rng.integers(3, 12)) + 1).astype(int).tolist()
    words = tuple(Word(f"word{rng.integers(99)}", start, stop) for start, stop in pairwise(cuts))
    text = "" if number % 20 == 0 else " ".join(word.text for word in words)
    return Row(
        id=f"row-{number}",
        audio=f"audio/{number}.flac",
        seconds=frames / 25,
        text=text,
        words=() if number % 10 == 0 else words,
        speaker="slt",
        language="en",
        style="neutral",
        tracks=Tracks(tracks),
    )


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    return byte_codec(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, codec):
    rng = np.random.default_rng(0)
    rows = [make_row(number, rng) for number in range(80)]
    folder = tmp_path_factory.mktemp("data") / "units"
    write_shards(folder, rows, codec.vocab, tokenizer="feed", rows_per_part=32)
    return folder


@pytest.fixture(scope="module")
def config(folder):
    return MixtureConfig(
        shards=(folder,),
        interleaved=0.3,
        speech=0.1,
        text=0.1,
        transcribe=0.25,
        speak=0.25,
        text_span=(2, 4),
        speech_span=(1, 3),
        row=512,
        rows=4,
        window=64,
        seed=3,
    )


@given(st.lists(st.integers(1, 100), max_size=80), st.sampled_from([pack, fill_rows]))
def test_packing_loses_nothing_and_overfills_no_row(lengths, packed):
    rows = packed(lengths, 100)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in row) <= 100 for row in rows)


@given(st.lists(st.integers(1, 100), min_size=1, max_size=80))
def test_no_two_rows_of_a_packing_could_be_one(lengths):
    used = sorted(sum(lengths[i] for i in row) for row in pack(lengths, 100))
    assert len(used) < 2 or used[0] + used[1] > 100


@given(st.lists(st.integers(1, 20), min_size=1, max_size=9))
def test_the_first_row_is_as_full_as_the_longest_piece_allows(lengths):
    first, *_ = fill_rows(lengths, 30)
    longest, *others = sorted(lengths, reverse=True)
    sums = {0}
    for length in others:
        sums |= {so_far + length for so_far in sums}
    best = max(longest + so_far for so_far in sums if longest + so_far <= 30)
    assert sum(lengths[i] for i in first) == best


@given(st.lists(st.integers(1, 100), min_size=2, max_size=60), st.sampled_from([0.9, 0.995]))
def test_the_rows_that_do_not_wait_are_full_enough(lengths, fill):
    rows = fill_rows(lengths, 100)
    asked = {"row": 100, "fill": fill, "most": 1_000}
    waiting = draw_back(rows, lengths, [0] * len(lengths), **asked)
    used = [sum(lengths[i] for i in row) for n, row in enumerate(rows) if n not in waiting]
    assert sum(used) >= fill * 100 * len(used)
    tired = draw_back(rows, lengths, [PATIENCE] * len(lengths), **asked)
    assert tired == set()


def test_a_piece_longer_than_a_row_cannot_be_packed():
    with pytest.raises(ValueError, match="101 tokens does not fit into a row of 100"):
        pack([3, 101], 100)
    with pytest.raises(ValueError, match="101 tokens does not fit into a row of 100"):
        fill_rows([3, 101], 100)


def test_each_row_holds_exactly_the_documents_it_is_said_to_hold(config, codec):
    rows = Rows(config, codec)
    for _ in range(12):
        (batch,) = take(rows, 1)
        for number, pieces in enumerate(rows.latest):
            for at, (source, epoch, index, start, stop) in enumerate(pieces):
                here = batch["document"][number] == at
                expected = codec.encode(rows.documents.document(source, epoch, index))
                assert batch["ids"][number, here].tolist() == expected[start:stop].tolist()
                assert batch["positions"][number, here].tolist() == list(range(stop - start))
                labels = batch["labels"][number, here].tolist()
                assert labels == [IGNORED, *expected[start:stop].tolist()[1:]]
            padding = batch["document"][number] == -1
            assert (batch["labels"][number, padding] == IGNORED).all()


def test_an_epoch_holds_every_document_of_a_source_once(config, codec):
    rows = Rows(config, codec)
    seen: Counter[tuple[str, int, int]] = Counter()
    while min(rows._after.places.get(s, (0,))[0] for s in rows.counts) < 2:  # all are in epoch 2
        next(rows)
        seen.update(piece[:3] for row in rows.latest for piece in row)
    for source, count in rows.counts.items():
        # Epoch 0 is past the window's carry by now.
        found = {index for s, epoch, index in seen if s == source and epoch == 0}
        assert found == set(rows.documents.of(source).tolist())
        assert len(found) == count
    assert set(seen.values()) == {1}


def test_the_measured_shares_are_the_wanted_ones_within_one_percent(config, codec):
    rows = Rows(config, codec)
    tokens: Counter[str] = Counter()
    for _ in range(40):
        next(rows)
        for row in rows.latest:
            for piece in row:
                tokens[piece.source] += piece.stop - piece.start
    total = sum(tokens.values())
    for source, share in config.weights.items():
        assert tokens[source] / total == pytest.approx(share, abs=0.01)
        assert rows.shares[source] == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("window", [64, 256])
def test_packing_uses_995_of_1000_positions(config, codec, window):
    rows = Rows(replace(config, window=window), codec)
    used = np.mean([batch["document"] >= 0 for batch in take(rows, 40)])
    assert used >= 0.995
    assert rows.measured["mixture/used"] == pytest.approx(used)


def test_rows_fill_where_every_document_is_about_half_a_row(config, codec):
    # The worst case for packing: what does not fit waits, and nothing waits for ever.
    rows = Rows(replace(config, row=256, speech=0.35, transcribe=0, window=64), codec)
    found: dict[tuple[str, int, int], int] = {}
    for step in range(120):
        next(rows)
        for piece in (piece for row in rows.latest for piece in row):
            found.setdefault(piece[:3], step)
    assert rows.measured["mixture/used"] > 0.995
    waiting = max(rows._after.ages)
    assert waiting <= PATIENCE


def test_the_rows_of_older_trainings_come_again(codec, folder, tmp_path):
    """Computed by the loader of the first release; `recipes/tiny` depends on it."""
    path = tmp_path / "sentences.txt"
    path.write_text("good day\n\n  naïve 中文 \r\n", encoding="utf-8", newline="")
    old = MixtureConfig(
        shards=(folder,),
        texts=(path,),
        interleaved=0.3,
        speech=0.1,
        text=0.1,
        transcribe=0.25,
        speak=0.25,
        text_span=(2, 4),
        speech_span=(1, 3),
        opening=(1, 4),
        excerpts=0.5,
        answer_only=True,
        row=512,
        rows=4,
        window=64,
        fill=0.0,
        seed=3,
    )
    rows = Rows(old, codec, windows=True)
    digest = hashlib.sha256()
    for batch in take(rows, 12):
        for name in sorted(batch):
            digest.update(batch[name].tobytes())
    assert digest.hexdigest()[:16] == "609996a79289a02f"
    state = rows.state_dict()
    assert state["carry"][0] == ["text", 0, 50, 0, 43]
    expected = take(rows, 3)
    for key in ("ages", "fill"):  # which states did not have
        del state[key]
    again = Rows(old, codec, windows=True)
    again.load_state_dict(state)
    assert same(take(again, 3), expected)


@given(st.integers(0, 8), st.sampled_from([1, 7, 64]))
@settings(max_examples=6)
def test_a_saved_position_gives_the_same_batches(config, codec, steps, window):
    config = replace(config, window=window, rows=3)
    rows = Rows(config, codec)
    take(rows, steps)
    state = json.loads(json.dumps(rows.state_dict()))
    expected, shares = take(rows, 3), rows.shares
    again = Rows(config, codec)
    again.load_state_dict(state)
    assert again.state_dict() == state
    assert same(take(again, 3), expected)
    assert again.shares == shares


def test_the_state_of_other_data_is_refused(config, codec, tmp_path):
    state = Rows(config, codec).state_dict()
    with pytest.raises(ValueError, match=r"belongs to other data \(seed 3, here 4\)"):
        Rows(replace(config, seed=4), codec).load_state_dict(state)
    with pytest.raises(ValueError, match=r"belongs to other data \(fill 0\.995, here 0\.9\)"):
        Rows(replace(config, fill=0.9), codec).load_state_dict(state)
    with pytest.raises(ValueError, match=r"belongs to other data \(documents"):
        Rows(replace(config, speech=0, text=0.2), codec).load_state_dict(state)
    rng = np.random.default_rng(1)
    rows = [make_row(number, rng) for number in range(80)]
    write_shards(tmp_path / "units", rows, codec.vocab, tokenizer="feed")
    with pytest.raises(ValueError, match=r"belongs to other data \(data"):
        Rows(replace(config, shards=(tmp_path / "units",)), codec).load_state_dict(state)


def test_two_ranks_share_the_rows_of_one(config, codec):
    whole = take(Rows(config, codec), 8)
    halves = [take(Rows(config, codec, rank=rank, ranks=2), 8) for rank in range(2)]
    for step, batch in enumerate(whole):
        for name, tensor in batch.items():
            assert np.array_equal(tensor[0::2], halves[0][step][name])
            assert np.array_equal(tensor[1::2], halves[1][step][name])
    with pytest.raises(ValueError, match="rows = 4 cannot be shared by 3"):
        Rows(config, codec, ranks=3)


def test_a_document_depends_on_seed_epoch_and_utterance_alone(config, codec):
    def draw(config, epoch):
        documents = Rows(config, codec).documents
        return [documents.document("interleaved", epoch, n) for n in range(1, 9)]

    one, again = Rows(config, codec), draw(config, 5)
    take(one, 3)
    assert [one.documents.document("interleaved", 5, n) for n in range(1, 9)] == again
    assert draw(config, 6) != again
    assert draw(replace(config, seed=4), 5) != again
    # Other shares and another window change the order, never a document.
    assert draw(replace(config, window=9, speech=0.2, text=0.0), 5) == again


def test_an_interleaved_document_keeps_the_words_in_order(config, codec):
    rows = Rows(config, codec)
    switched = 0
    for number in rows.documents.of("interleaved").tolist()[:40]:
        segments = rows.documents.document("interleaved", 0, number).segments
        kinds = [isinstance(segment, str) for segment in segments]
        assert all(a != b for a, b in pairwise(kinds))
        text = rows.documents.document("text", 0, number).segments[0].split()
        position = -1
        for segment in segments:
            for word in segment.split() if isinstance(segment, str) else ():
                position = text.index(word, position + 1)
        switched += len(segments) > 1
    assert switched >= 30


def test_each_source_makes_documents_of_its_own_shape(config, codec):
    documents = Rows(config, codec).documents
    shapes = {s: documents.document(s, 0, 1) for s in SOURCES}
    kinds = {s: [type(x) for x in shapes[s].segments] for s in SOURCES if s != "interleaved"}
    assert kinds == {
        "speech": [Units],
        "text": [str],
        "transcribe": [Units, str],
        "speak": [str, Units],
    }
    assert {s: shapes[s].task for s in ("transcribe", "speak", "text")} == {
        "transcribe": "transcribe",
        "speak": "speak",
        "text": None,
    }
    assert all(document.closed for document in shapes.values())


def test_excerpts_are_words_in_a_row_with_their_own_speech(config, codec):
    whole = Rows(config, codec).documents
    documents = Rows(replace(config, excerpts=0.5), codec).documents
    shorter = Counter()
    for number in range(80):
        row = documents._row(number)
        for source in ("transcribe", "speak"):
            if not row.text:
                continue
            document = documents.document(source, 0, number)
            assert document == documents.document(source, 0, number), "it is drawn once"
            text = next(s for s in document.segments if isinstance(s, str))
            units = next(s for s in document.segments if isinstance(s, Units))
            if document == whole.document(source, 0, number):
                continue
            shorter[source] += 1
            words = text.split()
            spoken = [word.text for word in row.words]
            first = next(
                i for i in range(len(spoken)) if spoken[i : i + len(words)] == words
            )  # words may repeat, so more places are possible
            assert 1 <= len(words) < len(spoken)
            # The middle of each word lies in the clip, wherever between words it is cut.
            clips = [
                row.tracks.clip(
                    row.tracks.origin
                    if i == 0
                    else (spoken_stop(row, i) + row.words[i].start) // 2,
                    row.tracks.origin + row.tracks.samples
                    if i + len(words) == len(spoken)
                    else (row.words[i + len(words) - 1].stop + row.words[i + len(words)].start)
                    // 2,
                ).merge()
                for i in range(first, len(spoken) - len(words) + 1)
                if spoken[i : i + len(words)] == words
            ]
            assert units in clips
    assert all(20 <= shorter[source] <= 52 for source in ("transcribe", "speak")), shorter


def spoken_stop(row: Row, index: int) -> int:
    """Where the word before `index` ends."""
    return row.words[index - 1].stop


def test_only_rows_that_can_do_it_take_part(config, codec):
    counts = Rows(config, codec).counts
    assert counts == {
        "interleaved": 72,
        "speech": 80,
        "text": 76,
        "transcribe": 76,
        "speak": 76,
    }


def test_interleaved_documents_that_switch_once_have_their_share(config, codec):
    def switches(once: float) -> list[int]:
        rows = Rows(replace(config, once=once), codec)
        numbers = rows.documents.of("interleaved")
        documents = rows.documents
        return [
            len(documents.document("interleaved", epoch, int(number)).segments) - 1
            for epoch in range(8)
            for number in numbers
        ]

    assert set(switches(1.0)) == {1}
    plain, half = switches(0.0), switches(0.5)
    assert max(plain) > 2
    expected = 0.5 + 0.5 * plain.count(1) / len(plain)
    assert half.count(1) / len(half) == pytest.approx(expected, abs=0.08)


def test_what_is_only_heard_is_transcribed_and_nothing_else(config, codec):
    every = Rows(config, codec).documents
    some = Rows(replace(config, only_heard="7$"), codec).documents
    copies = {number for number in range(80) if number % 10 == 7}
    assert set(some.of("transcribe").tolist()) == set(every.of("transcribe").tolist()) >= copies
    for source in set(SOURCES) - {"transcribe"}:
        assert set(some.of(source).tolist()) == set(every.of(source).tolist()) - copies
    with pytest.raises(ValueError, match="beside what only_heard = 'row' matches"):
        Rows(replace(config, only_heard="row"), codec)


def test_where_nobody_speaks_nothing_is_the_transcript(config, codec, tmp_path):
    rng = np.random.default_rng(1)
    rows = [make_row(number, rng) for number in (20, 1)]
    rows.append(replace(rows[0], id="quiet", language="zxx"))
    write_shards(tmp_path / "units", rows, codec.vocab, tokenizer="feed")
    documents = Rows(replace(config, shards=(tmp_path / "units",)), codec).documents
    assert documents.of("transcribe").tolist() == [1, 2], "an unknown transcript is not empty"
    assert documents.of("speak").tolist() == [1]
    assert documents.of("text").tolist() == [1]
    document = documents.document("transcribe", 0, 2)
    assert document.segments == (rows[2].tracks.merge(), "")
    ids = documents.encode("transcribe", 0, 2)
    assert ids[-2:].tolist() == [codec.vocab.markers["asr"], codec.vocab.eos]
    assert documents.windows("transcribe", 0, 2) is None


def test_an_answer_alone_can_be_trained(config, codec):
    rows = Rows(replace(config, answer_only=True), codec)
    markers = {
        "transcribe": codec.vocab.markers["asr"],
        "speak": codec.vocab.markers["tts"],
    }
    (batch,) = take(rows, 1)
    for number, pieces in enumerate(rows.latest):
        for at, piece in enumerate(pieces):
            here = batch["document"][number] == at
            ids, labels = batch["ids"][number, here], batch["labels"][number, here]
            given = 1
            if piece.source in markers:
                given = ids.tolist().index(markers[piece.source]) + 1
            assert (labels[:given] == IGNORED).all()
            assert np.array_equal(labels[given:], ids[given:])


def test_long_documents_are_cut_and_long_tasks_left_out(config, codec):
    rows = Rows(replace(config, row=96, speech=0.3, interleaved=0.1), codec)
    cut: dict[tuple[str, int, int], int] = {}
    for _ in range(40):
        next(rows)
        for row in rows.latest:
            for piece in row:
                cut[piece[:3]] = cut.get(piece[:3], 0) + piece.stop - piece.start
                assert piece.source not in ("transcribe", "speak") or piece.start == 0
    lengths = [len(rows.documents.encode(*key)) for key in cut]
    assert max(lengths) > 96
    whole = [total == length for total, length in zip(cut.values(), lengths, strict=True)]
    assert np.mean(whole) > 0.95  # all but those of the window in progress
    assert rows.skipped["transcribe"] > 0
    assert rows.skipped["speech"] == 0


def test_a_row_too_short_for_every_task_document_is_an_error(config, codec):
    rows = Rows(replace(config, row=16), codec)
    with pytest.raises(ValueError, match="row = 16 is too short for every"):
        next(rows)


def test_text_files_are_a_source_of_their_own(tmp_path, codec):
    path = tmp_path / "sentences.txt"
    path.write_text("good day\n\n  [Hu12] stays text \n")
    rows = Rows(MixtureConfig(shards=(), texts=(path,), text=1.0, row=64, rows=1), codec)
    batch = next(rows)
    assert rows.counts == {"text": 2}
    ids = batch["ids"][0, batch["document"][0] == 0].numpy()
    assert codec.decode(ids).segments[0] in ("good day", "[Hu12] stays text")
    assert not codec.vocab.is_unit(ids).any()
    with pytest.raises(ValueError, match="wants speech, but nothing in no folder of shards"):
        Rows(MixtureConfig(shards=(), texts=(path,), speech=1.0), codec)
    path.write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(ValueError, match=r"sentences\.txt: cannot be read as UTF-8"):
        Rows(MixtureConfig(shards=(), texts=(path,), text=1.0), codec)


def test_a_vocabulary_that_does_not_fit_the_shards_is_refused(config, codec):
    vocab = Vocab.build(codec.text.size, codec.text.bos, codec.text.eos, {Kind.HUBERT: 50})
    with pytest.raises(ValueError, match=codec.vocab.fingerprint):
        Rows(config, Codec(codec.text, vocab))


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"speech": 0.5}, "sum to 1"),
        ({"speech": 1.5, "text": -0.5}, "none is negative"),
        ({"speech": 1.0, "row": 4}, "row must be at least 8"),
        ({"speech": 1.0, "excerpts": 1.5}, "excerpts is a share"),
        ({"speech": 1.0, "once": -0.5}, "once is a share"),
        ({"speech": 1.0, "only_heard": "("}, "is no regular expression"),
        ({"speech": 1.0, "window": 0}, "window must be at least 1"),
        ({"speech": 1.0, "workers": -1}, "workers must be at least 0"),
        ({"speech": 1.0, "fill": 1.5}, "fill is a share"),
        ({"speech": 1.0, "text_span": (5, 2)}, "a span is two numbers"),
        ({"speech": 1.0, "opening": (0, 2)}, "a span is two numbers"),
    ],
)
def test_a_mixture_that_makes_no_sense_is_refused(fields, complaint):
    with pytest.raises(ValueError, match=complaint):
        MixtureConfig(shards=(), **fields)
