"""The evaluation of the bundle: what is measured, what the figures are of, what the card says."""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from spirit import commit
from spirit.audio import read_audio
from spirit.data.corpus import Utterance
from spirit.eval import tiny
from spirit.eval.answers import add_noise
from spirit.eval.card import write_card
from spirit.eval.measures import figures_of, values_of
from spirit.eval.report import HUMAN, Report, markdown
from spirit.eval.tiny import choose, digest, draw_prompts, evaluate_tiny
from spirit.units import Word

pytest_plugins = "tests.fixtures"


def clip(speaker: str, number: int, words: int = 6) -> Utterance:
    said = [Word(f"w{i}", 1_000 * i, 1_000 * (i + 1)) for i in range(words)]
    text = " ".join(word.text for word in said)
    return Utterance(
        f"{speaker}-{number}", Path(f"{speaker}-{number}.flac"), 1.0, text, tuple(said), speaker
    )


JFK = Path(__file__).parent / "data" / "jfk.flac"
CORPUS = [clip(voice, n) for voice in ("slt", "rms", "awb") for n in range(20)]
PEOPLE = [clip(HUMAN, n) for n in range(3)]


def test_the_choice_is_even_over_voices_and_keeps_the_human_apart():
    clips, human = choose([*CORPUS, *PEOPLE], 30)
    assert Counter(c.speaker for c in clips) == {"slt": 10, "rms": 10, "awb": 10}
    assert {c.id for c in human} == {c.id for c in PEOPLE}


def test_the_choice_does_not_depend_on_the_order_of_the_corpus():
    assert choose(CORPUS, 10) == choose(CORPUS[::-1], 10)
    assert len(choose(CORPUS, 1_000)[0]) == len(CORPUS)


def test_prompts_are_seeded_beginnings_in_turn_written_and_spoken():
    prompts = draw_prompts(CORPUS, 100)
    assert prompts == draw_prompts(CORPUS, 100)
    assert [p.spoken for p in prompts[:4]] == [False, True, False, True]
    assert {p.words for p in prompts} == {2, 3}
    assert all(p.utterance.text.startswith(p.text + " ") for p in prompts)
    assert len({p.utterance.id for p in prompts}) > 20


def test_no_timed_words_are_no_prompts():
    with pytest.raises(ValueError, match="four timed words"):
        draw_prompts([clip("slt", 0, words=3)], 4)


def entry(speaker: str, errors: int, **more: object) -> dict[str, object]:
    return {"speaker": speaker, "errors": errors, "words": 10, **more}


def found() -> dict[str, dict[str, dict[str, object]]]:
    texts = [{"text": "the sun is shining"}, {"speech": 1.25, "heard": "the sun"}]
    return {
        "original": {"a": entry("slt", 2), "b": entry("rms", 0), "h": entry(HUMAN, 5)},
        "heard": {"a": entry("slt", 1), "b": entry("rms", 2), "h": entry(HUMAN, 9)},
        "spoken": {"a": entry("slt", 4), "b": entry("rms", 2)},
        "resynthesis": {
            "a": entry("slt", 3, correlation=0.9, voicing_error=0.1),
            "b": entry("rms", 1, correlation=None, voicing_error=0.3),
        },
        "any": {
            "0": {"prompt": "it is", "spoken": False, "segments": texts},
            "1": {"prompt": "we are", "spoken": True, "segments": texts[:1]},
            "2": {"prompt": "no", "spoken": True, "segments": [{"text": " "}, texts[1]]},
            "3": {"prompt": "yes", "spoken": False, "segments": texts[::-1]},
            "4": {
                "prompt": "a",
                "spoken": False,
                "segments": [texts[0], {"speech": 1 / 16_000, "heard": ""}],
            },
        },
    }


def test_figures_are_total_errors_over_words_without_the_human_voice():
    figures = figures_of(found())
    assert figures["heard"].value == pytest.approx(3 / 20)
    assert figures[f"heard.{HUMAN}"].value == pytest.approx(9 / 10)
    assert figures["heard.slt"].count == 1
    assert figures["original"].value == pytest.approx(2 / 20)
    assert figures["spoken.above_original"].value == pytest.approx(6 / 20 - 2 / 20)
    assert figures["resynthesis.above_original"].value == pytest.approx(4 / 20 - 2 / 20)
    assert figures["f0_correlation"].value == pytest.approx(0.9)
    assert figures["f0_correlation"].count == 1
    assert figures["voicing_error"].value == pytest.approx(0.2)
    # White space is no text, and a sample is no speech.
    assert figures["any.both"].value == pytest.approx(2 / 5)
    assert "spoken.slt" not in figures


def test_what_lasts_about_as_long_is_counted_in_and_its_length_weighed():
    parts = found()
    parts["spoken"]["a"] |= {"seconds": 2.2, "original_seconds": 2.0, "styled_seconds": 3.0}
    parts["spoken"]["b"] |= {"seconds": 1.0, "original_seconds": 4.0, "styled_seconds": 4.0}
    parts["spoken"]["a"]["style"] = "neutral"
    figures = figures_of(parts)
    assert figures["duration"].value == pytest.approx(3.2 / 6)
    assert figures["duration.within"].value == pytest.approx(1 / 2)
    assert figures["duration.neutral"].value == pytest.approx(1.1)
    assert figures["duration.neutral_within"].value == 1
    assert figures["duration.styled"].value == pytest.approx(7 / 6)
    assert figures["duration.styled_within"].value == pytest.approx(1 / 2)


def test_noise_and_sentences_have_figures_where_they_were_asked_for():
    parts = found()
    assert not {"heard.noise", "completed.text", "voices", "style"} & set(figures_of(parts))
    parts["noisy"] = {"a": entry("slt", 5), "b": entry("rms", 3)}
    parts["completed"] = {
        "0": {"accepted": True, "near": True},
        "1": {"accepted": False, "near": True},
    }
    parts["chained"] = {"0": {"accepted": True, "near": False}}
    figures = figures_of(parts)
    assert figures["heard.noise"].value == pytest.approx(8 / 20)
    assert figures["completed.text"].value == pytest.approx(1 / 2)
    assert figures["completed.speech"].value == 1
    assert figures["chained.text"].value == 1
    assert figures["chained.speech"].value == 0
    values = values_of(parts)
    assert values["heard.noise"]["a"] == (5.0, 10.0)
    assert values["completed.text"] == {"0": (1.0, 1.0), "1": (0.0, 1.0)}


def test_voices_and_styles_are_told_by_recordings_and_against_chance():
    """Voices lie apart in one feature, styles in another, which means less within a voice."""
    parts: dict[str, dict[str, dict[str, object]]] = {
        name: {} for name in ("original", "heard", "spoken", "resynthesis")
    }
    rng = np.random.default_rng(0)
    for n in range(80):
        voice, style = ("slt", "rms")[n % 2], ("high", "low", "low", "low")[n // 2 % 4]
        low, name = style == "low", f"u{n}"

        def sound(seen: str, low: bool = low) -> list[float]:
            return [9.0 * (seen == "slt") - 2 * low, *rng.normal(0, 0.1, 2)]

        for part in parts.values():
            part[name] = entry(voice, 0)
        parts["spoken"][name] |= {"features": sound("slt")}  # always in one voice
        parts["resynthesis"][name] |= {
            **{"correlation": 1.0, "voicing_error": 0.0, "style": style},
            **{"original_features": sound(voice), "features": sound(voice)},
        }
    figures = figures_of({**parts, "any": found()["any"]})
    assert figures["voices.original"].value == figures["style.original"].value == 1
    assert figures["style"].value == 1
    assert figures["style.chance"].value == pytest.approx(3 / 4)
    assert figures["voices"].value == pytest.approx(1 / 2)
    assert (figures["voices.slt"].value, figures["voices.rms"].value) == (1, 0)


def test_noise_is_15_db_below_white_or_pink_and_the_same_again():
    wave = read_audio(JFK)
    colors = set()
    for seed in range(6):
        noise = add_noise(wave, np.random.default_rng(seed)) - wave
        assert np.array_equal(noise, add_noise(wave, np.random.default_rng(seed)) - wave)
        ratio = 10 * np.log10(np.mean(wave**2) / np.mean(noise**2))
        assert ratio == pytest.approx(15, abs=0.01)
        power = np.abs(np.fft.rfft(noise)) ** 2
        colors.add(bool(power[: len(power) // 2].sum() > 2 * power[len(power) // 2 :].sum()))
    assert colors == {True, False}


def a_report(model: Path, tokenizer: Path) -> Report:
    return Report(
        command="spirit eval tiny --limit 2",
        date="2026-01-31",
        device="CPU",
        versions={"torch": "2.11.0"},
        model="checkpoints/tiny",
        model_sha256=digest(model),
        tokenizer_sha256=digest(tokenizer),
        data="heldout.jsonl",
        data_sha256="0" * 64,
        sentences=2,
        figures=figures_of(found()),
        answers=list(found()["any"].values())[:2],
        words={HUMAN: 1_234, "slt": 10},
    )


@pytest.fixture
def made(tmp_path):
    """The files of a build, as the recipe leaves them, with weights of known sizes."""
    model, tokenizer, corpus = (tmp_path / n for n in ("checkpoints/tiny", "tok/tiny", "corpus"))
    for folder in (model / "vocoder", tokenizer, corpus):
        folder.mkdir(parents=True)
    (model / "spirit.toml").write_text('license = "Apache-2.0"\n')
    layers = {"num_hidden_layers": 7, "hidden_size": 96, "vocab_size": 640}
    (model / "config.json").write_text(json.dumps(layers))
    save_file({"a": torch.zeros(1234, 10)}, model / "model.safetensors")
    save_file({"a": torch.zeros(77, 3), "b": torch.zeros(2)}, model / "vocoder/model.safetensors")
    save_file({"a": torch.zeros(5)}, tokenizer / "hubert.safetensors")
    for split, count in (("train", 3), ("heldout", 1)):
        lines = [{"speaker": "slt", "seconds": 30.0, "text": "one two"}] * count
        (corpus / f"{split}.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    build = {"preset": "quick", "device": "cpu", "date": "2026-01-31", "command": "make tiny"}
    (tmp_path / "build.json").write_text(
        json.dumps(build | {"seconds": {"corpus": 90}, "total": 4_321})
    )
    a_report(model, tokenizer).save(tmp_path / "figures.json")
    return model, tokenizer, corpus, tmp_path / "figures.json", tmp_path / "build.json"


def test_the_card_says_what_the_files_say(made):
    write_card(*made)
    card = (made[0] / "README.md").read_text()
    for fact in (
        "| `checkpoints/tiny/model.safetensors` | 12,340 |",
        "| `checkpoints/tiny/vocoder/model.safetensors` | 233 |",
        "7 layers, 96 channels and 640 tokens",
        "| train | slt | 3 | 1.5 | 6 |",
        "CC-BY-SA-3.0",
        "Preset `quick` on cpu",
        "corpus 1.5",
        "72 minutes",
        "15.0 %",
        "+20.0 points",
        "`spirit eval tiny --limit 2`",
        "1. **it is** … the sun is shining ♪ the sun (1.2 s) ♪",
        "1. **♪ we are ♪** … the sun is shining",
        "on 1 recordings of the human voice with 1,234 words, held out by a",
    ):
        assert fact in card


def test_figures_of_other_weights_make_no_card(made):
    model = made[0]
    save_file({"a": torch.ones(1234, 10)}, model / "model.safetensors")
    with pytest.raises(ValueError, match="other weights"):
        write_card(*made)
    assert not (model / "README.md").exists()


def test_a_missing_or_damaged_report_is_one_line(made):
    *_, figures, _ = made
    figures.write_text('{"figures": {}}')
    with pytest.raises(ValueError, match="not a report"):
        write_card(*made)
    figures.unlink()
    with pytest.raises(ValueError, match="run `spirit eval tiny`"):
        write_card(*made)


def test_a_report_survives_the_disk(made):
    report = Report.load(made[3])
    again = made[3].with_name("again.json")
    report.save(again)
    assert Report.load(again) == report
    assert markdown(report).count("\n| ") > 10
    assert np.isfinite(report.figures["heard"].high)


def test_the_digest_follows_weights_not_prose_or_place(made, tmp_path):
    model = made[0]
    before = digest(model)
    commit.text(model / "README.md", "prose")
    moved = tmp_path / "elsewhere"
    shutil.copytree(model, moved)
    assert digest(moved) == before
    commit.text(moved / "spirit.toml", "x = 1")
    assert digest(moved) != before


LANGUAGE = Path(__file__).parents[1] / "recipes/tiny/language.py"


def corpus_of(folder: Path, speakers: tuple[str, ...]) -> Path:
    """One recording under several ids: what it measures is not good, but real."""
    text = "and so my fellow americans"
    words = [
        {"text": word, "start": 8_000 * i, "stop": 8_000 * (i + 1)}
        for i, word in enumerate(text.split())
    ]
    lines = [
        {"id": f"{name}-1", "audio": str(JFK), "text": text, "words": words, "speaker": name}
        for name in speakers
    ]
    path = folder / "heldout.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_model_is_measured_and_an_interrupted_evaluation_goes_on(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(tiny, "SENTENCES", 200)
    data = corpus_of(tmp_path, ("slt", "rms", HUMAN))
    out = tmp_path / "eval"

    def evaluate() -> Report:
        return evaluate_tiny(
            bundle, data, out, limit=2, prompts=2, language=LANGUAGE, device="cpu", jobs=1
        )

    report = evaluate()
    assert report.sentences == 2
    assert report.figures["original"].value <= 0.4  # the ear hears the recording
    assert report.figures["heard"].value > 0.8  # random weights do not
    assert report.figures[f"heard.{HUMAN}"].count == 1
    assert report.figures["resynthesis"].count == 2
    assert report.figures["heard.noise"].count == 2
    assert report.figures["duration.styled"].value > 0
    assert report.figures["completed.text"].value == 0  # nor do they speak a language
    assert report.figures["chained.text"].value == 0
    assert report.figures["chained.speech"].count == 2
    assert report.words == {HUMAN: 5, "rms": 5, "slt": 5}
    assert "style" not in report.figures  # told apart by two recordings
    assert {path.suffix for path in (out / "recordings").iterdir()} == {".flac"}
    assert Report.load(out / "figures.json") == report

    heard = out / "heard.jsonl"
    lines = heard.read_text().splitlines(keepends=True)
    stamps = {path: path.stat().st_mtime_ns for path in (out / "recordings").iterdir()}
    heard.write_text("".join(lines[:-1]) + lines[-1][:20])  # killed in the middle of a line
    again = evaluate()
    assert again.figures == report.figures
    assert heard.read_text().splitlines(keepends=True)[:2] == lines[:2]
    assert {path: path.stat().st_mtime_ns for path in (out / "recordings").iterdir()} == stamps
