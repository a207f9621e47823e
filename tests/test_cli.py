"""The command line: order of prompts, where speech goes, what is printed, how it ends."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from spirit.audio import read_audio
from spirit.cli import main
from spirit.pipeline import Spirit
from spirit.units import SAMPLE_RATE, Units
from tests.bundle import JFK

pytest_plugins = "tests.fixtures"

VERBS = (
    "tokenize",
    "align",
    "fit",
    "preview",
    "train",
    "generate",
    "resynth",
    "eval",
    "convert",
    "export",
    "info",
)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Every call of `Spirit.generate`, which still does its work."""
    calls: list[dict[str, Any]] = []
    generate = Spirit.generate

    def listen(self: Spirit, prompt: Any, want: Any, task: Any, **settings: Any) -> Any:
        calls.append({"prompt": prompt, "want": want, "task": task, **settings})
        return generate(self, prompt, want, task, max_tokens=20, **settings)

    monkeypatch.setattr(Spirit, "generate", listen)
    return calls


def test_help_comes_at_once() -> None:
    times = []
    for _ in range(5):
        start = time.monotonic()
        done = subprocess.run([sys.executable, "-m", "spirit", "--help"], capture_output=True)
        times.append(time.monotonic() - start)
        assert done.returncode == 0
    assert min(times) < 0.5


def test_verbs_stand_in_the_order_of_the_pipeline() -> None:
    verbs = re.findall(r"^  (\w+)  ", run("--help").stdout.split("Commands:")[1], re.M)
    assert verbs == list(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str) -> None:
    assert run(verb, "--help").exit_code == 0


def test_the_order_on_the_command_line_is_the_order_of_the_prompt(
    bundle: Path, asked: list[dict[str, Any]]
) -> None:
    prompt = ["--prompt-audio", JFK, "--prompt-text", "one", f"--prompt-audio={JFK}"]
    done = run("generate", "--model", bundle, *prompt, "--prompt-text=two", "--want", "text")
    assert done.exit_code == 0, done.stderr
    heard, one, again, two = asked[0]["prompt"]
    assert (one, two) == ("one", "two")
    assert isinstance(heard, Units)
    assert heard == again


def test_any_is_wanted_and_a_continuation_is_the_task_by_default(
    bundle: Path, tmp_path: Path, asked: list[dict[str, Any]]
) -> None:
    done = run("generate", "--model", bundle, "--prompt-text", "so", "--out", tmp_path / "a.wav")
    assert done.exit_code == 0, done.stderr
    assert (asked[0]["want"], asked[0]["task"]) == ("any", "continue")


def test_speech_segments_are_joined_and_listed_with_their_times(
    bundle: Path, tmp_path: Path, talkative: None
) -> None:
    out = tmp_path / "reply.wav"
    settings = ["--temperature", "2", "--top-p", "1", "--json", "--out", out]
    done = run("generate", "--model", bundle, "--prompt-text", "so", *settings)
    assert done.exit_code == 0, done.stderr
    answer = json.loads(done.stdout)
    speech = [s for s in answer["segments"] if s["type"] == "speech"]
    assert len(speech) > 1
    assert {s["type"] for s in answer["segments"]} == {"text", "speech"}
    starts, stops = [s["start"] for s in speech], [s["stop"] for s in speech]
    assert starts == [0.0, *stops[:-1]]
    assert stops[-1] == answer["seconds"] == len(read_audio(out)) / SAMPLE_RATE
    assert all(re.fullmatch(r"(\[(Hu|Pi|St)\d+\])+", s["units"]) for s in speech)
    assert answer["out"] == str(out)


def test_the_spoken_answer_is_what_the_library_speaks(
    bundle: Path, spirit: Spirit, tmp_path: Path
) -> None:
    out = tmp_path / "reply.wav"
    settings = ["--want", "speech", "--seed", "3", "--speaker", "rms", "--style", "sad"]
    done = run("generate", "--model", bundle, "--prompt-text", "so", "--out", out, *settings)
    assert done.exit_code == 0, done.stderr
    (units,) = spirit.generate(["so"], want="speech", seed=3)
    np.testing.assert_allclose(read_audio(out), spirit.speak(units, "rms", "sad"), atol=1e-4)
    assert str(out) in done.stdout


def test_transcribe_prints_the_words_on_one_line_and_nothing_else(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = "spirit: no words are heard in the recording\n"
    for said, printed, told in (
        ([" the weather\nis  nice "], "the weather is nice\n", ""),
        ([], "\n", nothing),
    ):
        monkeypatch.setattr(Spirit, "generate", lambda *_, said=said, **__: iter(said))
        done = run("generate", "--model", bundle, "--prompt-audio", JFK, "--task", "transcribe")
        assert (done.exit_code, done.stdout, done.stderr) == (0, printed, told)


def test_the_prompt_is_not_repeated(bundle: Path) -> None:
    done = run("generate", "--model", bundle, "--prompt-text", "quite unlikely", "--want", "text")
    assert done.exit_code == 0
    assert "quite unlikely" not in done.stdout


@pytest.mark.parametrize(
    "wish", [[], ["--want", "any"], ["--want", "speech"], ["--task", "speak"], ["--json"]]
)
def test_speech_without_out_is_refused_before_any_work(wish: list[str]) -> None:
    done = run("generate", "--model", "nowhere", "--prompt-text", "so", *wish)
    assert done.exit_code == 1
    assert done.stderr.startswith("spirit: the answer may hold speech; say where it goes, --out")


def test_text_needs_no_out_and_writes_none(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "reply.wav"
    wish = ["--want", "text", "--json", "--out", out]
    done = run("generate", "--model", bundle, "--prompt-text", "so", *wish)
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["out"] is None
    assert "not written" in done.stderr
    assert not list(tmp_path.iterdir())


def test_resynthesis_keeps_the_length_of_the_original(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "again.flac"
    done = run("resynth", JFK, out, "--model", bundle, "--speaker", "rms")
    assert done.exit_code == 0
    said = len(read_audio(JFK)) // 640 * 640
    assert len(read_audio(out)) == said
    assert done.stdout.startswith(f"{out}: {said / SAMPLE_RATE:.2f} s of speech, from ")
    done = run("resynth", JFK, out, "--model", bundle, "--predict-durations", "--json")
    assert done.exit_code == 0
    told = json.loads(done.stdout)
    assert (told["out"], told["seconds"]) == (str(out), len(read_audio(out)) / SAMPLE_RATE)
    spirit = Spirit.load(bundle, device="cpu")
    predicted = spirit.seconds(spirit.hear(read_audio(JFK))) * SAMPLE_RATE
    assert len(read_audio(out)) == round(predicted)


def test_info_knows_what_a_path_is(bundle: Path, tmp_path: Path) -> None:
    home = bundle.parents[1] / "tokenizers" / "tiny"
    facts = {}
    for path in (JFK, home, bundle):
        done = run("info", path, "--json")
        assert done.exit_code == 0, done.stderr
        facts[path] = json.loads(done.stdout)
        assert facts[path]["kind"] in run("info", path).stdout
    assert [f["kind"] for f in facts.values()] == ["recording", "tokenizer", "model"]
    assert facts[JFK]["seconds"] == 2.5
    assert facts[home]["units"] == {"hubert": 12, "pitch": 16, "style": 3}
    assert facts[bundle]["speakers"] == ["slt", "rms"]
    assert facts[bundle]["styles"] == list(Spirit.load(bundle, device="cpu").styles)
    loaded = Spirit.load(bundle, device="cpu")
    assert facts[bundle]["parameters"] == sum(p.numel() for p in loaded.model.parameters())
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/some.txt").write_text("one\ntwo\n")
    made = ("--text", "--tokenizer", home, "--out", tmp_path / "made")
    assert run("tokenize", tmp_path / "texts", *made).exit_code == 0
    told = json.loads(run("info", tmp_path / "made", "--json").stdout)
    assert (told["kind"], told["documents"]) == ("text shards", 2)
    assert "corpus becomes shards by `spirit tokenize`" in run("info", tmp_path).stderr
    (tmp_path / "recipe.toml").touch()
    assert "name what it made" in run("info", tmp_path / "recipe.toml").stderr


@pytest.mark.parametrize("verb", ["train", "fit hubert", "fit units", "fit robust", "fit vocoder"])
def test_a_recipe_is_read_strictly(tmp_path: Path, verb: str) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('out = "x"\nnonsense = 1\n')
    for arguments in ((recipe,), (tmp_path / "none.toml",)):
        done = run(*verb.split(), *arguments)
        assert done.exit_code == 1
        assert re.fullmatch(r"spirit: .*(nonsense|no such recipe).*\n", done.stderr)


def test_a_launcher_may_add_its_own_option(tmp_path: Path) -> None:
    done = run("--local_rank=1", "train", tmp_path / "none.toml")
    assert done.exit_code == 1
    assert "no such recipe" in done.stderr


def test_debug_shows_where_an_error_comes_from(tmp_path: Path) -> None:
    for arguments in (("info", "--debug", "x"), ("--debug", "info", "x")):
        with CliRunner().isolation(), pytest.raises(ValueError, match="no such file"):
            main(list(arguments), standalone_mode=False)


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'deepspeed'", name="deepspeed")

    monkeypatch.setattr("spirit.config.load", absent)
    done = run("fit", "hubert", "x.toml")
    assert done.exit_code == 1
    assert "pip install '.[train]'" in done.stderr


def test_an_unexpected_error_is_one_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spirit.info.describe", lambda _: {}["odd"])
    done = run("info", JFK)
    assert done.exit_code == 1
    assert done.stderr == "spirit: unexpected KeyError: 'odd' (--debug shows where)\n"
