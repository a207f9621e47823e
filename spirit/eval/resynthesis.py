"""`spirit eval resynth`: recordings against what the model makes of them again.

Intelligibility by an independent recognizer, melody (GPE, VDE, FFE, correlation and error of log
F0), loudness, mel cepstral distortion, speaking rate; where the copy keeps the times of the
original, STOI and PESQ as well; naturalness by a predictor of the user's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import Float

from spirit.audio import read_audio, write_audio
from spirit.data.corpus import Utterance
from spirit.engine import ranks
from spirit.eval import cepstra, judges
from spirit.eval.answers import Subject
from spirit.eval.compare import Values
from spirit.eval.figures import rate_difference, word_errors
from spirit.eval.ledger import Result, mark
from spirit.eval.listen import normalize
from spirit.eval.prosody import follow, melody
from spirit.eval.recordings import ask, first, named
from spirit.eval.tiny import identify
from spirit.eval.verdict import Verdict, figures_of, of
from spirit.units import SAMPLE_RATE

Wave = Float[np.ndarray, " _"]
ROUNDS = 2
"""Raised when the same model would be asked in another way: older results are then not taken."""
STILL = 1e-6
"""Loudness that varies by no more does not move."""
WORST_PESQ = 1.04
"""The lowest value of the wide band (ITU-T P.862.2)."""
COLUMNS = (
    *("speaker", "reference", "heard", "errors", "words", "original_errors"),
    *("seconds", "original_seconds", "frames", "voiced_in_both", "gross_errors"),
    *("voicing_errors", "correlation", "energy_correlation", "mcd", "stoi", "pesq", "mos"),
    *("original_mos", "recording"),
)
VERSIONS = ("torch", "jiwer", "pocketsphinx", "torchfcpe", "librosa")


@dataclass(frozen=True)
class Asked:
    """How a recording is said again, and who judges it."""

    speaker: str | None
    predict_durations: bool
    recognize: Callable[[Wave], str]
    rate: Callable[[Wave], float] | None
    aligned: tuple[str, ...]
    """Of "stoi" and "pesq", what can be taken."""


def evaluate(
    model: str | Path,
    data: Path,
    out: Path,
    *,
    speaker: str | None = None,
    predict_durations: bool = False,
    recognizer: Path | None = None,
    mos: Path | None = None,
    limit: int = 0,
    device: str = "auto",
    jobs: int = 2,
) -> Verdict:
    """Say every recording of a corpus again and write `answers.jsonl`, `items.csv` and
    `figures.json` into `out`; the copies stay in `out/recordings`.

    Word errors need a text; utterances without one count for the rest. Each is said in the voice
    of its speaker where the model has it, unless `speaker` names one. What cannot be read is left
    out, and counted.

    Raises ValueError for a missing corpus, voice or judge.
    """
    items, skipped = first(data, limit)
    folder, weights = identify(model)
    where = ranks.device(device)
    missing = {
        name: f"{package} is not installed; run: pip install '.[quality]'"
        for name, package in (("stoi", "pystoi"), ("pesq", "pesq"))
        if find_spec(package) is None
    }
    if predict_durations:
        missing = dict.fromkeys(("stoi", "pesq"), "the copies have durations of their own")
    aligned = tuple(name for name in ("stoi", "pesq") if name not in missing)
    asked = Asked(
        speaker,
        predict_durations,
        judges.recognizer(recognizer, str(where)),
        judges.rater(mos, str(where)) if mos is not None else None,
        aligned,
    )
    settings = {
        "speaker": speaker or "the recording's",
        "predict_durations": predict_durations,
        "recognizer": named(recognizer) or "pocketsphinx",
        "mos": named(mos),
        "device": where.type,
        "limit": limit,
    }
    subject = Subject(folder.resolve(), device, out / "recordings")
    subject.recordings.mkdir(parents=True, exist_ok=True)
    found, faults = ask(
        out / "answers.jsonl",
        items,
        partial(measure, subject=subject, asked=asked),
        lambda u: (u.audio, u.text, u.speaker),
        model=weights,
        settings=settings,
        by=(*aligned, ROUNDS),
        jobs=jobs,
        title="resynth",
    )
    silent = sum("words" not in result for result in found.values())
    skipped |= faults | ({"without a text (of word errors only)": silent} if silent else {})
    values = values_of(found)
    figures = figures_of(values)
    if "wer" in figures:
        ours, theirs = (list(values[name].values()) for name in ("wer", "wer.original"))
        figures = {"wer.above_original": rate_difference(ours, theirs), **figures}
    verdict = Verdict(
        "resynth predicted durations" if predict_durations else "resynth",
        str(folder),
        str(data),
        settings,
        {name: version(name) for name in VERSIONS},
        figures,
        skipped,
        missing,
    )
    judged = {"recognizer": ("wer", "wer.original"), "mos": ("mos", "mos.original")}
    verdict.save(out, values, found, COLUMNS, judged)
    return verdict


def measure(utterance: Utterance, subject: Subject, asked: Asked) -> Result:
    """One recording and its copy, side by side; {"fault": a line} where it cannot be read."""
    spirit = subject.load()
    spirit.check_voice(asked.speaker)
    try:
        wave = read_audio(utterance.audio)
        known = spirit.vocoder is not None and utterance.speaker in spirit.vocoder.speakers
        voice = asked.speaker or (utterance.speaker if known else None)
        again = spirit.resynth(wave, voice, predict_durations=asked.predict_durations)
    except (ValueError, OSError) as error:
        return {"fault": " ".join(str(error).split())}
    name = f"{mark((utterance.id,), {})}.flac"
    write_audio(subject.recordings / name, again)
    result: Result = {"speaker": utterance.speaker, "recording": name}
    if reference := normalize(utterance.text):
        heard = asked.recognize(again)
        counts = word_errors(reference, heard)
        result |= {
            "reference": reference,
            "heard": heard,
            "errors": counts.errors,
            "words": counts.words,
            "original_errors": word_errors(reference, asked.recognize(wave)).errors,
        }
    result |= compared(wave, again, asked.predict_durations)
    if asked.rate is not None:
        result |= {"mos": asked.rate(again), "original_mos": asked.rate(wave)}
    length = min(len(wave), len(again))
    for one in asked.aligned:
        result[one] = JUDGES[one](wave[:length], again[:length])
    return result


def compared(wave: Wave, again: Wave, warped: bool) -> Result:
    """Melody, loudness, envelope and rate."""
    frames, copied = cepstra.cepstra(wave), cepstra.cepstra(again)
    path = cepstra.align(frames, copied)
    theirs, ours = melody(wave), melody(again)
    if warped:
        ours = _carried(ours, path, len(theirs))
    followed = follow(theirs, ours)
    both = min(len(frames), len(copied))
    places = path.T if warped else np.tile(np.arange(both), (2, 1))
    loudness = _correlation(frames[places[0], 0], copied[places[1], 0])
    return {
        "seconds": cepstra.spoken_seconds(copied),
        "original_seconds": cepstra.spoken_seconds(frames),
        "correlation": followed.correlation,
        "frames": followed.frames,
        "voiced_in_both": followed.voiced_in_both,
        "gross_errors": followed.gross_errors,
        "voicing_errors": round(followed.voicing_error * followed.frames),
        "wrong_frames": followed.gross_errors + round(followed.voicing_error * followed.frames),
        "squared_semitones": followed.squared_semitones,
        "energy_correlation": loudness,
        "mcd": cepstra.distortion(frames, copied, path),
    }


def _correlation(theirs: Wave, ours: Wave) -> float | None:
    """None where the original itself does not move; a copy that does not move follows nothing."""
    if theirs.std() <= STILL:
        return None
    return float(np.corrcoef(theirs, ours)[0, 1]) if ours.std() > STILL else 0.0


def _carried(ours: Wave, path: cepstra.Path, frames: int) -> Wave:
    """The F0 of a copy at the times of the original: what is aligned with each frame."""
    place = np.zeros(path[-1, 0] + 1, int)
    place[path[:, 0]] = path[:, 1]
    times = np.arange(frames)  # two for each frame of the alignment
    there = 2 * place[np.minimum(times // 2, len(place) - 1)] + times % 2
    carried: np.ndarray = ours[np.minimum(there, len(ours) - 1)]
    return carried


def _stoi(wave: Wave, again: Wave) -> float | None:
    """Short-time objective intelligibility (Taal et al. 2011); None of too little speech."""
    import warnings

    from pystoi import stoi

    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            return float(stoi(wave, again, SAMPLE_RATE))
        except (RuntimeWarning, ValueError, FloatingPointError):
            return None


def _pesq(wave: Wave, again: Wave) -> float | None:
    """PESQ of a wide band (ITU-T P.862.2); None where it finds no speech in the original.

    Its lowest value where it finds none in the copy alone.
    """
    from pesq import PesqError, pesq

    def judged(copy: Wave) -> float:
        return float(pesq(SAMPLE_RATE, wave, copy, "wb", on_error=PesqError.RETURN_VALUES))

    if not wave.any():
        return None
    found = judged(again) if again.any() else -1.0
    if found > 0:
        return found
    return WORST_PESQ if judged(wave) > 0 else None


JUDGES: dict[str, Callable[[Wave, Wave], float | None]] = {"stoi": _stoi, "pesq": _pesq}


def values_of(found: dict[str, Result]) -> Values:
    """What every recording adds to each figure."""
    pairs = {name: (entry.get("words"), entry) for name, entry in found.items()}
    spoken = {name: entry for name, (words, entry) in pairs.items() if words}
    return {
        "wer": of(spoken, "errors", "words"),
        "wer.original": of(spoken, "original_errors", "words"),
        "gpe": of(found, "gross_errors", "voiced_in_both"),
        "vde": of(found, "voicing_errors", "frames"),
        "ffe": of(found, "wrong_frames", "frames"),
        "f0_correlation": of(found, "correlation"),
        "f0_squared_error": of(found, "squared_semitones", "voiced_in_both"),
        "energy_correlation": of(found, "energy_correlation"),
        "mcd": of(found, "mcd"),
        "rate": of(spoken, "words", "seconds"),
        "rate.original": of(spoken, "words", "original_seconds"),
        "rate_ratio": of(found, "original_seconds", "seconds"),
        "stoi": of(found, "stoi"),
        "pesq": of(found, "pesq"),
        "mos": of(found, "mos"),
        "mos.original": of(found, "original_mos"),
    }
