import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from spirit.units import SAMPLE_RATE, Kind, Track, Tracks, Units
from tests.strategies import speech


@given(speech(), st.data())
def test_clip_always_knows_the_style_and_pitch_in_force(tracks, data):
    start = data.draw(st.integers(0, tracks.samples - 1))
    stop = data.draw(st.integers(start + 1, tracks.samples))
    clip = tracks.clip(start, stop).merge()
    style, pitch = tracks.by_kind[Kind.STYLE], tracks.by_kind[Kind.PITCH]
    assert clip.kind[:3].tolist() == [Kind.STYLE, Kind.PITCH, Kind.HUBERT]
    assert clip.unit[0] == style.unit[start // style.hop]
    assert clip.unit[1] == pitch.unit[start // pitch.hop]
    assert clip.unit[2] == tracks.by_kind[Kind.HUBERT].unit[start // 640]


@given(speech())
def test_merge_drops_repeated_hubert_and_pitch_but_keeps_every_style(tracks):
    merged = tracks.merge()
    for kind in (Kind.HUBERT, Kind.PITCH):
        full = tracks.by_kind[kind].unit
        runs = full[np.concatenate([[True], np.diff(full) != 0])]
        assert merged.of(kind).tolist() == runs.tolist()
    assert merged.of(Kind.STYLE).tolist() == tracks.by_kind[Kind.STYLE].unit.tolist()


@given(speech())
def test_merge_is_ordered_by_time_then_style_pitch_hubert(tracks):
    expected = []
    for kind, track in tracks.by_kind.items():
        for i, unit in enumerate(track.unit.tolist()):
            if i == 0 or not kind.dedup or unit != track.unit[i - 1]:
                expected.append((i * track.hop, kind, unit))
    expected.sort(key=lambda entry: entry[:2])
    assert tracks.merge() == Units.build((kind, unit) for _, kind, unit in expected)


@given(speech(), st.data())
def test_clips_that_meet_hold_every_frame(tracks, data):
    cut = data.draw(st.integers(0, tracks.samples))
    for kind, track in tracks.by_kind.items():
        left = tracks.clip(0, cut).by_kind[kind]
        right = tracks.clip(cut, tracks.samples).by_kind[kind]
        straddling = int(0 < cut < tracks.samples and cut % track.hop != 0)
        assert len(left) + len(right) == len(track) + straddling


def test_units_of_different_order_differ():
    a = Units.build([(Kind.HUBERT, 1), (Kind.PITCH, 2)])
    b = Units.build([(Kind.PITCH, 2), (Kind.HUBERT, 1)])
    assert a != b
    assert a == a[:1] + a[1:]
    assert hash(a) == hash(a[:1] + a[1:])


def test_a_clip_keeps_its_place_on_the_clock():
    track = Track(Kind.HUBERT, np.arange(10), 640)
    clip = Tracks({Kind.HUBERT: track}).clip(SAMPLE_RATE // 10, SAMPLE_RATE // 5)
    assert clip.by_kind[Kind.HUBERT].start == 1280
    assert clip.by_kind[Kind.HUBERT].unit.tolist() == [2, 3, 4]


def test_speech_of_no_tracks_is_no_units():
    assert len(Tracks({}).merge()) == 0
    assert Tracks({}).samples == 0
