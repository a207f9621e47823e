"""One report of all suites: what was measured, what was not, and something to listen to."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from spirit.audio import read_audio
from spirit.cli import main
from spirit.eval.figures import mean
from spirit.eval.page import Line, page
from tests import released
from tests import suites as miniatures
from tests.bundle import JFK

pytest_plugins = "tests.fixtures"


class Tags(HTMLParser):
    """Collects tags with their attributes, and checks that they close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_fetches_nothing():
    wave = (0.5 * np.sin(np.arange(1_600) / 5)).astype(np.float32)
    text = page(
        "model <b>",
        {"suite": {"right": mean([1.0, 0.0, 1.0, 1.0])}},
        ["salmon"],
        [[Line("recording:", "a < b & c", wave, "[Hu1][Hu2]")]],
    )
    tags = Tags()
    tags.feed(text)
    assert not tags.open
    assert "model &lt;b&gt;" in text
    assert "a &lt; b &amp; c" in text
    assert "Not measured: salmon." in text
    assert "75.0 %" in text
    fetched = [a[k] for _, a in tags.seen for k in ("src", "href") if a.get(k)]
    (sound,) = fetched
    coded = re.fullmatch(r"data:audio/flac;base64,(.+)", str(sound))
    assert coded
    played, rate = soundfile.read(io.BytesIO(base64.b64decode(coded[1])), dtype="float32")
    assert rate == 16_000
    assert np.abs(played - wave).max() < 1e-4


def test_everything_that_there_is_data_for_is_measured(bundle, tmp_path):
    miniatures.swuggy(tmp_path / "data/swuggy")
    miniatures.salmon(tmp_path / "data/salmon")
    lost = min((tmp_path / "data/swuggy/lexical/dev").glob("*.wav"))
    lost.unlink()
    (tmp_path / "data/mmlu").mkdir()  # nothing in it: the others are measured all the same
    asked = ["eval", "all", "--model", str(bundle), "--data", str(tmp_path / "data")]
    out = tmp_path / "report"
    asked += ["--out", str(out), "--jobs", "1", "--device", "cpu"]
    said = CliRunner().invoke(main, asked)
    assert said.exit_code == 0, said.output
    assert "| salmon | mean/part/bg_alignment |" in said.output
    assert "Not measured, for want of data: tiny, sblimp," in said.output
    assert "Left out of swuggy: 1 x no such wav file, 1 x no partner." in said.output
    assert "Could not be measured: mmlu: " in said.output
    kept = json.loads((out / "figures.json").read_text())
    assert set(kept["figures"]) == {"swuggy", "salmon"}
    assert "asr" in kept["not_measured"]
    assert (out / "README.md").read_text() in said.output + "\n"
    shown = (out / "index.html").read_text()
    assert "<h2>salmon</h2>" in shown
    assert "Left out of swuggy: 1 x no such wav file, 1 x no partner." in shown
    assert shown.count("<audio ") == 4
    same = CliRunner().invoke(main, ["eval", "compare", str(out), str(out)])
    assert same.exit_code == 0, same.output
    assert same.output.count("+0.0 points (+0.0 to +0.0)") == 4


def test_a_released_model_is_measured_as_it_is(tmp_path):
    pytest.importorskip("sentencepiece")
    folder = miniatures.swuggy(tmp_path / "swuggy")
    asked = ["eval", "swuggy", "--model", str(released.MODELS["expressive"]), "--data", str(folder)]
    asked += ["--out", str(tmp_path / "out"), "--limit", "1", "--jobs", "1", "--device", "cpu"]
    said = CliRunner().invoke(main, asked)
    assert said.exit_code == 0, said.output
    assert "Left out: 3 x beyond --limit." in said.output


def test_a_folder_without_any_suite_is_told(bundle, tmp_path):
    asked = ["eval", "all", "--model", str(bundle), "--data", str(tmp_path)]
    said = CliRunner().invoke(main, [*asked, "--out", str(tmp_path / "out")])
    assert said.exit_code == 1
    assert "has none of the folders tiny, swuggy" in said.output
    assert not (tmp_path / "out").exists()


def test_recordings_and_continuations_are_part_of_the_report(bundle, tmp_path):
    twice = np.concatenate([read_audio(JFK)] * 2)
    soundfile.write(tmp_path / "twice.flac", twice, 16_000)
    line = {"audio": str(tmp_path / "twice.flac"), "text": "and so my fellow americans"}
    for name in ("resynth", "generation", "asr"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "corpus.jsonl").write_text(json.dumps(line) + "\n")
    out = tmp_path / "out"
    asked = ["eval", "all", "--model", str(bundle), "--data", str(tmp_path / "data")]
    asked += ["--shots", "0"]  # of ten, as in the paper, there would be too few
    said = CliRunner().invoke(main, [*asked, "--out", str(out), "--jobs", "1", "--device", "cpu"])
    assert said.exit_code == 0, said.output
    assert "| asr | wer | " in said.output
    assert "| resynth | mcd | " in said.output
    assert "| generation | words | " in said.output
    shown = (out / "index.html").read_text()
    assert "said again, as heard:" in shown
    assert "(to say: and so my fellow americans)" in shown
    assert "gone on, as heard:" in shown


@pytest.mark.parametrize("name", ["tiny", "swuggy", "asr", "stsp", "resynth", "all", "compare"])
def test_every_command_explains_itself(name):
    said = CliRunner().invoke(main, ["eval", name, "--help"])
    assert said.exit_code == 0
    assert "Usage: main eval" in said.output
