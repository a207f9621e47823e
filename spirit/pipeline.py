"""A voice in, a voice out: the tokenizer, the language model and the vocoder as one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from transformers import PreTrainedModel

from spirit import bundle, config
from spirit.answers import Limits, Until, cut
from spirit.asking import CHAINED, Question, Truncate, answered, in_words, joined, text_at_end
from spirit.codec import Document, Segment, Task
from spirit.engine import ranks
from spirit.formats import spiritlm_model
from spirit.formats.spiritlm_model import ReleasedReader
from spirit.formats.spiritlm_vocoder import ReleasedVocoder, read_vocoder
from spirit.lm import model as llama
from spirit.lm import weights
from spirit.lm.generate import generate, generate_many
from spirit.lm.reader import Own, reader
from spirit.lm.score import likelihood, score
from spirit.lm.search import search
from spirit.lm.weights import Precision
from spirit.shots import Examples, trained
from spirit.speech.listening import Chunked, Listening
from spirit.streaming import KNOWN, Wave, answer
from spirit.tokenizer import Tokenizer
from spirit.units import SAMPLE_RATE, Kind, Tracks, Units
from spirit.vocab import Want
from spirit.vocoder import Stream, Vocoder
from spirit.vocoder.stream import check_prosody

BEAMS: dict[Task, int] = {"transcribe": 4}
"""Beams of the search that answers a task of which there is one right answer."""
FUSION = 0.3
"""Weight of what the model of text says for a transcript that the search has found, beside what is
heard (rescoring of an n-best list)."""
TRIES: dict[Task, int] = {"speak": 16}
"""Answers that are drawn for a task; given is the one in which the model best hears its prompt."""
ALPHABET = {"unit": Kind.HUBERT, "pitch": Kind.PITCH, "style": Kind.STYLE}
WORDY = (16, 2)
"""Text tokens of a transcript at most: so many, and so many more per HuBERT unit. Nobody speaks
that fast; a model that finds no end is stopped there."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """What spirit.toml says about a model folder."""

    tokenizer: Path
    """The tokenizer's folder, seen from the model's."""
    fingerprint: str
    """The tokenizer's, as the model was trained with it."""
    vocabulary: str = ""
    """The fingerprint of the vocabulary."""
    license: str = ""
    """The license of the weights."""
    speaker: str = ""
    """Who speaks where nobody is named; else the vocoder's first."""


def find(folder: str | Path) -> Path:
    """A model or tokenizer folder: as given, else the bundled one of that name.

    "bundled" is the default model. Raises ValueError if there is neither.
    """
    name = "checkpoints/tiny" if str(folder) == "bundled" else str(folder)
    if Path(name).is_dir():
        return Path(name)
    inside = None if Path(name).is_absolute() else bundle.locate(name)
    if inside is None:
        raise ValueError(f"{name}: no such folder; give the path of one, or checkpoints/tiny")
    return inside


def read_card(folder: Path) -> tuple[Card, Path]:
    """What a model's folder says of itself, and the folder of its tokenizer.

    Raises ValueError for a folder that is no model's, and where the tokenizer is missing.
    """
    if not (folder / "spirit.toml").is_file():
        told, trained = f"{folder} holds no spirit.toml", folder / "model"
        told += "; it is not the folder of a model"
        raise ValueError(f"{told}, {trained} is" if (trained / "spirit.toml").is_file() else told)
    card = config.load(folder / "spirit.toml", Card)
    home = folder / card.tokenizer
    if not home.is_dir():
        raise ValueError(
            f"{folder}: its tokenizer {home} is missing; put it there or correct spirit.toml"
        )
    return card, home


class Spirit:
    """Hears, continues and speaks with one model. Without a vocoder it does not speak."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Tokenizer | ReleasedReader,
        vocoder: Vocoder | None = None,
        speaker: str | None = None,
        *,
        mute: str = "",
    ) -> None:
        """All parts on one device; `mute` says why there is no vocoder. Raises ValueError if they
        do not belong together."""
        rows, vocab = model.config.vocab_size, tokenizer.vocab
        if rows != vocab.size:
            raise ValueError(
                f"the model has {rows} tokens but its tokenizer {tokenizer.name} {vocab.size}; "
                "use the tokenizer that the model was trained with"
            )
        if isinstance(vocoder, ReleasedVocoder):
            if misfit := vocoder.misfit(vocab):
                raise ValueError(f"the vocoder {misfit}; use the vocoder of the model")
        elif vocoder is not None:
            wanted = {name: vocab.count.get(kind, 0) for name, kind in ALPHABET.items()}
            known = {name: vocoder.alphabet.get(name, 0) for name in ALPHABET}
            if wanted != known:
                raise ValueError(
                    f"the vocoder speaks {known} but the tokenizer {tokenizer.name} has {wanted}; "
                    "use the vocoder that was trained with this tokenizer"
                )
        self.model = model
        self.tokenizer = tokenizer
        self.vocoder = vocoder
        self.speaker = speaker
        self.mute = mute or (
            "this model has no vocoder, so it cannot speak; put one into its folder vocoder "
            "(spirit fit vocoder)"
        )
        if vocoder is not None:
            self.check_voice(speaker)

    @classmethod
    def load(
        cls, folder: str | Path = "bundled", device: str = "auto", dtype: Precision = "auto"
    ) -> "Spirit":
        """Load a model folder with the tokenizer and vocoder it names; else the bundled one.

        A released Spirit LM is taken as it is, by its folder or, with SPIRITLM_CHECKPOINTS_DIR set,
        its name. `dtype` is that of the language model's weights: fp32, bf16, or quantized to int8
        or int4; else bf16 on a GPU and for a released model, and fp32 on a CPU. Raises ValueError
        in one line if a part is missing, damaged or made for another model.
        """
        where = ranks.device(device)
        if (home := spiritlm_model.locate(folder)) is not None:
            # What is quantized is not first put on the device whole.
            place = torch.device("cpu") if dtype in ("int8", "int4") else where
            released = spiritlm_model.load(home, where, place)
            model = released.model
            if dtype != "auto":  # as it is, the sums are those of the release to the last bit
                model = weights.prepare(model.to(weights.floating(dtype, where)), dtype, where)
            parts = (model, released.reader, released.vocoder, released.speaker)
            return cls(*parts, mute=released.mute)
        folder = find(folder)
        card, home = read_card(folder)
        tokenizer = Tokenizer.load(home, where)
        if card.fingerprint != tokenizer.fingerprint:
            raise ValueError(
                f"{folder} was trained with the tokenizer {card.fingerprint} but {home} is "
                f"{tokenizer.fingerprint}; put the right one there or correct spirit.toml"
            )
        model, vocab = llama.load(folder, weights.floating(dtype, where), tokenizer.vocab)
        for made in (vocab.fingerprint, card.vocabulary):
            if made and made != tokenizer.vocab.fingerprint:
                raise ValueError(
                    f"{folder} was trained with the vocabulary {made} but its tokenizer {home} "
                    f"has {tokenizer.vocab.fingerprint}; use the tokenizer it was trained with"
                )
        vocoder, speaker = _vocoder(folder / "vocoder", where)
        speaker = card.speaker or speaker
        return cls(weights.prepare(model, dtype, where), tokenizer, vocoder, speaker)

    def hear(self, wave: Float[np.ndarray, " samples"]) -> Units:
        """The units of a 16 kHz wave, as the model reads them."""
        return self.tokenizer.encoder.encode(wave).merge()

    def listen(self) -> Listening | Chunked:
        """Hear a recording while it is being read: `push` its samples, then `finish().merge()` is
        what `hear` gives of all of them."""
        return self.tokenizer.encoder.listen()

    @property
    def styles(self) -> Sequence[str]:
        """The names of the styles that it can speak in."""
        own = self.vocoder.styles if self.vocoder is not None else ()
        return own or self.tokenizer.styles

    def style_of(self, wave: Float[np.ndarray, " samples"]) -> str:
        """The style that most seconds of a 16 kHz wave are in. Raises ValueError without styles."""
        tracks = self.tokenizer.encoder.encode(wave).by_kind
        if Kind.STYLE not in tracks or not self.tokenizer.styles:
            told = f"; name one of {', '.join(self.styles)}" if self.styles else ""
            raise ValueError(f"this model hears no style in a recording{told}")
        return self.tokenizer.styles[int(np.bincount(tracks[Kind.STYLE].unit).argmax())]

    def generate(
        self,
        prompt: Sequence[Segment],
        want: Want = "any",
        task: Task = "continue",
        *,
        temperature: float | None = None,
        top_p: float = 0.95,
        top_k: int = 0,
        seed: int = 0,
        tries: int | None = None,
        examples: Examples | None = None,
        min_seconds: float = 0.0,
        max_seconds: float = 20.0,
        max_tokens: int = 1_000,
        stop: Sequence[str] = (),
        until: Sequence[Until] = (),
        truncate: Truncate | None = None,
        grammar: bool = True,
        speaker: str | None = None,
        style: str | int | None = None,
        rate: float = 1.0,
    ) -> Iterator[Segment]:
        """Yield the segments that answer a prompt of text and speech, each when it is complete.

        The prompt is not repeated. The answer ends where the model ends its utterance, or with
        `max_tokens`, or before its speech lasts longer than `max_seconds`, spoken by `speaker` in
        `style` at `rate`; or before a text of `stop`, or behind a "sentence" or in "silence" where
        `until` names them; or where it goes round in circles. The model does not end it before
        `min_seconds` of speech. `grammar` keeps it to what training data looks like. A prompt that
        is longer than the context is refused; `truncate` "left" keeps its end.

        The task "transcribe" answers one segment of speech with its words, "speak" one of text with
        its speech. The default temperature depends on the task (`TEMPERATURE`); at 0, the likeliest
        answer that a beam search finds is given, where the task has `BEAMS`; of transcripts, the
        likeliest as what is heard and, by `FUSION`, as text. Of the `tries` answers to "speak"
        (`TRIES`) the one is given that the model transcribes most surely as what it had to say. To
        a model that was not trained for a task, such as the released ones, `examples` show it; then
        there is one try and no search. Raises ValueError for a prompt or settings that cannot be
        answered.
        """
        limits = Limits(
            max_tokens=max_tokens,
            min_seconds=min_seconds,
            max_seconds=max_seconds,
            stop=tuple(stop),
            until=tuple(until),
        )
        question = self._question(want, task, limits, (speaker, style, rate), examples)
        ids = question.ids(prompt, self._positions, truncate)
        settings = question.settings(grammar, temperature=temperature, top_p=top_p, top_k=top_k)
        greedy, beams = settings["temperature"] == 0, BEAMS.get(task, 1)
        if greedy and beams > 1 and examples is None:
            heard = sum(len(s.of(Kind.HUBERT)) for s in prompt if isinstance(s, Units))
            most = min(max_tokens, WORDY[0] + WORDY[1] * heard)
            vocab = self.tokenizer.vocab
            allowed = torch.from_numpy(vocab.allowed(question.want))
            asked: dict[str, Any] = {"beams": beams, "max_new": most, "eos": vocab.eos}
            found = search(self.model, ids, allowed, further=self._plausible, **asked)
            yield from question.said(iter(found), ids)
            return
        if tries is None:
            tries = TRIES.get(task, 1) if examples is None else 1
        _check_tries(tries)
        if tries > 1 and examples is not None:
            raise ValueError("which try is the best is not known by examples; leave out --tries")
        if tries == 1 or task != "speak" or greedy:
            yield from question.said(self._written(question, ids, seed, settings), ids)
            return
        seeds = [seed, *(_seed(seed, turn) for turn in range(1, tries))]
        text = " ".join(segment for segment in prompt if isinstance(segment, str))
        answers = self._drawn(question, [ids] * tries, seeds, settings)
        yield from max(answers, key=lambda answer: self._understood(answer, text))

    def chain(
        self,
        prompt: Sequence[Segment],
        want: Want = "any",
        *,
        tries: int | None = None,
        speaker: str | None = None,
        style: str | int | None = None,
        rate: float = 1.0,
        **settings: Any,
    ) -> Iterator[Segment]:
        """Go on from a prompt by way of text: write down what is heard, go on in text, say that.

        SpeechGPT's chain of modality (Zhang et al. 2023, section 3.2). A small model reads better
        than it understands speech; how the prompt was said is lost on it, and where nothing is
        heard it begins by itself. Yields the text, its speech, or, for "any", both. `settings` are
        those of `generate`: `stop` and "sentence" end the text, seconds and "silence" the speech;
        the default temperature of the text is `CHAINED`.
        Raises ValueError as `generate` does, and for a model without the tasks that this takes.
        """
        voice: dict[str, Any] = {"speaker": speaker, "style": style, "rate": rate}
        # What cannot be said is refused before anything is generated.
        if want != "text" and (speaker or style is not None):
            self.check_voice(speaker, style)
        check_prosody(None, rate, 0.0)
        _check_tries(tries)
        for told, saying in self._by_text(prompt, want, settings):
            if saying is None:
                yield told
            else:
                yield from self.generate([told], task="speak", tries=tries, **saying, **voice)

    def stream_chain(
        self,
        prompt: Sequence[Segment],
        want: Want = "any",
        *,
        speaker: str | None = None,
        style: str | int | None = None,
        rate: float = 1.0,
        pitch: float = 0.0,
        look_ahead: float | None = None,
        **settings: Any,
    ) -> Iterator[Segment | Wave]:
        """What `chain` yields of one try, and its sound as `stream` does."""
        voice: dict[str, Any] = {"speaker": speaker, "style": style, "rate": rate, "pitch": pitch}
        voice["look_ahead"] = look_ahead
        self.check_voice(speaker, style)
        vocoder, kinds = self._voice(), self.tokenizer.vocab.kinds
        who, number = speaker or vocoder.speakers[0], self._style(style)
        # What cannot be said is refused before anything is generated.
        vocoder.stream(who, number, rate, pitch, look_ahead=look_ahead, kinds=kinds)
        for told, saying in self._by_text(prompt, want, settings):
            if saying is None:
                yield told
            else:
                yield from self.stream([told], task="speak", **saying, **voice)

    def _by_text(
        self, prompt: Sequence[Segment], want: Want, settings: dict[str, Any]
    ) -> Iterator[tuple[str, dict[str, Any] | None]]:
        """The text to give, with None, and the text to say, with how."""
        want = answered(want, "continue")
        bounds = _limits({name: settings[name] for name in _BOUNDS if name in settings})
        # What ends the text of an answer in speech is no end of speech.
        bounds.check("any" if want == "speech" else want)
        if want != "text":
            self._need("speak")
        told = self.write_down(prompt, settings.get("truncate"))
        drawing = {name: value for name, value in settings.items() if name not in _BOUNDS}
        drawing["max_tokens"] = bounds.max_tokens
        ends: dict[str, Any] = {"stop": bounds.stop, "until": _only(bounds, "sentence")}
        if (temperature := drawing.get("temperature")) is None:
            temperature = CHAINED
        ways = {**drawing, **ends, "temperature": temperature}
        answer = self.generate([told] if told else [], "text", **ways)
        text = "".join(segment for segment in answer if isinstance(segment, str))
        if text and want != "speech":
            yield text, None
        if text.strip() and want != "text":
            ends = {"until": _only(bounds, "silence"), "max_seconds": bounds.max_seconds}
            yield text.strip(), {**ends, "min_seconds": bounds.min_seconds, **drawing}

    def write_down(self, prompt: Sequence[Segment], truncate: Truncate | None = None) -> str:
        """A prompt in words: what is written as it stands, what is spoken as it is transcribed.

        Raises ValueError for speech that does not fit into the context, unless its end is to be
        kept, and for a model that was not trained to transcribe.
        """
        told: list[str] = []
        for segment in joined(prompt):
            if isinstance(segment, Units):
                self._need("transcribe")
                heard = self.generate([segment], task="transcribe", truncate=truncate)
                segment = in_words(heard)
            told.append(segment)
        return " ".join(filter(None, told))

    def stream(
        self,
        prompt: Sequence[Segment],
        want: Want = "any",
        task: Task = "continue",
        *,
        temperature: float | None = None,
        top_p: float = 0.95,
        top_k: int = 0,
        seed: int = 0,
        truncate: Truncate | None = None,
        grammar: bool = True,
        speaker: str | None = None,
        style: str | int | None = None,
        rate: float = 1.0,
        pitch: float = 0.0,
        look_ahead: float | None = None,
        examples: Examples | None = None,
        **limits: Any,
    ) -> Iterator[Segment | Wave]:
        """Yield what `generate` yields of one try, and before each segment of speech its sound,
        piece by piece, while what follows is still being written.

        Where nobody is named, the voice is the likeliest for the speech of the prompt, or without
        any for the first units of the answer. `look_ahead`, in seconds, brings the sound sooner and
        less exactly (`Vocoder.stream`). `limits` are those of `generate`. Raises ValueError as
        `generate` and `speak` do.
        """
        bounds = _limits(limits)
        question = self._question(want, task, bounds, (speaker, style, rate), examples)
        vocab, vocoder = self.tokenizer.vocab, self._voice()
        ids = question.ids(prompt, self._positions, truncate)
        heard = [segment for segment in prompt if isinstance(segment, Units)]
        number, named = self._style(style), speaker or self.speaker

        def begin(units: Units) -> Stream:
            known = sum(heard, Units.build([])) if heard else units
            who = vocoder.likeliest(known.of(Kind.HUBERT)) if named is None else named
            return vocoder.stream(
                who, number, rate, pitch, look_ahead=look_ahead, kinds=vocab.kinds
            )

        begin(Units.build([]))  # what cannot be said is refused before anything is generated
        settings = question.settings(grammar, temperature=temperature, top_p=top_p, top_k=top_k)
        if examples is not None and task == "transcribe":  # its marks are no part of the answer
            yield from question.said(self._written(question, ids, seed, settings), ids)
            return
        made = answer(
            question.heard(self._written(question, ids, seed, settings)),
            self.tokenizer.codec,
            begin,
            seconds=bounds.max_seconds,
            written=text_at_end(vocab, ids),
            known=1 if named or heard else KNOWN,
        )
        yield from cut(made, bounds)  # sound passes

    def generate_batch(
        self,
        prompts: Sequence[Sequence[Segment]],
        want: Want = "any",
        task: Task = "continue",
        *,
        seeds: Sequence[int] | None = None,
        temperature: float | None = None,
        top_p: float = 0.95,
        top_k: int = 0,
        truncate: Truncate | None = None,
        grammar: bool = True,
        speaker: str | None = None,
        style: str | int | None = None,
        rate: float = 1.0,
        examples: Examples | None = None,
        **limits: Any,
    ) -> list[list[Segment]]:
        """Answers to prompts of any lengths and modalities, decoded side by side.

        Each is drawn with a seed of its own (else 0), and is what `generate` gives with that seed
        and one try: in fp32 on a CPU in every token, in bf16 in most. `limits` are those of
        `generate`. What prompts begin with in common is read once. Nothing is searched: at
        temperature 0 the likeliest id is taken each time. Raises ValueError as `generate` does.
        """
        question = self._question(want, task, _limits(limits), (speaker, style, rate), examples)
        ids = [question.ids(prompt, self._positions, truncate) for prompt in prompts]
        settings = question.settings(grammar, temperature=temperature, top_p=top_p, top_k=top_k)
        return self._drawn(question, ids, seeds or [0] * len(ids), settings)

    def score(self, documents: Sequence[Document]) -> list[Float[np.ndarray, " _"]]:
        """The log probability of every token of each document behind BOS, in nats.

        Documents of any lengths are read together. Raises ValueError for one that is longer than
        the context.
        """
        return score(self.model, [self.tokenizer.codec.encode(one) for one in documents])

    def remember(self, prompt: Sequence[Segment]) -> None:
        """Read a beginning that prompts to come share: they go on from there, which is faster.

        The next beginning takes its place. Other models than Llamas remember nothing.
        """
        source = reader(self.model)
        if isinstance(source, Own):
            source.remember(self.tokenizer.codec.prompt(prompt))

    @property
    def _positions(self) -> int:
        return int(self.model.config.max_position_embeddings)

    def _question(
        self,
        want: Want,
        task: Task,
        limits: Limits,
        voice: tuple[str | None, str | int | None, float],
        examples: Examples | None,
    ) -> Question:
        speaker, style, rate = voice
        if limits.min_seconds:
            self._voice()  # tells the time
        silence = self._silence if "silence" in limits.until else ()
        seconds = partial(self.seconds, speaker=speaker, style=style, rate=rate)
        return Question(self.tokenizer.codec, want, task, limits, seconds, silence, examples)

    def _written(
        self, question: Question, ids: Int[np.ndarray, " _"], seed: int, settings: dict[str, Any]
    ) -> Iterator[int]:
        """The ids of one answer, as they are drawn."""
        watch = question.watch(ids)
        asked = {"seed": seed, "stop": watch.stop, "hold": watch.hold, **settings}
        return generate(self.model, ids, **asked)

    def _drawn(
        self,
        question: Question,
        prompts: Sequence[Int[np.ndarray, " _"]],
        seeds: Sequence[int],
        settings: dict[str, Any],
    ) -> list[list[Segment]]:
        """Answers that are drawn side by side."""
        watches = [question.watch(ids) for ids in prompts]
        stops, holds = [watch.stop for watch in watches], [watch.hold for watch in watches]
        asked = {"seeds": seeds, "stops": stops, "holds": holds, **settings}
        drawn = generate_many(self.model, prompts, **asked)
        pairs = zip(drawn, prompts, strict=True)
        return [list(question.said(iter(new_ids), ids)) for new_ids, ids in pairs]

    @cached_property
    def _silence(self) -> frozenset[int]:
        """The HuBERT units of a second of silence."""
        heard = self.hear(np.zeros(SAMPLE_RATE, np.float32))
        return frozenset(heard.of(Kind.HUBERT).tolist())

    def _plausible(self, answers: list[list[int]]) -> list[float]:
        """What the model, as one of text alone, has to say for transcripts, as log likelihoods."""
        opened = self.tokenizer.codec.prompt((), "text")
        documents = [np.concatenate([opened, answer]).astype(np.int64) for answer in answers]
        scores = score(self.model, documents, [len(opened)] * len(documents))
        return [FUSION * float(one.sum()) for one in scores]

    def _understood(self, answer: Sequence[Segment], text: str) -> float:
        """How surely the model hears `text` in an answer, as a log likelihood."""
        said = [segment for segment in answer if isinstance(segment, Units)]
        if len(said) != 1:
            return -np.inf
        codec = self.tokenizer.codec
        ids = codec.encode(Document((said[0], text), "transcribe", closed=True))
        start = len(codec.prompt(said, "text", "transcribe"))
        if len(ids) > int(self.model.config.max_position_embeddings):
            return -np.inf
        return likelihood(self.model, ids, start)

    def speak(
        self,
        units: Units,
        speaker: str | None = None,
        style: str | int | None = None,
        rate: float = 1.0,
        pitch: float = 0.0,
    ) -> Float[np.ndarray, " samples"]:
        """The 16 kHz wave of units, with predicted durations.

        `style`, a name or number, replaces the styles among the units; `rate` 2 is twice as fast,
        `pitch` is higher by so many semitones. Without a speaker the model's own choice speaks.
        Raises ValueError for a speaker or style that the model has not.
        """
        return self._voice().speak(units, speaker or self.speaker, self._style(style), rate, pitch)

    def lay_out(self, units: Units) -> Tracks:
        """The units at the times at which `speak` says them, one entry per HuBERT frame."""
        return self._voice().predict_tracks(units, self.speaker)

    def resynth(
        self,
        wave: Float[np.ndarray, " samples"],
        speaker: str | None = None,
        style: str | int | None = None,
        rate: float = 1.0,
        pitch: float = 0.0,
        *,
        predict_durations: bool = False,
    ) -> Float[np.ndarray, " resynthesized"]:
        """Hear a wave and say it again, in its own rhythm or with predicted durations.

        `style`, `rate` and `pitch` are as of `speak`.
        """
        tracks = self.tokenizer.encoder.encode(wave)
        if predict_durations:
            return self.speak(tracks.merge(), speaker, style, rate, pitch)
        who = speaker or self.speaker
        return self._voice().synthesize(tracks, who, self._style(style), rate, pitch)

    def check_voice(self, speaker: str | None = None, style: str | int | None = None) -> None:
        """Raise ValueError, before anything is generated, if `speak` could not use this voice."""
        vocoder, _ = self._voice(), self._style(style)
        if speaker is not None and speaker not in vocoder.speakers:
            raise ValueError(f"no speaker {speaker!r}; there are {', '.join(vocoder.speakers)}")

    def seconds(
        self,
        units: Units,
        speaker: str | None = None,
        style: str | int | None = None,
        rate: float = 1.0,
    ) -> float:
        """How long `speak` would speak; 0 without a vocoder."""
        if self.vocoder is None:
            return 0.0
        voice = (speaker or self.speaker, self._style(style))
        frames = self.vocoder.durations(units, *voice, rate).sum()
        return float(frames) * self.vocoder.voice.generator.frame / SAMPLE_RATE

    def _need(self, task: Task) -> None:
        if not trained(self.tokenizer.vocab, task):
            raise ValueError(
                f"{self.tokenizer.name} was not trained to {task}, and going on by way of text "
                "needs that; leave out the chain"
            )

    def _voice(self) -> Vocoder:
        if self.vocoder is None:
            raise ValueError(self.mute)
        return self.vocoder

    def _style(self, style: str | int | None) -> int | None:
        names = self.styles
        if style is None or (isinstance(style, int) and 0 <= style < len(names)):
            return style
        if style in names:
            return names.index(style)
        raise ValueError(f"no style {style!r}; this model has {', '.join(names) or 'none'}")


_BOUNDS = ("max_tokens", "min_seconds", "max_seconds", "stop", "until")


def _only(bounds: Limits, end: Until) -> tuple[Until, ...]:
    """This end, if the limits name it."""
    return tuple(one for one in bounds.until if one == end)


def _vocoder(home: Path, device: torch.device) -> tuple[Vocoder | None, str | None]:
    """The vocoder in a model's folder, if any, and who speaks where nobody is named, if it matters:
    ours, or a released one as it is."""
    if not home.is_dir():
        return None, None
    vocoder = read_vocoder(home, device)
    released = isinstance(vocoder, ReleasedVocoder)
    return vocoder, spiritlm_model.narrator(vocoder) if released else None


def _check_tries(tries: int | None) -> None:
    if tries is not None and tries < 1:
        raise ValueError(f"an answer needs at least one try, not {tries}")


def _limits(given: dict[str, Any]) -> Limits:
    bounds: dict[str, Any]
    bounds = {key: tuple(v) if isinstance(v, list) else v for key, v in given.items()}
    return Limits(**bounds)


def _seed(seed: int, turn: int) -> int:
    """A seed of its own for each further try."""
    return int(np.random.SeedSequence([seed, turn]).generate_state(1)[0])
