"""What is wrong with a training is one line that says where; nothing is begun or overwritten."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from spirit.cli import main
from spirit.tokenizer import _vocabulary
from spirit.units import Kind
from tests.stand_ins import RECIPES, ROOT, alone, data, stand_in
from tests.textmodels import write_tokenizer

RECIPE = "base-7b/train.toml"


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return data(tmp_path_factory.mktemp("home"))


def refused(home: Path, out: Path, *sets: str) -> str:
    """What `spirit train` says in the one line that it ends with."""
    made = [*stand_in(home, RECIPE, out), "training.deepspeed=", *sets]
    words = [word for change in made for word in ("--set", change)]
    done = CliRunner().invoke(main, ["train", str(RECIPES / RECIPE), *words])
    assert done.exit_code == 1, done.output
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("spirit: ")
    assert not (out / "state").exists()
    assert not (out / "model").exists()
    return done.stderr


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("mixture.interleavd=0.5", "unknown key 'interleavd'; known here: answer_only"),
        ("training.lr=fast", "training: lr must be float, not 'fast'"),
        ("mixture.text=0.5", "the shares of a mixture sum to 1 and none is negative"),
        ("tokenizer=nowhere", "nowhere/tokenizer.toml is missing or damaged"),
        ('mixture.shards=["nowhere"]', "nowhere: no such folder of unit shards"),
        ('mixture.texts=["no.txt"]', "no.txt: no such file or folder of texts"),
        ('heldout=["nowhere"]', "nowhere: no such folder of unit shards"),
        ("init=nowhere", "nowhere: no such model folder; check `init`"),
        ('retention.texts=["no.txt"]', "no.txt: no such file; check `retention.texts`"),
        ("training.deepspeed=no.json", "no.json: no such DeepSpeed settings; see recipes/"),
        ("mixture.row=640", "mixture.row = 640 is longer than the model's 512 positions"),
        ("training.device=cuda:77", "cuda:77"),
        ("training.accumulate=3", "mixture.rows = 4 cannot be shared by 1 process(es) with"),
    ],
)
def test_a_recipe_that_cannot_be_trained_is_one_line(home, tmp_path, change, complaint):
    assert complaint in refused(home, tmp_path / "out", change)


def test_a_recipe_that_is_not_there_is_one_line(tmp_path):
    done = CliRunner().invoke(main, ["train", str(tmp_path / "recipe.toml")])
    assert done.exit_code == 1
    assert "recipe.toml: no such recipe; give the path of a .toml file" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_shard_with_a_wrong_hash_is_never_trained_on(home, tmp_path):
    shutil.copytree(home / "base/shards", tmp_path / "shards")
    (part,) = (tmp_path / "shards").glob("part-*.parquet")
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    told = refused(home, tmp_path / "out", f'mixture.shards=["{tmp_path}/shards"]')
    assert f"{part} is not the file that was written (SHA-256 differs)" in told


def test_an_init_of_another_text_tokenizer_is_refused(home, tmp_path):
    shutil.copytree(home / "llama", tmp_path / "init")
    write_tokenizer(tmp_path / "init", "llama")
    told = refused(home, tmp_path / "out", f"init={tmp_path}/init")
    assert f"{tmp_path}/init has another text tokenizer than {home}/base/tokenizer" in told


def test_a_text_tokenizer_that_has_the_names_of_units_already_is_refused(tmp_path):
    spec = json.loads((write_tokenizer(tmp_path, "llama") / "tokenizer.json").read_text())
    last = max(token["id"] for token in spec["added_tokens"])
    last = max(last, *spec["model"]["vocab"].values())
    for number, name in enumerate(("[Speech]", "[Hu3]"), start=1):
        extra = {**spec["added_tokens"][0], "id": last + number, "content": name}
        spec["added_tokens"].append(extra)
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    match = r"already has tokens .*: \[Speech\], \[Hu3\]; take"
    with pytest.raises(ValueError, match=match) as error:
        _vocabulary(tmp_path / "tokenizer.json", {Kind.HUBERT: 20}, 64)
    assert "\n" not in str(error.value)


DYING = """
import signal, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.drills import training

folder, out = Path(sys.argv[2]), Path(sys.argv[3])
training.corpus(folder)

def action():
    training.train(training.recipe(folder, out, steps=100_000))

both = training.Processes(2, action, out / "log")
curve = out / "curve-1.txt"
until = time.monotonic() + 200
while time.monotonic() < until and not (curve.exists() and curve.stat().st_size):
    time.sleep(0.1)
began = time.monotonic()
both.signal(signal.SIGKILL, only=1)
ended = both.wait(100)
print(ended, both.codes, round(time.monotonic() - began, 1))
if not ended:
    both.signal(signal.SIGKILL)
"""


def test_where_a_process_dies_the_others_stop_within_a_minute_and_say_which(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(DYING)
    words = [sys.executable, str(program), str(ROOT), str(tmp_path / "data"), str(tmp_path / "out")]
    done = subprocess.run(words, env=alone(), capture_output=True, text=True, timeout=290)
    assert done.returncode == 0, done.stderr
    ended, codes, seconds = re.fullmatch(r"(\w+) (\{.*\}) ([\d.]+)\n", done.stdout).groups()
    said = (tmp_path / "out/log").read_text()
    assert ended == "True", said
    assert float(seconds) < 60
    assert codes in ("{0: 1, 1: -9}", "{1: -9, 0: 1}")
    assert re.search(r"process 1 \(.*, pid \d+\) has died, so all processes stop", said)
