"""The corpus that the recipe makes: what its manifests say is what is to be heard in its files."""

import itertools
import json
import random
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from spirit import commit

TINY = Path(__file__).parents[1] / "recipes/tiny"
sys.path.insert(0, str(TINY))

import augment  # noqa: E402
import corpus  # noqa: E402
import language  # noqa: E402
import prompts  # noqa: E402
import voices  # noqa: E402

needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
needs_prompts = pytest.mark.skipif(not prompts.SOUNDS.is_dir(), reason="prompts not installed")

Line = dict[str, object]


def run(out: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Run corpus.py as the recipe does."""
    command = [
        sys.executable,
        str(TINY / "corpus.py"),
        "--out",
        str(out),
        "--prompts",
        "0",
        "--texts",
        "50",
        "--written",
        "70",
    ]
    return subprocess.run([*command, *args], capture_output=True, text=True, check=False)


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def pitch(wave: np.ndarray) -> float:
    """The median F0 in Hz of the voiced part of a recording, by autocorrelation."""
    found = []
    for start in range(0, len(wave) - 1024, 320):
        frame = wave[start : start + 1024] - wave[start : start + 1024].mean()
        correlation = np.correlate(frame, frame, "full")[1023:]
        lag = 40 + int(correlation[40:300].argmax())
        if correlation[0] > 1 and correlation[lag] > 0.6 * correlation[0]:
            found.append(16_000 / lag)
    return float(np.median(found))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("voices")
    voices.prepare(folder)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small corpus with many changed copies."""
    out = tmp_path_factory.mktemp("corpus") / "corpus"
    done = run(out, "--sentences", "6", "--heldout", "4", "--augment", "0.9", "--seed", "5")
    assert done.returncode == 0, done.stderr
    assert "6 sentences" in done.stdout
    assert "0 dropped" in done.stdout
    return out


@needs_flite
def test_words_are_where_the_voice_says_them(made: Path) -> None:
    for line in [*read(made / "train.jsonl"), *read(made / "heldout.jsonl")]:
        wave, rate = soundfile.read(made / line["audio"])
        assert rate == 16_000
        assert line["seconds"] == pytest.approx(len(wave) / rate, abs=1e-3)
        words = line["words"]
        if line["speaker"] == "nobody":
            assert (words, line["text"], line["language"]) == ([], "", "zxx")
            continue
        assert [word["text"] for word in words] == line["text"].split()
        places = [at for word in words for at in (word["start"], word["stop"])]
        assert places == sorted(places)
        assert places[-1] <= len(wave)
        if "augmented" not in line:
            inside = wave[places[0] : places[-1]]
            silent = np.concatenate([wave[: places[0]], wave[places[-1] :]])
            assert np.mean(inside**2) > 50 * np.mean(silent**2)


@needs_flite
def test_changed_copy_keeps_words_and_style(made: Path) -> None:
    lines = {line["id"]: line for line in read(made / "train.jsonl")}
    copies = [line for line in lines.values() if "augmented" in line]
    assert copies
    further = read(made / "heard.jsonl")
    assert further
    assert all(copy["id"].endswith("-n") for copy in further)
    for copy in [*copies, *further]:
        original, speed = lines[copy["id"][:-2]], copy["augmented"]["speed"]
        assert (copy["text"], copy["style"]) == (original["text"], original["style"])
        assert copy["seconds"] == pytest.approx(original["seconds"] / speed, abs=0.01)
        for word, before in zip(copy["words"], original["words"], strict=True):
            assert word["start"] * speed == pytest.approx(before["start"], abs=2)


@needs_flite
def test_held_out_sentences_and_settings_stay_apart(made: Path) -> None:
    assert all(language.heldout(line["text"]) for line in read(made / "heldout.jsonl"))
    assert not any(language.heldout(line["text"]) for line in read(made / "train.jsonl"))
    assert {line["speaker"] for line in read(made / "heldout.jsonl")} == set(voices.VOICES)
    text, written = ((made / f"{n}.txt").read_text().splitlines() for n in ("text", "written"))
    assert (len(text), len(written)) == (50, 70)
    assert not any(language.heldout(sentence) for sentence in text + written)
    assert len(set(text + written)) > 110  # drawn apart from one another


@pytest.mark.parametrize("style", voices.STYLES)
def test_held_out_settings_lie_in_bands_of_their_own(style: str) -> None:
    for seed in range(60):
        for held in (False, True):
            settings = voices.draw_settings("slt", style, held, random.Random(seed))
            mean, spread = voices.VOICES["slt"]
            factors = (settings.f0_mean / mean, settings.f0_spread / spread, settings.rate)
            for factor, (low, high) in zip(factors, voices.STYLES[style], strict=True):
                assert int((factor - low) / (high - low) * voices.BANDS) % 2 == held


@needs_flite
@pytest.mark.parametrize("voice", voices.VOICES)
def test_voice_obeys_pitch_and_rate(voice: str, scratch: Path) -> None:
    text, (mean, _) = "we are rowing along a narrow river", voices.VOICES[voice]
    low, _ = voices.speak(text, voice, voices.Settings(mean * 0.75, 5.0, 1.0), scratch)
    high, _ = voices.speak(text, voice, voices.Settings(mean * 1.35, 5.0, 1.0), scratch)
    fast, _ = voices.speak(text, voice, voices.Settings(mean * 1.35, 5.0, 1.4), scratch)
    assert pitch(low) == pytest.approx(mean * 0.75, rel=0.06)
    assert pitch(high) == pytest.approx(mean * 1.35, rel=0.06)
    assert len(fast) < 0.85 * len(high)


@needs_flite
def test_word_in_doubt_is_not_guessed(scratch: Path) -> None:
    alone = voices.pronunciations(["red", "apple", "strawberries"])
    settings = voices.Settings(172.0, 27.0, 1.0)
    _, phones = voices.speak("red apple", "slt", settings, scratch)
    placed = voices.locate("red apple", phones, alone)
    assert placed is not None
    assert [word for word, _, _ in placed] == ["red", "apple"]
    assert voices.locate("red strawberries", phones, alone) is None


@needs_flite
def test_interrupted_corpus_ends_as_if_it_had_not_been(made: Path, tmp_path: Path) -> None:
    config = corpus.CorpusConfig(
        sentences=6, heldout=4, prompts=0, augment=0.9, texts=50, written=70, seed=5
    )
    out = tmp_path / "corpus"
    (out / "audio").mkdir(parents=True)
    voices.prepare(tmp_path)
    alone = voices.pronunciations(sorted(language.expected()))
    corpus.make_block(config, ("heldout", 0, 4), out, tmp_path, alone)  # then the power fails
    (out / "audio/.slt-000000.flac.1.partial").write_bytes(b"torn")
    corpus.build(config, out)
    texts = ("text.txt", "written.txt")
    for name in ("train.jsonl", "heldout.jsonl", "heard.jsonl", *texts, "corpus.json"):
        assert (out / name).read_bytes() == (made / name).read_bytes()
    names = sorted(path.name for path in (made / "audio").iterdir())
    assert names == sorted(path.name for path in (out / "audio").iterdir())
    for name in names:
        assert (out / "audio" / name).read_bytes() == (made / "audio" / name).read_bytes()


@needs_flite
def test_another_corpus_does_not_go_on_with_an_interrupted_one(tmp_path: Path) -> None:
    config = corpus.CorpusConfig(sentences=0, heldout=0, prompts=0, texts=2, written=2, quiet=3)
    out = tmp_path / "corpus"
    commit.text(out / "parts/config.json", json.dumps(asdict(replace(config, seed=7))))
    with pytest.raises(ValueError, match="was begun as another corpus"):
        corpus.build(config, out)
    (out / "parts/config.json").unlink()
    corpus.build(config, out)
    lines = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    assert [(line["text"], line["language"], line["speaker"]) for line in lines] == [
        ("", "zxx", "nobody")
    ] * 3
    assert not (out / "parts").exists()


def test_changed_copies_and_nothing_else_are_left_out_by_the_recipes() -> None:
    with (TINY / "lm.toml").open("rb") as heard, (TINY / "vocoder.toml").open("rb") as voice:
        only_heard = tomllib.load(heard)["mixture"]["only_heard"]
        without = tomllib.load(voice)["without"]
    clean = [prompt.id for prompt in prompts.read_prompts(sounds=None)] + ["slt-000017"]
    for pattern in (only_heard, without):
        assert not [name for name in clean if re.search(pattern, name)]
        assert re.search(pattern, "slt-000017-a")
        assert re.search(pattern, f"{clean[0]}-a2")
    assert re.search(only_heard, "slt-000017-n")
    assert re.search(without, "quiet-000003")


@needs_flite
def test_a_corpus_from_before_further_copies_is_left_alone(tmp_path: Path) -> None:
    small = ("--sentences", "0", "--heldout", "0", "--quiet", "1", "--noisy", "0")
    assert run(tmp_path, *small, "--written", "0").returncode == 0
    made = tmp_path / "corpus.json"
    told = json.loads(made.read_text())
    del told["noisy"], told["written"]
    made.write_text(json.dumps(told))
    (tmp_path / "heard.jsonl").unlink()
    assert run(tmp_path, *small, "--written", "0").returncode == 0
    assert "another corpus" in run(tmp_path, *small, "--written", "3").stderr


@needs_flite
def test_finished_corpus_is_left_alone(made: Path) -> None:
    before = (made / "train.jsonl").stat().st_mtime_ns
    same = ("--sentences", "6", "--heldout", "4", "--augment", "0.9", "--seed", "5")
    assert run(made, *same).returncode == 0
    assert (made / "train.jsonl").stat().st_mtime_ns == before
    other = run(made, "--sentences", "7")
    assert other.returncode == 1
    assert other.stderr.startswith("error: ")
    assert other.stderr.count("\n") == 1


def test_noise_has_the_level_that_was_drawn() -> None:
    rng = np.random.default_rng(1)
    wave = (0.1 * np.sin(np.arange(16_000) * 0.2)).astype(np.float32)
    for noise in ("white", "pink", "hum"):
        change = augment.Change(1.0, None, noise, 12.0, 1.0, int(rng.integers(100)))
        rest = augment.apply(wave, change) - wave
        snr = 10 * np.log10(np.mean(wave**2) / np.mean(rest**2))
        assert snr == pytest.approx(12.0, abs=0.1)


def test_band_stops_what_lies_outside() -> None:
    times = np.arange(16_000) / 16_000
    change = augment.Change(1.0, (200, 4000), None, 30.0, 1.0, 0)
    for frequency, passes in ((60, False), (1000, True), (6000, False)):
        wave = np.sin(2 * np.pi * frequency * times).astype(np.float32)
        loudness = np.std(augment.apply(wave, change)) / np.std(wave)
        assert loudness > 0.95 if passes else loudness < 0.05


def test_prompts_are_written_as_spoken() -> None:
    lines = prompts.TEXTS.read_text().splitlines()
    assert "CC-BY-SA-3.0" in "".join(line for line in lines if line.startswith("#"))
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    assert len(rows) > 300
    assert len({path for path, _ in rows}) == len(rows)
    assert all(re.fullmatch(r"[a-z']+( [a-z']+)*", text) for _, text in rows)


@needs_prompts
def test_every_prompt_is_there_and_a_tenth_is_held_out() -> None:
    found = prompts.read_prompts()
    assert all((prompts.SOUNDS / f"{prompt.path}.g722").is_file() for prompt in found)
    assert 0.05 < sum(prompt.heldout for prompt in found) / len(found) < 0.16


@pytest.fixture(scope="module")
def alone() -> dict[str, list[str]]:
    """How flite says the words of the prompts."""
    said = {word for prompt in prompts.read_prompts(sounds=None) for word in prompt.text.split()}
    return voices.pronunciations(sorted(said | {"qwrtz"}))


@needs_flite
@needs_prompts
def test_human_words_and_phones_are_found_in_order(alone: dict[str, list[str]]) -> None:
    prompt = next(p for p in prompts.read_prompts() if p.path == "all-circuits-busy-now")
    wave = prompts.read_wave(prompt)
    assert np.abs(wave).max() > 0.3
    found = prompts.Aligner(alone).align(wave, prompt.text)
    assert found is not None
    assert [word for word, _, _ in found.words] == prompt.text.split()
    ends = [at for _, *span in found.phones for at in span]
    assert ends == sorted(ends)
    assert ends[-1] <= len(wave)
    word, start, stop = found.words[2]
    assert word == "are"
    assert [name for name, *at in found.phones if start <= at[0] < stop] in (["aa", "r"], ["er"])
    assert {name for name, _, _ in found.phones} <= {*itertools.chain(*alone.values()), "pau"}
    assert prompts.Aligner(alone).align(wave, "qwrtz " * 40 + "busy") is None


@needs_flite
@needs_prompts
def test_human_recordings_are_copied_for_training_alone(
    alone: dict[str, list[str]], tmp_path: Path
) -> None:
    (tmp_path / "audio").mkdir()
    config, aligner = corpus.CorpusConfig(copies=2), prompts.Aligner(alone)
    spoken = prompts.read_prompts()
    held = next(prompt for prompt in spoken if prompt.heldout)
    assert len(corpus.make_human(config, held, tmp_path, aligner)) == 1
    prompt = next(prompt for prompt in spoken if prompt.path == "all-circuits-busy-now")
    line, *copies = corpus.make_human(config, prompt, tmp_path, aligner)
    assert "phones" in line
    assert [copy["id"] for copy in copies] == [f"{line['id']}-a0", f"{line['id']}-a1"]
    for copy in copies:
        assert (copy["text"], copy["speaker"]) == (line["text"], "allison")
        assert copy["words"][-1]["stop"] <= round(copy["seconds"] * 16_000) + 1
        speed = copy["augmented"]["speed"]
        assert copy["words"][0]["stop"] * speed == pytest.approx(line["words"][0]["stop"], abs=2)


def test_synthetic_voices_say_prompts_but_none_that_is_held_out() -> None:
    texts = set(corpus.prompted_texts())
    spoken = prompts.read_prompts(sounds=None)
    held = {prompt.text for prompt in spoken if prompt.heldout}
    assert not texts & held
    assert not held & {prompt.text for prompt in spoken if not prompt.heldout}
    assert not any(language.heldout(text) for text in texts)
    config = corpus.CorpusConfig(prompted=0.5)
    drawn = [corpus.plan(config, "train", index).text for index in range(200)]
    assert 0.35 < sum(text in texts for text in drawn) / len(drawn) < 0.65
    kept = [corpus.plan(config, "heldout", index).text for index in range(50)]
    assert not set(kept) & texts


def test_missing_prompts_say_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="apt-get install asterisk-core-sounds-en-g722"):
        prompts.read_prompts(tmp_path / "none")
