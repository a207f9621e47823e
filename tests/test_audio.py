"""Any recording becomes 16 kHz mono; all that is not usable speech is refused in one line."""

import errno
from pathlib import Path

import numpy as np
import pytest
import soundfile

from spirit.audio import AudioError, read_audio, resample, write_audio
from spirit.units import SAMPLE_RATE

JFK = Path(__file__).parent / "data" / "jfk.flac"


def tone(seconds: float, rate: int, hertz: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def correlation(one: np.ndarray, two: np.ndarray) -> float:
    length = min(len(one), len(two))
    return float(np.corrcoef(one[:length], two[:length])[0, 1])


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 44_100, 48_000, 192_000])
def test_every_rate_becomes_the_same_sound_at_16_khz(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", tone(0.5, rate), rate)
    wave = read_audio(tmp_path / "a.wav")
    assert wave.dtype == np.float32
    assert len(wave) == pytest.approx(0.5 * SAMPLE_RATE, abs=1)
    assert correlation(wave, tone(0.5, SAMPLE_RATE)) > 0.999


@pytest.mark.parametrize("channels", [2, 8, 32])
def test_channels_are_averaged(tmp_path: Path, channels: int) -> None:
    sides = np.random.default_rng(0).uniform(-0.5, 0.5, (1_000, channels)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", sides, SAMPLE_RATE, subtype="FLOAT")
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav"), sides.mean(1), atol=1e-6)


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_decoding_by_blocks_equals_decoding_at_once(
    tmp_path: Path, rate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, rate).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", noise, rate, subtype="FLOAT")
    whole = resample(noise, rate, SAMPLE_RATE)
    monkeypatch.setattr("spirit.decoding.BLOCK", 977)
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav"), whole, atol=1e-6)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".opus", ".aiff"])
def test_what_is_written_is_read_again(tmp_path: Path, suffix: str) -> None:
    wave = read_audio(JFK)
    write_audio(tmp_path / f"a{suffix}", wave)
    again = read_audio(tmp_path / f"a{suffix}")
    assert len(again) == len(wave)
    assert correlation(again, wave) > 0.98


def test_minutes_of_vorbis_are_written(tmp_path: Path) -> None:
    write_audio(tmp_path / "long.ogg", np.zeros(140 * SAMPLE_RATE, np.float32))
    assert len(read_audio(tmp_path / "long.ogg")) == 140 * SAMPLE_RATE


def test_the_bytes_of_a_file_are_as_good_as_its_path() -> None:
    np.testing.assert_array_equal(read_audio(JFK.read_bytes()), read_audio(JFK))


def test_a_hundredth_of_a_second_and_silence_are_audio(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "short.wav", tone(0.01, SAMPLE_RATE), SAMPLE_RATE)
    soundfile.write(tmp_path / "silence.wav", np.zeros(SAMPLE_RATE), SAMPLE_RATE)
    assert len(read_audio(tmp_path / "short.wav")) == 160
    assert not read_audio(tmp_path / "silence.wav").any()


def bad(folder: Path, case: str) -> Path:
    path = folder / f"{case.replace(' ', '-')}.wav"
    noise = np.random.default_rng(2).uniform(-0.5, 0.5, 8_000).astype(np.float32)
    match case:
        case "empty":
            path.touch()
        case "text":
            path.write_text("the weather in paris is nice\n" * 20)
        case "folder":
            path.mkdir()
        case "no samples":
            soundfile.write(path, noise[:0], SAMPLE_RATE)
        case "nan" | "infinite" | "huge":
            noise[100] = {"nan": np.nan, "infinite": np.inf, "huge": 1e30}[case]
            soundfile.write(path, noise, SAMPLE_RATE, subtype="FLOAT")
        case "cut short":
            path = path.with_suffix(".flac")
            soundfile.write(path, noise, SAMPLE_RATE)
            path.write_bytes(path.read_bytes()[:5_000])
        case "channels":
            soundfile.write(path, noise.reshape(-1, 40), SAMPLE_RATE)
        case "slow rate":
            soundfile.write(path, noise, 1_000)
        case "headless":
            path = path.with_suffix(".raw")
            path.write_bytes(noise.tobytes())
        case _:
            assert case == "missing"
    return path


CASES = {
    "missing": "no such file",
    "empty": "empty",
    "text": "cannot be read as audio",
    "folder": "not a file",
    "no samples": "no sound",
    "nan": "NaN",
    "infinite": "infinite",
    "huge": r"1e\+30",
    "cut short": "cannot be read|cut short",
    "channels": "40 channels",
    "slow rate": "1000 samples per second",
    "headless": "cannot be read as audio",
}


@pytest.mark.parametrize("case", CASES)
def test_bad_audio_is_refused_in_one_line_with_its_name(tmp_path: Path, case: str) -> None:
    path = bad(tmp_path, case)
    with pytest.raises(AudioError, match=CASES[case]) as caught:
        read_audio(path)
    line = str(caught.value)
    assert line.startswith(str(path))
    assert "\n" not in line


def test_a_recording_is_no_longer_than_allowed(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(2.0, 8_000), 8_000)
    assert len(read_audio(tmp_path / "a.wav", max_seconds=2.0)) == 2 * SAMPLE_RATE
    with pytest.raises(AudioError, match=r"longer than 1\.9 seconds"):
        read_audio(tmp_path / "a.wav", max_seconds=1.9)


def test_a_forged_length_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "forged.wav"
    soundfile.write(path, tone(0.1, SAMPLE_RATE), SAMPLE_RATE)
    forged = bytearray(path.read_bytes())
    forged[4:8] = forged[40:44] = (2**32 - 64).to_bytes(4, "little")  # "four gigabytes follow"
    path.write_bytes(forged)
    assert len(read_audio(path)) == 1_600


@pytest.mark.parametrize("name", ["a.xyz", "folder.wav", "nowhere/a.wav"])
def test_an_output_that_cannot_be_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.wav").mkdir()
    with pytest.raises(AudioError, match=name):
        write_audio(tmp_path / name, np.zeros(10, np.float32))
    assert not (tmp_path / "nowhere").exists()


def test_nan_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="not written"):
        write_audio(tmp_path / "a.wav", np.full(10, np.nan, np.float32))
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_audio(tmp_path / "a.wav", tone(0.1, SAMPLE_RATE))
    before = (tmp_path / "a.wav").read_bytes()

    def full(path: Path, data: bytes) -> int:
        with path.open("wb") as stream:
            stream.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        write_audio(tmp_path / "a.wav", tone(0.2, SAMPLE_RATE))
    assert (tmp_path / "a.wav").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


def test_loud_samples_are_clipped_and_do_not_wrap(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", np.array([0.0, 2.0, -2.0], np.float32))
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav"), [0, 1, -1], atol=1e-3)
