"""Decoding in a child: the same samples, and one refusal for whatever a recording does to it."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from spirit.audio import AudioError, read_hashed
from spirit.data import decoder
from spirit.data.decoder import Decoder, Limits
from spirit.prepare import tokenize
from spirit.sound import Sound
from spirit.units import SAMPLE_RATE
from tests.bundle import JFK, build_tokenizer

ROOT = Path(__file__).parent.parent
MISBEHAVING = """
import os, signal, time
from spirit.data import decoder_child
well, read = decoder_child.read_into, []
def misbehave(sound, keep, **settings):
    match sound.uri.rpartition("/")[2]:
        case "hangs.wav":
            time.sleep(600)
        case "kills.wav":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "asks.wav":
            bytearray(3 << 30)
        case "fails.wav":
            raise RuntimeError("one\\nof\\nours")
        case "tires.wav" if read:
            os.abort()
    read.append(sound)
    return well(sound, keep, **settings)
decoder_child.read_into = misbehave
decoder_child.serve(**json.loads(sys.argv[1]))
"""


@pytest.fixture
def hurt(monkeypatch, tmp_path):
    """A decoder whose child does what the names of recordings say, and the recordings."""
    monkeypatch.setattr(decoder, "PROGRAM", MISBEHAVING)
    for name in ("hangs", "kills", "asks", "fails", "tires", "well"):
        soundfile.write(tmp_path / f"{name}.wav", np.full(1_600, 0.1), SAMPLE_RATE)
    made = Decoder(Limits(patience=5.0, memory=1 << 29))
    yield made
    made.close()


def children() -> set[int]:
    """Decoders that we have started and that have not ended; other tests start other processes."""
    own = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()
    return {int(p) for p in own if b"tracker" not in Path(f"/proc/{p}/cmdline").read_bytes()}


def is_alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    except OSError:
        return False


def test_a_child_hears_what_this_process_hears(tmp_path):
    rng = np.random.default_rng(0)
    sides = rng.uniform(-0.5, 0.5, (200_000, 2))
    soundfile.write(tmp_path / "a.flac", sides, 44_100)
    made = Decoder()
    for sound in (JFK, tmp_path / "a.flac", Sound(str(tmp_path / "a.flac"), 20_001, 40_000), JFK):
        wave, digest = made.read_hashed(sound)
        expected, known = read_hashed(sound)
        np.testing.assert_array_equal(wave, expected)
        assert digest == known
    made.close()


def test_recordings_that_are_named_ahead_are_those_that_are_read(tmp_path):
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.flac" for number in range(3)]
    for number, path in enumerate(paths):
        soundfile.write(path, rng.uniform(-0.5, 0.5, 30_000 + 9_000 * number), 24_000)
    one, two, three = paths
    made = Decoder()
    # As named, another one, the same again, one of another length at most, and none named.
    for now, then in [(one, two), (two, three), (one, one), (one, two), (two, None), (three, None)]:
        wave, digest = made.read_hashed(now, then=then)
        expected, known = read_hashed(now)
        np.testing.assert_array_equal(wave, expected)
        assert digest == known
    made.read_hashed(one, then=two)
    with pytest.raises(AudioError, match=f"^{two}: longer than 1 second"):
        made.read_hashed(two, 1.0)
    made.close()


@pytest.mark.parametrize(
    ("name", "code"),
    [("hangs", "timed_out"), ("kills", "crashed"), ("asks", "too_large"), ("fails", "crashed")],
)
def test_what_is_named_ahead_harms_no_other_recording(hurt, tmp_path, name, code):
    hurt.limits = Limits(patience=1.0, memory=1 << 29)
    path, well, tires = (tmp_path / f"{each}.wav" for each in (name, "well", "tires"))
    assert len(hurt.read_hashed(well, then=path)[0]) == 1_600
    assert len(hurt.read_hashed(tires, then=well)[0]) == 1_600
    assert len(hurt.read_hashed(well, then=path)[0]) == 1_600
    with pytest.raises(AudioError, match=f"^{path}: ") as caught:
        hurt.read_hashed(path, then=well)
    assert caught.value.code == code
    assert len(hurt.read_hashed(well)[0]) == 1_600


def test_what_is_given_back_between_long_recordings_does_no_harm(monkeypatch):
    monkeypatch.setattr(decoder, "KEPT", 1_000)
    made = Decoder()
    one, two = made.read_hashed(JFK)[0], made.read_hashed(JFK)[0]
    made.close()
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [
        ("hangs", "timed_out", "not decoded after 5 seconds"),
        ("kills", "crashed", r"died of it \(SIGSEGV\)"),
        ("asks", "too_large", "more memory than is allowed"),
        ("fails", "crashed", r"failed \(RuntimeError: one of ours\)"),
    ],
)
def test_a_child_that_suffers_is_replaced_and_the_recording_refused(
    hurt, tmp_path, name, code, reason
):
    path = tmp_path / f"{name}.wav"
    with pytest.raises(AudioError, match=rf"^{path}: .*{reason}.*; convert it") as caught:
        hurt.read_hashed(path)
    assert caught.value.code == code
    assert "\n" not in str(caught.value)
    assert len(hurt.read_hashed(tmp_path / "well.wav")[0]) == 1_600


def test_what_a_child_has_read_before_does_not_decide(hurt, tmp_path):
    hurt.read_hashed(tmp_path / "well.wav")
    assert len(hurt.read_hashed(tmp_path / "tires.wav")[0]) == 1_600


def test_closing_ends_a_child_that_hangs_at_once(hurt, tmp_path):
    hurt.limits = Limits(patience=300.0)
    hurt.start()
    (child,) = children()
    found = []

    def read() -> None:
        try:
            hurt.read_hashed(tmp_path / "hangs.wav")
        except AudioError as error:
            found.append(error.code)

    reading = threading.Thread(target=read)
    reading.start()
    time.sleep(0.3)
    began = time.monotonic()
    hurt.close()
    reading.join()
    assert time.monotonic() - began < 20
    assert found == ["crashed"]
    assert not is_alive(child)
    with pytest.raises(ChildProcessError, match="any more"):
        hurt.read_hashed(tmp_path / "well.wav")


def test_ctrl_c_is_not_for_the_child(hurt, tmp_path):
    hurt.start()
    (child,) = children()
    os.kill(child, signal.SIGINT)
    assert len(hurt.read_hashed(tmp_path / "well.wav")[0]) == 1_600
    assert children() == {child}


def test_a_hanging_child_ends_when_its_parent_is_killed(hurt, tmp_path):
    script = (
        "import threading, time\nfrom pathlib import Path\nfrom spirit.data import decoder\n"
        f"decoder.PROGRAM = {MISBEHAVING!r}\nhurt = decoder.Decoder()\nhurt.start()\n"
        "print(hurt._child.process.pid, flush=True)\n"
        f"hurt.read_hashed(Path({str(tmp_path / 'hangs.wav')!r}))\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    time.sleep(0.5)
    assert is_alive(child)
    parent.kill()
    parent.communicate()
    for _ in range(100):
        if not is_alive(child):
            return
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the child lives on")


def test_a_dead_child_leaves_nothing_open(hurt, tmp_path):
    def kill() -> int:
        with pytest.raises(AudioError, match="SIGSEGV"):
            hurt.read_hashed(tmp_path / "kills.wav")
        return len(list(Path("/proc/self/fd").iterdir()))

    assert kill() == kill()


def test_a_child_that_does_not_start_is_no_fault_of_the_recordings(tmp_path, monkeypatch):
    monkeypatch.setattr(decoder, "PROGRAM", "sys.exit(3)")
    build_tokenizer(tmp_path / "tiny")
    soundfile.write(tmp_path / "a.wav", np.full(16_000, 0.1), SAMPLE_RATE)
    with pytest.raises(ChildProcessError, match=r"did not start \(exit code 3\); run the same"):
        tokenize(tmp_path, tmp_path / "tiny", tmp_path / "units")
    assert not (tmp_path / "units").exists()
