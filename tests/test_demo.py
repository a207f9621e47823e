"""The demonstration: what is heard and answered is printed, spoken and drawn."""

from pathlib import Path

import numpy as np
import pytest

from spirit.audio import read_audio
from spirit.demo import SAID, Block, picture, run
from spirit.pipeline import Spirit
from spirit.units import SAMPLE_RATE
from tests.bundle import JFK

pytest_plugins = "tests.fixtures"


def pixels(path: Path) -> np.ndarray:
    from matplotlib.image import imread

    image: np.ndarray = imread(path)
    return image


def test_the_demo_writes_what_it_says(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(bundle, out=tmp_path)
    printed = capsys.readouterr().out.split("\n")
    assert [line.split(" ")[0] for line in printed if line.startswith(("heard", "read"))] == [
        "heard",
        "read",
    ]
    assert f"spoken    demo/prompt.flac: {SAID}" in printed
    assert f'"{SAID}"' in Path("demo/README.md").read_text(encoding="utf-8")
    lengths = [float(line.split("[")[1].split(" ")[0]) for line in printed if "s of speech" in line]
    assert lengths
    reply = len(read_audio(tmp_path / "reply.wav")) / SAMPLE_RATE
    assert sum(lengths) == pytest.approx(reply, abs=0.01 * len(lengths))
    assert pixels(tmp_path / "reply.png").shape[0] > 600


def test_a_picture_gives_speech_the_room_of_its_time(spirit: Spirit, tmp_path: Path) -> None:
    """A black half, then a coloured one, where the widths of the blocks say they must be."""
    wave = np.concatenate([np.zeros(len(read_audio(JFK)), np.float32), read_audio(JFK)])
    tracks = spirit.tokenizer.encoder.encode(wave)
    blocks = [
        Block("asked", "you wrote", "and so"),
        Block("text", "it writes", "my fellow americans"),
        Block("speech", "it says", wave=wave, tracks=tracks),
    ]
    picture(tmp_path / "a.png", blocks, "a picture")
    image = pixels(tmp_path / "a.png")[..., :3]
    dark = image.max(2) < 0.1  # the spectrogram is all black in the silent half only
    columns = np.flatnonzero(dark.mean(0) > 0.22)
    width = columns[-1] - columns[0]
    spoken = sum(block.seconds for block in blocks[:2]), blocks[2].seconds
    inch = image.shape[1] - 110 * 1.5  # pixels of the axes: all but the margins
    expected = 110 * 1.2 + inch * spoken[0] / sum(spoken)
    assert columns[0] == pytest.approx(expected, abs=0.02 * image.shape[1])
    assert width == pytest.approx(inch * spoken[1] / sum(spoken) / 2, rel=0.1)
