"""`spirit preview` prints what training reads, and a recipe that makes no sense is one line."""

import json
import re
import shutil
from collections import Counter

import pytest
from click.testing import CliRunner

from spirit import config
from spirit.cli import main
from spirit.codec import Codec, HFText, byte_tokenizer
from spirit.data.loader import Rows
from spirit.lm.train import LMRecipe
from spirit.units import Kind
from spirit.vocab import Vocab
from tests.synthetic import write_corpus

COUNTS = {Kind.HUBERT: 50, Kind.PITCH: 16, Kind.STYLE: 4}
RECIPE = """
tokenizer = "{home}/tokenizer"
out = "{home}/out"
[size]
positions = 256
[mixture]
shards = ["{home}/units"]
texts = ["{home}/text.txt"]
interleaved = 0.4
speech = 0.2
text = 0.1
transcribe = 0.2
speak = 0.1
text_span = [1, 3]
speech_span = [1, 3]
row = 256
rows = 2
window = 16
[training]
steps = 1
lr = 1e-3
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    (home / "tokenizer").mkdir()
    byte_tokenizer(home / "tokenizer/text.json")
    text = HFText.load(home / "tokenizer/text.json")
    vocab = Vocab.build(text.size, text.bos, text.eos, COUNTS, special=text.special)
    vocab.save(home / "tokenizer/vocab.json")
    write_corpus(home / "units", vocab, 20, seconds=(1, 4))
    (home / "text.txt").write_text("of all things\nthe last " + "and the next " * 60)
    (home / "recipe.toml").write_text(RECIPE.format(home=home))
    return home


@pytest.fixture
def rows(home):
    recipe = config.load(home / "recipe.toml", LMRecipe)
    vocab = Vocab.load(home / "tokenizer/vocab.json")
    return Rows(recipe.mixture, Codec(HFText.load(home / "tokenizer/text.json"), vocab))


def run(home, *arguments, **options):
    recipe = str(home / "recipe.toml")
    return CliRunner().invoke(main, ["preview", recipe, *map(str, arguments)], **options)


def facts(home, *arguments):
    done = run(home, *arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def text_of(documents):
    return [s.get("text", s.get("units")) for d in documents for s in d["segments"]]


def test_a_row_is_the_one_that_training_reads(home, rows):
    shown = facts(home, "--row", 17)
    for _ in range(9):
        batch = next(rows)  # of two rows: the last is row 17
    pieces, documents = rows.latest[1], shown["documents"]
    assert (shown["row"], shown["step"], shown["positions"]) == (17, 8, 256)
    assert shown["used"] == int((batch["document"][1] >= 0).sum())
    assert [(d["source"], d["epoch"], d["number"]) for d in documents] == [p[:3] for p in pieces]
    for at, (piece, document) in enumerate(zip(pieces, documents, strict=True)):
        ids = batch["ids"][1][batch["document"][1] == at].numpy()
        segments = rows.documents.codec.decode(ids).segments
        assert text_of([document]) == [str(segment) for segment in segments]
        assert document["tokens"] >= len(ids)
        assert ("start" in document) == (document["tokens"] > len(ids))
        assert document["id"] == rows.documents.id_of(piece.number)


def test_the_words_of_a_span_have_its_units_between_them(home, rows):
    seen: Counter[str] = Counter()
    for source in ("interleaved", "speech", "transcribe", "speak"):
        for epoch, span_style in ((3, "in-force"), (4, "slice"), (5, "in-force")):
            sets = ("--set", f"mixture.span_style={span_style}", "--set", "mixture.excerpts=0.5")
            shown = facts(home, "--document", "u7", "--source", source, "--epoch", epoch, *sets)
            transcript = rows.documents.recording(shown["number"]).text.split()
            words = []
            for segment in shown["segments"]:
                if segment["kind"] == "speech":
                    assert "".join(w["units"] for w in segment["words"]) == segment["units"]
                    words += [word["word"] for word in segment["words"]]
                    seen[source] += len(segment["words"]) > 1
                elif source == "interleaved":
                    words += segment["text"].split()
            at = transcript.index(words[0])
            assert words == transcript[at : at + len(words)]
            if source in ("interleaved", "speech"):
                assert words == transcript
            if source == "transcribe":
                assert "[Pi" not in shown["segments"][0]["units"]
    assert all(seen.values())
    assert len(seen) == 4


def test_another_epoch_interleaves_the_same_words_in_another_way(home):
    drawn = [facts(home, "--document", "u7", "--epoch", epoch) for epoch in (0, 0, 1, 2, 3)]
    assert drawn[0] == drawn[1]
    assert len({json.dumps(d["segments"]) for d in drawn}) >= 3
    assert {(d["id"], d["source"]) for d in drawn} == {("u7", "interleaved")}


def test_a_document_has_a_number_too_and_may_be_a_text(home):
    by_id = facts(home, "--document", "u7")
    assert facts(home, "--document", by_id["number"]) == by_id
    text = facts(home, "--document", 20, "--source", "text")
    assert text["segments"] == [{"kind": "text", "marker": "[Text]", "text": "of all things"}]
    assert text["id"] == "text 0"


@pytest.mark.parametrize(("source", "marker"), [("transcribe", "[ASR]"), ("speak", "[TTS]")])
def test_a_task_shows_its_marker_before_the_answer(home, rows, source, marker):
    shown = facts(home, "--document", "u7", "--source", source)
    ids = rows.documents.encode(source, 0, shown["number"]).tolist()
    assert rows.documents.codec.vocab.markers[marker.strip("[]").lower()] in ids
    assert [segment["marker"] for segment in shown["segments"]][1:] == [marker]
    plain = run(home, "--document", "u7", "--source", source).stdout.splitlines()
    assert plain[-1].startswith(marker)
    assert plain[-2].startswith("[Text]" if source == "speak" else "[Speech]")


def test_units_may_be_counted_instead(home):
    shown = facts(home, "--document", "u7", "--source", "speech")
    (said,) = shown["segments"]
    plain = run(home, "--document", "u7", "--source", "speech", "--no-units").stdout
    counted = [int(count) for count in re.findall(r"\((\d+)\)", plain)]
    assert counted == [word["units"].count("[") for word in said["words"]]
    assert "[Hu" not in plain


COLOUR = re.compile(r"\x1b\[")


def test_colours_are_for_terminals_and_not_where_they_are_unwanted(home, monkeypatch):
    plain = run(home, "--row", 2)
    assert not COLOUR.search(plain.stdout)
    assert re.search(r"row 2 \(step 1\): \d+ of 256 positions used", plain.stdout)
    assert re.search(r"\[Speech\] [a-z]+ \[St\d\]", plain.stdout)
    assert " | " in plain.stdout
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured = run(home, "--row", 2, color=True)
    assert COLOUR.search(coloured.stdout)
    assert re.sub(r"\x1b\[\d+m", "", coloured.stdout) == plain.stdout
    monkeypatch.setenv("NO_COLOR", "1")
    assert run(home, "--row", 2, color=True).stdout == plain.stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--set", "mixture.speech=0.5"], "the shares of a mixture sum to 1"),
        (["--set", "mixture.sped=0.5"], "unknown key 'sped'; known here: answer_only"),
        (["--set", "mixture.span_style=bare"], "must be one of in-force, slice, not 'bare'"),
        (
            ["--set", "mixture.row=512"],
            "mixture.row = 512 is longer than the model's 256 positions",
        ),
        (["--set", 'mixture.shards=["nowhere"]'], "nowhere: no such folder of unit shards; run"),
        (["--set", 'mixture.texts=["no.txt"]'], "no.txt: no such file or folder of texts"),
        (["--set", "tokenizer=nowhere"], "text.json is missing"),
        (["--document", "nobody"], "no document 'nobody' in"),
        (["--document", "99"], "a number below 22"),
        (["--document", "21", "--source", "speech"], "cannot become a document of the source"),
    ],
)
def test_a_recipe_that_cannot_be_read_is_one_line(home, arguments, complaint):
    done = run(home, *arguments)
    assert done.exit_code == 1
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("spirit: ")


@pytest.mark.parametrize(
    "arguments", [["--row", 1, "--document", "u1"], ["--epoch", 2], ["--row", -1]]
)
def test_what_does_not_belong_together_is_a_usage_error(home, arguments):
    assert run(home, *arguments).exit_code == 2


def test_a_shard_with_a_wrong_hash_is_named_with_what_to_do(home, tmp_path):
    shutil.copytree(home / "units", tmp_path / "units")
    part = tmp_path / "units/part-00000.parquet"
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    done = run(home, "--set", f'mixture.shards=["{tmp_path}/units"]')
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert (
        f"{part} is not the file that was written (SHA-256 differs); delete it and" in done.stderr
    )
    assert "run again: spirit tokenize" in done.stderr


def test_a_model_with_fewer_positions_than_a_row_is_refused(home):
    mixture = config.load(home / "recipe.toml", LMRecipe).mixture
    mixture.check_positions(256)
    with pytest.raises(ValueError, match=r"mixture\.row = 256 is longer .* 128 positions; make it"):
        mixture.check_positions(128)
