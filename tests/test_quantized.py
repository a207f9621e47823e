"""`benchmarks/quantized.py`: what quantized weights cost."""

import importlib.util
import math
from pathlib import Path
from types import ModuleType

import pytest

from spirit.data.utterance import Utterance
from spirit.eval.figures import WordErrors
from spirit.pipeline import Spirit

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def quantized() -> ModuleType:
    path = ROOT / "benchmarks" / "quantized.py"
    spec = importlib.util.spec_from_file_location("quantized", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_token_of_a_transcript_counts_once_and_int8_is_smaller(quantized: ModuleType) -> None:
    pytest.importorskip("jiwer")
    texts = ["the weather in paris is fine", "please call me back"]
    clips = [Utterance(str(i), Path("nowhere.wav"), text=text) for i, text in enumerate(texts)]
    sizes = {}
    for dtype in ("fp32", "int8"):
        spirit = Spirit.load(ROOT / "checkpoints" / "tiny", "cpu", dtype)
        units = list(spirit.generate([texts[0]], want="speech", max_tokens=20))[:1]
        found = quantized.measure(spirit, clips, units * 2)
        wanted = [len(spirit.tokenizer.codec.text.encode(text)) for text in texts]
        assert [count for _, count in found.text] == wanted
        assert all(-20 < total / count < 0 for total, count in found.text + found.speech)
        assert [errors.words for errors in found.words] == [6, 4]
        sizes[dtype] = found.megabytes
    assert sizes["int8"] < 0.5 * sizes["fp32"]


def test_a_table_tells_differences_from_its_first_line(quantized: ModuleType) -> None:
    base = quantized.Found(4.0, [(-8.0, 4.0)] * 3, [(-9.0, 3.0)] * 3, [WordErrors(0, 5)] * 3)
    worse = quantized.Found(1.0, [(-9.0, 4.0)] * 3, [(-9.0, 3.0)] * 3, [WordErrors(1, 5)] * 3)
    told = quantized.table({"fp32": base, "int8": worse}).splitlines()
    assert told[2] == "| fp32 | 4.0 | -2.0000 | -3.0000 | 0.0 % (0.0 to 0.0) |"
    assert told[3] == (
        "| int8 | 1.0 | -2.2500 (-0.2500; -0.2500 to -0.2500) "
        "| -3.0000 (+0.0000; +0.0000 to +0.0000) "
        "| 20.0 % (+20.0 points; +20.0 to +20.0) |"
    )
    assert math.isclose(worse.megabytes, 1.0)
