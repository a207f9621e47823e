"""Where sound lies: a stretch is what the whole has there, and bytes are read and hashed once."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import soundfile

from spirit import streams
from spirit.audio import AudioError, read_audio, read_hashed
from spirit.data.parts import Row
from spirit.sound import Sound
from spirit.units import Tracks


def write(path: Path, rate: int, seconds: float = 12.0) -> Path:
    rng = np.random.default_rng(0)
    wave = np.clip(0.2 * rng.standard_normal(round(rate * seconds)), -0.9, 0.9).astype("f4")
    form = {"format": "OGG", "subtype": "OPUS"} if path.suffix == ".opus" else {}
    with soundfile.SoundFile(path, "w", rate, 1, **form) as file:
        for first in range(0, len(wave), 1 << 16):
            file.write(wave[first : first + (1 << 16)])
    return path


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("a.wav", 16_000),
        ("a.wav", 44_101),
        ("a.flac", 44_100),
        ("a.ogg", 22_050),
        ("a.mp3", 44_100),
        ("a.opus", 48_000),
        ("b.wav", 8_000),
    ],
)
def test_a_stretch_is_what_the_whole_recording_has_there(tmp_path, name, rate):
    path = write(tmp_path / name, rate)
    whole = read_audio(path)
    for start, stop in ((0, 16_000), (1, 700), (80_333, 112_077), (170_001, None)):
        heard = read_audio(Sound(str(path), start, stop))
        np.testing.assert_allclose(heard, whole[start:stop], atol=2e-5)
        assert (heard == read_audio(Sound(str(path), start, stop))).all()


def bursts(path: Path, rate: int, channels: int, seconds: float = 16.0) -> Path:
    """A tone that comes and goes with bursts of noise: what needs MP3's bit reservoir."""
    rng, time = np.random.default_rng(0), np.arange(round(rate * seconds)) / rate
    tone = 0.3 * np.sin(2 * np.pi * (200 + 50 * np.sin(time)) * time) * (1 + np.sin(3 * time)) / 2
    wave = tone + 0.05 * rng.standard_normal(len(time)) * (np.sin(2 * time) > 0)
    with soundfile.SoundFile(path, "w", rate, channels) as file:
        file.write(np.stack([wave] * channels, axis=1).astype("f4"))
    return path


def test_mp3_is_decoded_as_in_one_go(tmp_path):
    path = bursts(tmp_path / "a.mp3", 16_000, 4 // 2)
    whole, _ = soundfile.read(path, dtype="float32", always_2d=True)
    heard = read_audio(path)
    assert len(whole) > 1 << 17, "it takes more than one block"
    np.testing.assert_allclose(heard, whole.mean(axis=1, dtype=np.float32), atol=1e-6)


def test_a_stretch_of_mp3_begins_as_it_sounds_in_the_whole(tmp_path):
    path = bursts(tmp_path / "a.mp3", 24_000, 1)
    whole = read_audio(path)
    rng = np.random.default_rng(2)
    for start in rng.integers(40_000, 200_000, 12).tolist():
        heard = read_audio(Sound(str(path), start, start + 8_000))
        np.testing.assert_allclose(heard, whole[start : start + 8_000], atol=1e-3)


def test_a_stretch_does_not_decode_the_rest(tmp_path, monkeypatch):
    path = write(tmp_path / "a.wav", 16_000)
    read, count = streams.Stream.readinto, [0]

    def counted(self: streams.Stream, buffer: object) -> int:
        got = read(self, buffer)
        count[0] += got
        return got

    monkeypatch.setattr(streams.Stream, "readinto", counted)
    read_audio(Sound(str(path), 160_000, 161_000))
    assert count[0] < path.stat().st_size / 4


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
def test_a_file_is_read_once_for_its_sound_and_its_hash(tmp_path, monkeypatch, name):
    path = write(tmp_path / name, 44_100)
    added, add = [0], streams.Stream._add

    def counted(self: streams.Stream, some: bytes) -> None:
        added[0] += len(some)
        add(self, some)

    monkeypatch.setattr(streams.Stream, "_add", counted)
    wave, digest = read_hashed(path)
    assert (wave == read_audio(path)).all()
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert added[0] == path.stat().st_size


def test_a_long_file_is_hashed_once_for_all_its_stretches(tmp_path, monkeypatch):
    path = write(tmp_path / "a.wav", 16_000)
    hashed = []
    digest = streams.Stream.sha256
    monkeypatch.setattr(streams.Stream, "sha256", lambda self: hashed.append(1) or digest(self))
    digests = {read_hashed(Sound(str(path), i * 16_000, i * 16_000 + 8_000))[1] for i in range(5)}
    assert digests == {hashlib.sha256(path.read_bytes()).hexdigest()}
    assert len(hashed) == 1


@pytest.mark.parametrize(
    ("start", "stop", "code"),
    [(11 * 16_000, 13 * 16_000, "beyond_end"), (12 * 16_000, None, "beyond_end")],
)
def test_a_stretch_beyond_the_end_is_refused_with_its_times(tmp_path, start, stop, code):
    path = write(tmp_path / "a.flac", 8_000)
    with pytest.raises(AudioError, match=r"a\.flac from 1[12] s to .*ends at 12\.00 s") as caught:
        read_audio(Sound(str(path), start, stop))
    assert caught.value.code == code
    assert len(read_audio(Sound(str(path), 11 * 16_000, 12 * 16_000 + 800))) == 16_000  # rounded


@pytest.mark.parametrize(("start", "stop"), [(-1, 5), (5, 5), (5, 1)])
def test_a_stretch_has_a_length(start, stop):
    with pytest.raises(ValueError, match="no sound lies from"):
        Sound("a.wav", start, stop)


def test_urls_go_through_fsspec(tmp_path):
    import fsspec

    path = write(tmp_path / "a.flac", 44_100)
    with fsspec.open("memory://sounds/a.flac", "wb") as file:
        file.write(path.read_bytes())
    for uri in ("memory://sounds/a.flac", f"file://{path}"):
        assert (read_audio(Sound(uri)) == read_audio(path)).all()
        assert read_hashed(Sound(uri))[1] == hashlib.sha256(path.read_bytes()).hexdigest()
        heard = read_audio(Sound(uri, 16_000, 20_000))
        assert (heard == read_audio(Sound(str(path), 16_000, 20_000))).all()
    with pytest.raises(AudioError, match=r"memory://sounds/b\.flac: no such file") as caught:
        read_audio(Sound("memory://sounds/b.flac"))
    assert caught.value.code == "missing"


def test_a_url_that_fails_is_no_fault_of_the_recording(tmp_path, monkeypatch):
    import fsspec

    path = write(tmp_path / "a.wav", 16_000)
    with fsspec.open("memory://sounds/c.wav", "wb") as file:
        file.write(path.read_bytes())

    def breaks(self: object, buffer: object) -> int:
        raise TimeoutError("the line is dead")

    monkeypatch.setattr("fsspec.implementations.memory.MemoryFile.readinto", breaks, raising=False)
    with pytest.raises(ConnectionError, match=r"cannot be fetched \(the line is dead\); run again"):
        read_hashed(Sound("memory://sounds/c.wav"))


def test_a_row_of_shards_leads_back_to_its_sound(tmp_path):
    def row(audio: str, **where: object) -> Row:
        return Row("a", audio, 1.0, "", (), "", "", "", Tracks({}), **where)

    assert row("../a.wav").sound(tmp_path) == tmp_path / "../a.wav"
    assert row("/a.wav").sound(tmp_path) == Path("/a.wav")
    assert row("a.wav", start=3, stop=9).sound(tmp_path) == Sound(f"{tmp_path}/a.wav", 3, 9)
    assert row("memory://a.wav").sound(tmp_path) == Sound("memory://a.wav")
    inside = row("x.parquet", parquet_row=4, parquet_column="audio").sound(tmp_path)
    assert inside == Sound(f"{tmp_path}/x.parquet", row=4, column="audio")
