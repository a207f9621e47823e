"""Hear, generate, speak: segments in, segments out, and parts that must belong together."""

import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from spirit import commit
from spirit.audio import read_audio
from spirit.codec import Codec, Document, HFText, word_tokenizer
from spirit.pipeline import FUSION, Spirit, find
from spirit.units import SAMPLE_RATE, Kind, Units
from spirit.vocab import Vocab
from tests.bundle import JFK, SPEAKERS, build_tokenizer

pytest_plugins = "tests.fixtures"


def seconds(spirit: Spirit, answer: list[str | Units]) -> float:
    waves = [spirit.speak(segment) for segment in answer if isinstance(segment, Units)]
    return sum(map(len, waves)) / SAMPLE_RATE


def test_what_is_heard_is_what_the_encoder_says(spirit: Spirit) -> None:
    wave = read_audio(JFK)
    heard = spirit.hear(wave)
    assert heard == spirit.tokenizer.encoder.encode(wave).merge()
    assert set(heard.kind) == {Kind.HUBERT, Kind.PITCH, Kind.STYLE}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("spoken", [False, True])
def test_an_answer_holds_what_is_wanted(
    spirit: Spirit, talkative: None, seed: int, spoken: bool
) -> None:
    prompt = [spirit.hear(read_audio(JFK)[:16_000])] if spoken else ["the weather"]
    kinds = {
        want: {
            type(segment)
            for segment in spirit.generate(
                prompt, want=want, temperature=2.0, seed=seed, max_tokens=60
            )
        }
        for want in ("text", "speech", "any")
    }
    assert kinds == {"text": {str}, "speech": {Units}, "any": {str, Units}}


def test_segments_of_an_answer_take_turns_and_none_is_empty(
    spirit: Spirit, talkative: None
) -> None:
    answer = list(spirit.generate(["so"], temperature=3.0, max_tokens=200))
    assert len(answer) > 2
    assert all(len(segment) for segment in answer)
    # Pitch and style alone make no sound and are left out, between two texts too.
    assert all(isinstance(s, str) or len(s.of(Kind.HUBERT)) for s in answer)
    assert not any(isinstance(a, Units) and isinstance(b, Units) for a, b in pairwise(answer))


def test_a_transcript_without_end_is_stopped_by_the_length_of_what_was_heard(
    spirit: Spirit,
) -> None:
    heard = Units.build([(Kind.HUBERT, number) for number in (1, 2, 3)])
    (text,) = spirit.generate([heard], task="transcribe")
    assert 0 < len(text) <= 16 + 2 * 3  # a token is a byte, so at most a character


def test_a_transcript_is_also_judged_as_text(
    spirit: Spirit, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[list[list[int]]] = []
    plausible = Spirit._plausible

    def told(self: Spirit, answers: list[list[int]]) -> list[float]:
        found.append(answers)
        return [1e4 * (answer == answers[-1]) for answer in answers]

    monkeypatch.setattr(Spirit, "_plausible", told)
    heard = Units.build([(Kind.HUBERT, number) for number in (1, 2, 3)])
    (text,) = spirit.generate([heard], task="transcribe")
    (answers,) = found
    codec = spirit.tokenizer.codec
    assert text == codec.text.decode(answers[-1])
    texts = [[int(i) for i in codec.text.encode(text)] for text in ("hello", "so")]
    written = codec.encode(Document(("hello",)))
    scores = spirit.score([Document(("hello",)), Document(("so",))])
    expected = [FUSION * one[1:].sum() for one in scores]
    assert len(written) == 2 + len(texts[0])  # BOS and [Text], which nothing tells apart
    assert plausible(spirit, texts) == pytest.approx(expected)


def test_of_several_tries_the_one_is_spoken_that_the_model_understands_best(
    spirit: Spirit, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[str | Units]] = []
    understood = Spirit._understood

    def listening(self: Spirit, answer: list[str | Units], text: str) -> float:
        drawn.append(answer)
        assert text == "good morning"
        return understood(self, answer, text)

    monkeypatch.setattr(Spirit, "_understood", listening)
    settings = {"task": "speak", "temperature": 1.5, "max_tokens": 60, "seed": 5}
    best = list(spirit.generate(["good morning"], tries=5, **settings))
    assert len({"".join(map(str, answer)) for answer in drawn}) == 5
    scores = [understood(spirit, answer, "good morning") for answer in drawn]
    assert max(scores) > -np.inf
    assert best == drawn[int(np.argmax(scores))]
    assert list(spirit.generate(["good morning"], tries=1, **settings)) == drawn[0]
    assert len(drawn) == 5


def test_what_a_model_understands_is_the_likelihood_of_the_closed_transcript(
    spirit: Spirit,
) -> None:
    (units,) = spirit.generate(["hello"], task="speak", max_tokens=20, tries=1)
    codec = spirit.tokenizer.codec
    ids = codec.encode(Document((units, "hello"), "transcribe", closed=True))
    with torch.inference_mode():
        told = spirit.model(torch.as_tensor(ids)[None]).logits[0].log_softmax(-1)
    start = len(ids) - len("hello") - 1  # a token is a byte; the last one closes
    wanted = sum(float(told[i - 1, ids[i]]) for i in range(start, len(ids)))
    assert spirit._understood([units], "hello") == pytest.approx(wanted, rel=1e-4)


def test_segments_come_when_they_are_complete(
    spirit: Spirit, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    unit, letter = spirit.tokenizer.vocab.first[Kind.HUBERT], 40

    def ids(*_: object, **__: object):
        for new in (letter, letter, unit, letter):
            drawn.append(new)
            yield new

    monkeypatch.setattr("spirit.pipeline.generate", ids)
    answer = spirit.generate(["so"])
    assert isinstance(next(answer), str)
    assert len(drawn) == 3


def test_a_text_that_goes_on_keeps_its_space(
    spirit: Spirit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    word_tokenizer(tmp_path / "text.json", ["the season is autumn", "the sea is cold"] * 9, 280)
    text = HFText.load(tmp_path / "text.json")
    count = spirit.tokenizer.vocab.count
    vocab = Vocab.build(text.size, text.bos, text.eos, count, special=text.special)
    monkeypatch.setattr(spirit.tokenizer, "codec", Codec(text, vocab))
    unit = vocab.first[Kind.HUBERT]
    coming: list[int] = []
    monkeypatch.setattr("spirit.pipeline.generate", lambda *_, **__: iter(coming))
    coming += [*text.encode("autumn"), unit, *text.encode("is cold")]
    answer = [s for s in spirit.generate(["the season is"]) if isinstance(s, str)]
    assert answer == [" autumn", "is cold"]
    coming[:] = text.encode("x")[1:]  # no new word begins
    assert list(spirit.generate(["the sea"])) == ["x"]


def test_equal_seeds_give_equal_answers(spirit: Spirit) -> None:
    def answer(seed: int) -> list[str | Units]:
        return list(spirit.generate(["hello"], temperature=1.0, seed=seed, max_tokens=30))

    assert answer(1) == answer(1)
    assert answer(1) != answer(2)


@pytest.mark.parametrize("want", ["speech", "any"])
@pytest.mark.parametrize("limit", [0.12, 0.3])
def test_speech_fills_the_time_allowed_and_no_more(spirit: Spirit, want: str, limit: float) -> None:
    settings = {"want": want, "max_seconds": limit, "temperature": 2.0, "top_p": 1.0}
    answers = [list(spirit.generate(["so"], seed=seed, **settings)) for seed in range(6)]
    lengths = [seconds(spirit, answer) for answer in answers]
    assert max(lengths) <= limit + 1e-9
    assert max(lengths) > limit - 0.1


def test_seconds_are_those_that_are_spoken(spirit: Spirit) -> None:
    units = spirit.hear(read_audio(JFK))
    for speaker in SPEAKERS:
        wave = spirit.speak(units, speaker, "sad")
        assert spirit.seconds(units, speaker, "sad") == pytest.approx(len(wave) / SAMPLE_RATE)


def test_resynthesis_keeps_the_length_unless_it_predicts_durations(spirit: Spirit) -> None:
    wave = read_audio(JFK)
    again = spirit.resynth(wave)
    assert 0 <= len(wave) - len(again) < 640
    predicted = spirit.resynth(wave, "rms", predict_durations=True)
    assert len(predicted) / SAMPLE_RATE == spirit.seconds(spirit.hear(wave), "rms")


def test_tasks_answer_one_segment_of_their_kind(spirit: Spirit) -> None:
    speech = spirit.hear(read_audio(JFK)[:16_000])
    (words,) = spirit.generate([speech], task="transcribe", max_tokens=20)
    (spoken,) = spirit.generate(["hello"], task="speak", max_tokens=20)
    assert isinstance(words, str)
    assert isinstance(spoken, Units)


@pytest.mark.parametrize(
    ("prompt", "settings", "reason"),
    [
        (["hello"], {"task": "transcribe"}, "needs a prompt of one speech segment"),
        ([Units.build([(Kind.HUBERT, 1)])], {"task": "speak"}, "one text segment"),
        (["hello"], {"task": "speak", "want": "text"}, "answers in speech"),
        (["hello"], {"max_seconds": 0.0}, "0 seconds"),
        (["hello"], {"temperature": -1.0}, "temperature"),
        ([Units.build([(Kind.HUBERT, 99)])], {}, "not in the vocabulary"),
        (["so " * 300], {}, "at most 256"),
    ],
)
def test_what_cannot_be_answered_is_refused(
    spirit: Spirit, prompt: list[str | Units], settings: dict[str, object], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        list(spirit.generate(prompt, **settings))  # type: ignore[arg-type]


def test_neighbours_of_one_modality_are_one_prompt(spirit: Spirit) -> None:
    def answer(prompt: list[str | Units]) -> list[str | Units]:
        return list(spirit.generate(prompt, temperature=1.0, max_tokens=20))

    one, two = (spirit.hear(read_audio(JFK)[i : i + 8_000]) for i in (0, 8_000))
    assert answer(["a b", one + two]) == answer(["a", "b", "", one, two])


@pytest.mark.parametrize(("voice", "reason"), [(("nobody", None), "slt"), ((None, "odd"), "calm")])
def test_an_unknown_voice_is_refused_with_those_there_are(
    spirit: Spirit, voice: tuple[str | None, str | None], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        spirit.check_voice(*voice)
    with pytest.raises(ValueError, match=reason):
        spirit.speak(spirit.hear(read_audio(JFK)), *voice)


def test_the_bundled_model_is_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = tmp_path / "inside" / "checkpoints" / "tiny"
    inside.mkdir(parents=True)
    monkeypatch.setattr("spirit.bundle.locate", lambda name: tmp_path / "inside" / name)
    monkeypatch.chdir(tmp_path)
    assert find("bundled") == find("checkpoints/tiny") == inside
    (tmp_path / "checkpoints" / "tiny").mkdir(parents=True)
    assert find("checkpoints/tiny") == Path("checkpoints/tiny")


def test_silence_and_the_shortest_sounds_are_heard(spirit: Spirit) -> None:
    for samples in (1, 160, 1_279, 32_000):
        heard = spirit.hear(np.zeros(samples, np.float32))
        assert len(heard.of(Kind.HUBERT)) >= 1
        assert len(spirit.speak(heard)) >= 640


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    shutil.copytree(bundle.parents[1], tmp_path / "copy")
    return tmp_path / "copy" / "checkpoints" / "tiny"


def spoil(model: Path, how: str) -> None:
    home = model.parents[1] / "tokenizers" / "tiny"
    match how:
        case "no tokenizer":
            shutil.rmtree(home)
        case "another tokenizer":
            shutil.rmtree(home)
            torch.manual_seed(7)
            build_tokenizer(home)
        case "smaller tokenizer":
            shutil.rmtree(home)
            build_tokenizer(home, units=8)
            card = (model / "spirit.toml").read_text().splitlines()
            mark = next(
                s for s in (home / "tokenizer.toml").read_text().splitlines() if "finger" in s
            )
            commit.text(model / "spirit.toml", "\n".join([card[0], mark]))
        case "no weights":
            (model / "model.safetensors").unlink()
        case "half the weights":
            path = model / "model.safetensors"
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        case "no vocabulary":
            (model / "vocab.json").unlink()
        case "no card":
            (model / "spirit.toml").unlink()
        case "damaged card":
            (model / "spirit.toml").write_text("tokenizer = ")
        case "half the vocoder":
            path = model / "vocoder" / "model.safetensors"
            path.write_bytes(path.read_bytes()[:1_000])
        case "missing":
            shutil.rmtree(model)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("no tokenizer", "tokenizer .* is missing"),
        ("another tokenizer", "was trained with the tokenizer"),
        ("smaller tokenizer", "was trained with the vocabulary"),
        ("no weights", "no .safetensors weights"),
        ("half the weights", "readable"),
        ("no vocabulary", "vocab.json is missing"),
        ("no card", "no spirit.toml"),
        ("damaged card", "not valid TOML"),
        ("half the vocoder", "no whole vocoder"),
        ("missing", "no such folder"),
    ],
)
def test_a_damaged_model_folder_is_refused_in_one_line(copy: Path, how: str, reason: str) -> None:
    spoil(copy, how)
    with pytest.raises(ValueError, match=reason) as caught:
        Spirit.load(copy, device="cpu")
    assert "\n" not in str(caught.value)
    assert "copy" in str(caught.value)


def test_parts_of_different_sizes_are_refused(spirit: Spirit) -> None:
    vocab = spirit.tokenizer.vocab
    from spirit.lm.model import new_llama

    with pytest.raises(ValueError, match="tokens"):
        Spirit(new_llama(vocab.size + 64, 16, 1, 1, 16), spirit.tokenizer)
    assert isinstance(vocab, Vocab)


def test_a_model_without_a_vocoder_writes_but_does_not_speak(copy: Path) -> None:
    shutil.rmtree(copy / "vocoder")
    mute = Spirit.load(copy, device="cpu")
    assert list(mute.generate(["hello"], want="text", temperature=1.0, max_tokens=5))
    units = list(mute.generate(["hello"], want="speech", max_tokens=5))
    with pytest.raises(ValueError, match="no vocoder"):
        mute.speak(units[0])


BLOCKED = (
    "accelerate deepspeed faiss torchaudio torchfcpe librosa pyarrow pocketsphinx matplotlib ray"
    " tensorboard jiwer sentencepiece scipy sklearn pandas G722 torchvision beartype hypothesis"
)
LIGHT = f"""
import sys
for name in "{BLOCKED}".split():
    sys.modules[name] = None  # importing it now fails
from spirit.audio import read_audio, write_audio
from spirit.pipeline import Spirit
spirit = Spirit.load(sys.argv[1], device="cpu")
prompt = ["hello", spirit.hear(read_audio(sys.argv[2]))]
list(spirit.generate(prompt, want="any", max_tokens=10))
for units in spirit.generate(prompt, want="speech", max_tokens=10):
    write_audio(sys.argv[3], spirit.speak(units))
"""


def test_generation_needs_light_packages_only(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "reply.wav"
    command = [sys.executable, "-W", "error", "-c", LIGHT, str(bundle), str(JFK), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(read_audio(out)) >= 640
