"""What the loader makes of shards, fast, is what the codec makes of documents, one by one."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spirit.codec import Codec, HFText, byte_tokenizer
from spirit.data import order, shards
from spirit.data.documents import SOURCES, Documents
from spirit.data.order import Order, draw_rng
from spirit.data.parts import Row
from spirit.data.shards import write_shards
from spirit.data.spoken import Spoken
from spirit.units import Kind, Track, Tracks, Units, Word
from spirit.vocab import Vocab
from tests.strategies import COUNTS, OUR_HOPS, speech
from tests.synthetic import write_corpus

RELEASED = {**OUR_HOPS, Kind.HUBERT: Fraction(1_600_000, 2_499)}
HUBERT = {Kind.HUBERT: Fraction(640)}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.json"
    byte_tokenizer(path)
    return HFText.load(path)


@pytest.fixture(scope="module")
def codec(text):
    return Codec(text, Vocab.build(text.size, text.bos, text.eos, COUNTS, special=text.special))


def row(name, tracks, cuts):
    words = tuple(
        Word(f"w{i}", a, b) for i, (a, b) in enumerate(zip(*[iter(cuts)] * 2, strict=True))
    )
    text = " ".join(word.text for word in words)
    return Row(name, "a.flac", 1.0, text, words, "", "en", "", tracks)


@st.composite
def recordings(draw):
    """Three recordings of a part, with words that touch, overlap, or lie beyond the end."""
    hops = draw(st.sampled_from([OUR_HOPS, RELEASED, HUBERT]))
    rows = []
    for name in "abc":
        tracks = draw(speech(max_frames=80, hops=hops))
        last = tracks.samples + 2_000
        cuts = draw(st.lists(st.integers(0, last), min_size=4, max_size=16).filter(_even))
        rows.append(row(name, tracks, cuts if draw(st.booleans()) else sorted(cuts)))
    return rows


def _even(cuts):
    return len(cuts) % 2 == 0


@given(
    recordings(),
    st.sampled_from(["in-force", "slice"]),
    st.sampled_from([0.0, 0.8]),
    st.sampled_from([0.0, 0.5]),
)
@settings(max_examples=40)
def test_the_loader_writes_the_ids_of_the_codec(
    tmp_path_factory, codec, rows, span_style, excerpts, once
):
    folder = tmp_path_factory.mktemp("data") / "units"
    write_shards(folder, rows, codec.vocab, tokenizer="feed", rows_per_part=2)
    documents = Documents(
        codec,
        (folder,),
        text_span=(1, 2),
        speech_span=(1, 2),
        span_style=span_style,
        excerpts=excerpts,
        once=once,
    )
    for number in range(3):
        for epoch in (0, 1):
            for source in SOURCES:
                expected = codec.encode(documents.document(source, epoch, number))
                found = documents.encode(source, epoch, number)
                assert found.dtype == np.int64
                assert found.tolist() == expected.tolist(), (source, epoch, number)


def test_a_vocabulary_without_tasks_or_pitch_gives_the_same_too(tmp_path, text):
    markers = Vocab.build(text.size, text.bos, text.eos, COUNTS, markers=("text", "speech"))
    write_corpus(tmp_path / "units", markers, 4, seconds=(1, 2))
    documents = Documents(Codec(text, markers), (tmp_path / "units",), excerpts=0.5)
    for source in SOURCES:
        expected = documents.codec.encode(documents.document(source, 0, 2))
        assert documents.encode(source, 0, 2).tolist() == expected.tolist()


def test_a_unit_without_an_id_is_named(tmp_path, codec):
    tracks = Tracks({Kind.HUBERT: Track(Kind.HUBERT, np.array([1, 900]), 640)})
    write_shards(tmp_path / "units", [row("a", tracks, [0, 640])], codec.vocab, tokenizer="feed")
    documents = Documents(codec, (tmp_path / "units",))
    with pytest.raises(ValueError, match=r"\[Hu900\] is not in the vocabulary"):
        documents.encode("speech", 0, 0)


def test_a_bare_slice_begins_with_what_comes_into_force_first(tmp_path, codec):
    style, pitch = np.array([3]), np.array([4, 5])
    tracks = Tracks(
        {
            Kind.STYLE: Track(Kind.STYLE, style, 16_000),
            Kind.PITCH: Track(Kind.PITCH, pitch, 1_280),
            Kind.HUBERT: Track(Kind.HUBERT, np.array([7, 7, 8, 8]), 640),
        }
    )
    rows = [row("a", tracks, [0, 600, 700, 2_560])]
    write_shards(tmp_path / "units", rows, codec.vocab, tokenizer="feed")
    found = {}
    for span_style in ("in-force", "slice"):
        documents = Documents(
            codec,
            (tmp_path / "units",),
            text_span=(1, 1),
            speech_span=(1, 1),
            span_style=span_style,
        )
        ends = [documents.document("interleaved", epoch, 0).segments[1] for epoch in range(20)]
        (found[span_style],) = {str(end) for end in ends if isinstance(end, Units)}
    assert found == {"in-force": "[St3][Pi4][Hu7][Pi5][Hu8]", "slice": "[Pi5][Hu8]"}


def test_no_slice_is_empty(tmp_path, codec):
    # The second word lies inside one long unit: no unit comes into force in it.
    tracks = Tracks({Kind.HUBERT: Track(Kind.HUBERT, np.full(9, 7), 640)})
    rows = [row("a", tracks, [0, 2_000, 2_000, 4_000, 4_000, 5_760])]
    write_shards(tmp_path / "units", rows, codec.vocab, tokenizer="feed")
    documents = Documents(
        codec, (tmp_path / "units",), text_span=(1, 1), speech_span=(1, 1), span_style="slice"
    )
    for epoch in range(8):
        segments = documents.document("interleaved", epoch, 0).segments
        assert all(str(s) == "[Hu7]" for s in segments if isinstance(s, Units))
        expected = codec.encode(documents.document("interleaved", epoch, 0))
        assert documents.encode("interleaved", epoch, 0).tolist() == expected.tolist()


def test_parts_are_read_when_they_are_asked_for_and_few_stay(tmp_path, codec, monkeypatch):
    write_corpus(tmp_path / "units", codec.vocab, 60, seconds=(1, 2), rows_per_part=2)
    monkeypatch.setattr(shards, "HELD", 4)
    monkeypatch.setattr("spirit.data.documents.HELD", 4)
    monkeypatch.setattr(order, "GROUP", 6)
    opened = []
    plain = shards.Part
    monkeypatch.setattr(shards, "Part", lambda path, hops: opened.append(path) or plain(path, hops))
    documents = Documents(codec, (tmp_path / "units",))
    assert opened == []
    order_ = documents.order("speech")
    epochs = [[order_.at(epoch, place) for place in range(60)] for epoch in range(2)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(60))] * 2
    assert epochs[0] != epochs[1]
    assert epochs[0] != sorted(epochs[0])
    for number in epochs[0]:
        documents.encode("speech", 0, number)
        assert len(documents._shards[0]._held) <= 4
    assert len(opened) == 30, "each part once an epoch"


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(sum),
    st.booleans(),
    st.integers(0, 3),
)
def test_an_order_is_a_permutation_wherever_one_begins(sizes, whole, epoch):
    ends = np.cumsum(sizes)

    def numbers(chunk):
        return np.arange(ends[chunk] - sizes[chunk], ends[chunk])

    orders = [Order(sizes, numbers, (7, "speech"), whole=whole) for _ in range(2)]
    places = range(len(orders[0]))
    found = [orders[0].at(epoch, place) for place in places]
    assert sorted(found) == list(places)
    drawn = draw_rng(1).permutation(len(places)).tolist()
    assert [orders[1].at(epoch, place) for place in drawn] == [found[place] for place in drawn]


def test_a_manifest_that_miscounts_a_part_is_refused(tmp_path, codec):
    write_corpus(tmp_path / "units", codec.vocab, 4, seconds=(1, 2))
    path = tmp_path / "units/manifest.json"
    path.write_text(path.read_text().replace('"rows": 4', '"rows": 5'))
    with pytest.raises(ValueError, match=r"part-00000\.parquet has 4 rows, the manifest says 5"):
        shards.read_shards(tmp_path / "units")[0]


def test_words_are_counted_without_units(tmp_path, codec):
    write_corpus(tmp_path / "units", codec.vocab, 3, seconds=(1, 2))
    spoken = Spoken(shards.read_shards(tmp_path / "units").part(0), codec)
    read = shards.read_shards(tmp_path / "units")
    assert [spoken.words(i) for i in range(3)] == read.word_counts.tolist()
    assert [len(found.words) for found in read] == read.word_counts.tolist()
