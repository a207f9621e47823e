"""STSP: four directions, shots before the item, classifiers that can be changed."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from spirit.cli import main
from spirit.eval.judges import speech_judge, text_judge
from spirit.eval.stsp import evaluate, lay_out
from spirit.eval.stsp_data import DIRECTIONS, draw_shots, read_manifest, score_predictions
from spirit.units import Units

pytest_plugins = "tests.fixtures"

MOODS = ("positive", "negative", "neutral")
EMOTIONS = ("happy", "sad", "default")


def wave(path: Path, seed: int) -> str:
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.2 * rng.standard_normal(8_000), 16_000)
    return str(path)


def jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """The layout of the archive, with noise for voices."""
    root = tmp_path_factory.mktemp("stsp_data")
    rows = []
    for number, (mood, emotion) in enumerate(zip(MOODS, EMOTIONS, strict=True)):
        name = f"emov/{number}.wav"
        wave(root / "data" / name, number)
        rows.append(
            {"id": 10 + number, "wav_path": name, "asr": f"words {number}", "emotion": emotion}
            | {"sentiment": mood, "split": "test", "speaker": "sam"}
        )
    jsonl(root / "manifest/emov/emov.test.jsonl", rows)
    for direction in DIRECTIONS:
        shots = []
        for number in range(9):
            name = f"shots/{number}.wav"
            wave(root / "data" / name, 50 + number)
            parts = {"s": name, "t": f"text {number}"}
            shots.append(
                {"prompt": parts[direction[0]], "generation": parts[direction[2]]}
                | {"sentiment": MOODS[number % 3]}
            )
        jsonl(root / f"manifest/few_shot/{direction}.jsonl", shots)
    return root


def manifest(data: Path) -> Path:
    return data / "manifest/emov/emov.test.jsonl"


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_prompt_holds_the_shots_and_the_test_item(data, spirit, direction):
    (sample, *_) = read_manifest(manifest(data), data)
    examples = draw_shots(data, direction, 3, seed=0)
    assert {shot.sentiment for shot in examples} == set(MOODS)
    prompt = lay_out(spirit, sample, examples, direction)
    assert len(prompt) == 7
    kinds = ["s" if isinstance(segment, Units) else "t" for segment in prompt]
    assert kinds == [direction[0], direction[2]] * 3 + [direction[0]]
    alone = lay_out(spirit, sample, (), direction)
    assert str(prompt[-1]) == str(alone[0])
    other = lay_out(spirit, read_manifest(manifest(data), data)[1], examples, direction)
    assert str(other[-1]) != str(prompt[-1])
    assert [str(part) for part in other[:-1]] == [str(part) for part in prompt[:-1]]


def test_recordings_are_shown_by_half_whatever_stands_beside_them(data, spirit):
    (sample, *_) = read_manifest(manifest(data), data)
    (shot,) = draw_shots(data, "t2s", 1, seed=0)
    text, answer, _ = lay_out(spirit, sample, (shot,), "t2s")
    assert text == shot.given
    heard, _ = soundfile.read(shot.answer, dtype="float32")
    assert str(answer) == str(spirit.hear(heard[4_000:]))
    (shot,) = draw_shots(data, "s2s", 1, seed=0)
    assert shot.given == shot.answer
    first, second, _ = lay_out(spirit, sample, (shot,), "s2s")
    heard, _ = soundfile.read(shot.given, dtype="float32")
    assert str(first) == str(spirit.hear(heard[:4_000]))
    assert str(second) == str(spirit.hear(heard[4_000:]))


def test_an_oracle_is_always_right_and_its_opposite_never(data, bundle, tmp_path):
    """The judge sees the answer alone, so an oracle must know the order in which it is asked."""
    wanted = iter(MOODS)
    verdict = evaluate(
        bundle,
        data,
        manifest(data),
        tmp_path / "right",
        lambda _: next(wanted),
        direction="t2t",
        device="cpu",
    )
    assert verdict.accuracy.value == 1.0
    assert set(verdict.by_sentiment) == set(MOODS)
    verdict = evaluate(
        bundle,
        data,
        manifest(data),
        tmp_path / "wrong",
        lambda _: "bored",
        direction="s2s",
        shots=3,
        device="cpu",
    )
    assert verdict.accuracy.value == 0.0
    kept = [
        json.loads(line) for line in (tmp_path / "wrong/answers.jsonl").read_text().splitlines()
    ]
    assert all(len(entry["prompt"]) == 7 and "seed" in entry for entry in kept)
    assert all((tmp_path / "wrong/recordings" / entry["generation"]).is_file() for entry in kept)


def test_answers_to_another_manifest_are_not_taken(data, bundle, tmp_path):
    """The ids of two manifests are the same numbers."""
    rows = [json.loads(line) for line in manifest(data).read_text().splitlines()][:2]
    rows[1]["asr"] = ""
    other = jsonl(tmp_path / "other.jsonl", [{**rows[0], "asr": "something else"}, rows[1]])

    def asked(path):
        evaluate(
            *(bundle, data, path, tmp_path / "out", lambda _: "neutral"),
            direction="t2t",
            device="cpu",
        )
        kept = (tmp_path / "out/answers.jsonl").read_text().splitlines()
        return {row["item"]: row for row in map(json.loads, kept)}

    assert asked(manifest(data))["10"]["prompt"] == ["words 0"]
    found = asked(other)
    assert found["10"]["prompt"] == ["something else"]
    assert "has no text" in found["11"]["fault"]
    figures = json.loads((tmp_path / "out/figures.json").read_text())
    assert figures["accuracy"]["count"] == 1
    assert figures["skipped"] == {"not answered (answers.jsonl says why)": 1}
    with pytest.raises(ValueError, match="two samples have the id 10"):
        read_manifest(jsonl(tmp_path / "twice.jsonl", [rows[0], rows[0]]), data)


def test_a_judge_that_is_none_is_told_at_once(data, bundle, tmp_path):
    asked = ["eval", "stsp", "--model", str(bundle), "--data", str(data), "--direction", "t2t"]
    asked += ["--manifest", str(manifest(data)), "--classifier", str(tmp_path), "--jobs", "1"]
    said = CliRunner().invoke(main, [*asked, "--out", str(tmp_path / "out"), "--device", "cpu"])
    assert said.exit_code == 1
    assert "is not a classifier of Hugging Face" in said.output
    assert not (tmp_path / "out/answers.jsonl").read_text()


def test_predictions_are_scored_by_sentiment_and_by_emotion(data, tmp_path):
    rows = [{"id": 10 + n, "pred": emotion} for n, emotion in enumerate(EMOTIONS)]
    predictions = jsonl(tmp_path / "p.jsonl", rows)
    assert score_predictions(predictions, manifest(data), data, "emotion").value == 1.0
    assert score_predictions(predictions, manifest(data), data).value == 0.0
    # The recordings are not needed to count, nor is the spelling of the classifier.
    bare = jsonl(tmp_path / "bare.jsonl", [{"id": 1, "emotion": "sad", "wav_path": "no.wav"}])
    jsonl(predictions, [{"id": 1, "pred": "Negative"}])
    assert score_predictions(predictions, bare, tmp_path).value == 1.0
    jsonl(predictions, [*rows, {"id": 99, "pred": "sad"}])
    with pytest.raises(ValueError, match=r"answers 4 samples, but .* has 3; 99 is none of them"):
        score_predictions(predictions, manifest(data), data)
    jsonl(predictions, rows[:2])
    with pytest.raises(ValueError, match=r"answers 2 samples, but .* has 3; 12 is missing"):
        score_predictions(predictions, manifest(data), data)
    said = CliRunner().invoke(
        main,
        [
            *("eval", "stsp", "--data", str(data), "--manifest", str(manifest(data))),
            *("--predictions", str(jsonl(predictions, rows)), "--label", "emotion"),
        ],
    )
    assert said.exit_code == 0, said.output
    assert "100.0 %" in said.output


@pytest.mark.parametrize(("label", "wanted"), [("sentiment", 0.4), ("emotion", 1.0)])
def test_the_example_of_the_release_scores_as_it_does_there(label, wanted):
    """Emotions that are predicted right are sentiments by name in two of five samples."""
    place = Path(__file__).parent / "data/stsp"
    manifest, predictions = place / "manifest/emov/emov.demo.jsonl", "emov.demo.predictions.jsonl"
    found = score_predictions(place / predictions, manifest, place, label)
    assert (found.value, found.count) == (wanted, 5)
    asked = ["eval", "stsp", "--data", str(place), "--manifest", str(manifest), "--label", label]
    said = CliRunner().invoke(main, [*asked, "--predictions", str(place / predictions)])
    assert said.exit_code == 0, said.output
    assert said.output.startswith(f"Accuracy: {100 * wanted:.1f} % (")
    assert said.output.endswith(f" of 5 predictions, by {label}\n")
    (first, *_) = read_manifest(manifest, place, sound=False)
    assert (first.id, first.emotion, first.sentiment) == (
        "4100000000000000001",
        "angry",
        "negative",
    )


def test_classifiers_of_hugging_face_judge_text_and_speech(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        PreTrainedTokenizerFast,
        Wav2Vec2Config,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2ForSequenceClassification,
    )

    words = Tokenizer(models.WordLevel({"[UNK]": 0, "[PAD]": 1, "good": 2}, "[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    front = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]")
    front.save_pretrained(tmp_path / "text")
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(vocab_size=3, intermediate_size=16, max_position_embeddings=32, **small)
    config.id2label = {0: "Positive", 1: "Negative"}
    model = BertForSequenceClassification(config)
    model.classifier.bias.data = model.classifier.bias.data.new_tensor([9.0, -9.0])
    model.save_pretrained(tmp_path / "text")
    assert text_judge(tmp_path / "text")("good") == "positive"
    heard = Wav2Vec2Config(
        intermediate_size=16,
        conv_dim=(8, 8),
        conv_kernel=(10, 8),
        conv_stride=(10, 8),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        classifier_proj_size=8,
        **small,
    )
    heard.id2label = {0: "happy", 1: "sad"}
    ear = Wav2Vec2ForSequenceClassification(heard)
    ear.classifier.bias.data = ear.classifier.bias.data.new_tensor([-9.0, 9.0])
    ear.save_pretrained(tmp_path / "speech")
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "speech")
    assert speech_judge(tmp_path / "speech")(np.zeros(4_000, np.float32)) == "negative"
    with pytest.raises(ValueError, match="is not a classifier of Hugging Face"):
        text_judge(tmp_path)("good")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "line 1: not JSON"),
        ('{"id": 1}', "expected id, emotion, found id; emotion is missing"),
        ('{"id": 1, "emotion": "sad", "wav_path": "no.wav"}', "names no.wav, which is neither"),
        ("", "holds no sample"),
    ],
)
def test_another_layout_is_told_in_one_line(tmp_path, line, complaint):
    path = tmp_path / "m.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(ValueError, match=complaint) as told:
        read_manifest(path, tmp_path)
    assert "\n" not in str(told.value)


def test_more_shots_than_there_are_is_told(data):
    with pytest.raises(ValueError, match=r"has 9 examples, not 12; ask for fewer"):
        draw_shots(data, "t2t", 12, 0)
    with pytest.raises(ValueError, match=r"expected manifest/few_shot/t2t\.jsonl"):
        draw_shots(data / "data", "t2t", 1, 0)
