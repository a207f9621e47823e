"""The golden facts G1 to G5 of the released Spirit LM."""

import json
from pathlib import Path

import pytest

from spirit.formats import spiritlm
from spirit.units import Kind, Units

GOLDEN = json.loads((Path(__file__).parent / "golden" / "release-units.json").read_text())


def _units(golden):
    return {kind: golden[kind.key] for kind in Kind if kind.key in golden}


def test_g1_ids_are_those_of_the_released_checkpoints():
    base, expressive = spiritlm.vocab("base"), spiritlm.vocab("expressive")
    assert (base.size, expressive.size) == (32_512, 32_768)
    for vocab in (base, expressive):
        assert vocab.markers == {"text": 32_000, "speech": 32_001}
    last = Units.build([(Kind.HUBERT, 0), (Kind.HUBERT, 500), (Kind.PITCH, 63), (Kind.STYLE, 99)])
    assert expressive.units_to_ids(last).tolist() == [32_002, 32_502, 32_566, 32_666]
    assert base.units_to_ids(last[:2]).tolist() == [32_002, 32_502]
    with pytest.raises(ValueError, match="Pi63"):
        base.units_to_ids(last)
    with pytest.raises(ValueError, match="Hu501"):
        base.units_to_ids(Units.build([(Kind.HUBERT, 501)]))


def test_g2_the_published_units_give_the_published_strings():
    units = _units(GOLDEN["units"])
    assert [len(units[kind]) for kind in (Kind.HUBERT, Kind.PITCH, Kind.STYLE)] == [228, 114, 10]
    merged = spiritlm.tracks(units).merge()
    assert str(merged) == GOLDEN["expressive_string"]
    assert [len(merged.of(kind)) for kind in (Kind.HUBERT, Kind.PITCH, Kind.STYLE)] == [167, 82, 10]
    base = spiritlm.tracks({Kind.HUBERT: units[Kind.HUBERT]}).merge()
    assert str(base) == GOLDEN["base_string"]
    assert len(base) == 167


def test_g3_style_and_pitch_stand_before_the_units_they_govern():
    units = {
        Kind.HUBERT: [78, 42, 81, 159, 316, 259],
        Kind.PITCH: [13, 13, 13, 13, 13, 3],
        Kind.STYLE: [81] * 6,
    }
    expected = "[St81][Pi13][Hu78][Hu42][Hu81][Hu159][Hu316][Hu259][Pi3]" + "[St81]" * 5
    assert str(spiritlm.tracks(units).merge()) == expected


def test_g4_a_string_expands_to_one_pitch_and_style_per_unit():
    string = "[St81][Hu78][Pi13][Hu42][Hu81][Hu159][Hu316][Pi3][Hu259]"
    assert spiritlm.expand(spiritlm.parse(string)) == {
        Kind.HUBERT: [78, 42, 81, 159, 316, 259],
        Kind.PITCH: [13, 13, 13, 13, 13, 3],
        Kind.STYLE: [81] * 6,
    }


def test_g5_at_equal_times_pitch_stands_before_hubert_even_after_many_hours():
    hubert = [i % 500 for i in range(24_990)]
    pitch = [i % 64 for i in range(12_500)]
    merged = spiritlm.tracks({Kind.HUBERT: hubert, Kind.PITCH: pitch}).merge()
    before = 0
    seen = 0
    for kind in merged.kind.tolist():
        if kind == Kind.PITCH:
            if seen == 1_250:
                assert before == 2_499
            if seen == 2_500:
                assert before == 2 * 2_499
            seen += 1
        else:
            before += 1
    assert seen == 12_500


def test_a_string_of_no_style_takes_the_most_common_one():
    assert spiritlm.expand(spiritlm.parse("[Pi3][Hu1][Hu2]"))[Kind.STYLE] == [71, 71]
    assert spiritlm.expand(spiritlm.parse("[Hu1][Hu2]")) == {Kind.HUBERT: [1, 2]}
    assert str(spiritlm.parse("and [Speech][St1][Pi2][Hu3] so")) == "[St1][Pi2][Hu3]"
