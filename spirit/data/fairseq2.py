"""Corpora read by fairseq2's data pipeline: decoded in C++, in threads ahead of who asks."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float

from spirit.audio import MAX_SECONDS, AudioError, read_audio, resample
from spirit.data.utterance import Utterance
from spirit.decoding import MAX_CHANNELS, MAX_PEAK, MAX_RATE, MIN_RATE, mono
from spirit.sound import Sound, is_url
from spirit.units import SAMPLE_RATE

Wave = Float[np.ndarray, " samples"]

SUFFIXES = (".wav", ".flac")
"""What fairseq2 decodes; of mp3 its 0.8.1 makes other samples than libsndfile does of a file."""


def read_waves(
    utterances: Iterable[Utterance], *, threads: int = 2, ahead: int = 16
) -> Iterator[tuple[Utterance, Wave | AudioError]]:
    """Each utterance with its wave, 16 kHz mono, or with why it has none; in their order.

    The waves are those of `read_audio`, sample by sample, and so are the refusals: what fairseq2
    cannot take (stretches, URLs, Parquet, other formats, bad audio) is left to it. `ahead`
    recordings are decoded before they are asked for. Raises what `read_audio` raises for a disk or
    a network that fails.
    """
    from fairseq2.data.data_pipeline import read_iterator

    pipeline = (
        read_iterator(iter(utterances), lambda it: it, infinite=False, skip_pickling_check=True)
        .map(_reader(), num_parallel_calls=threads)
        .prefetch(ahead)
        .and_return()
    )
    for utterance, heard in pipeline:
        if isinstance(heard, Exception) and not isinstance(heard, AudioError):
            raise heard
        yield utterance, heard


def _reader() -> Callable[[Utterance], tuple[Utterance, Wave | Exception]]:
    from fairseq2.data.audio import AudioDecoder
    from fairseq2.data.data_pipeline import FileMapper

    files, decoder = FileMapper(), AudioDecoder(keepdim=True)

    def hear(utterance: Utterance) -> tuple[Utterance, Wave | Exception]:
        sound = Sound.of(utterance.audio)
        file = sound.whole and sound.row is None and not is_url(sound.uri)
        try:
            if file and sound.uri.lower().endswith(SUFFIXES):
                wave = _decode(sound.uri, files, decoder)
                if wave is not None:
                    return utterance, wave
            return utterance, read_audio(utterance.audio)
        except Exception as error:  # C++ would make another one of it
            return utterance, error

    return hear


def _decode(path: str, files: Any, decoder: Any) -> Wave | None:
    """A recording as 16 kHz mono; None if `read_audio` is to say what is wrong with it."""
    try:
        decoded = decoder(files(path)["data"])
    except (ValueError, RuntimeError, OSError):
        return None
    rate = int(decoded["sample_rate"])
    frames: Float[np.ndarray, "frames channels"] = decoded["waveform"].numpy()
    count, channels = frames.shape
    usual = MIN_RATE <= rate <= MAX_RATE and channels <= MAX_CHANNELS
    # NaN is not below anything.
    if not (usual and 0 < count <= MAX_SECONDS * rate and np.abs(frames).max() <= MAX_PEAK):
        return None
    wave = resample(mono(frames), rate, SAMPLE_RATE)
    return wave if len(wave) else None
