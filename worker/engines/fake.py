"""An engine without a model: answers every kind of request by arithmetic on its text, for dry runs and tests.

`answer(request)` is the pure function behind it. Options come from the spec's `generation` (`Options`); only with
`markers` on do marks in a text (`Marks`) make the engine misbehave: without it a text is only ever data.
"""

import ctypes
import json
import math
import os
import re
import signal
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from hashlib import sha256
from operator import attrgetter, mul
from typing import Any
from zlib import crc32

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jobs.errors import DeviceLost, ItemErrorCode, ModelFailed
from jobs.models import FAKE_TOKENS, ModelSpec
from jobs.tasks.base import (
    Answer,
    Answered,
    Classified,
    Classify,
    Compared,
    Embed,
    Embedded,
    Failed,
    Filled,
    Filling,
    FillMask,
    Generate,
    Generated,
    Kind,
    Labelled,
    LabelTokens,
    Outcome,
    Request,
    Sample,
    Score,
    Scored,
    Similarity,
)
from jobs.tasks.templates import Template
from worker.engines.base import Encoded, EngineCodec, Model, OutOfMemory, Room, Work
from worker.engines.batch import BatchModel

LIMIT = FAKE_TOKENS
"""Tokens of input, unless the spec names another limit."""
LABELS = ("NEGATIVE", "NEUTRAL", "POSITIVE")
MASK = "[MASK]"
TOKEN_LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
LANGUAGES = ("ar", "de", "en", "es", "fr", "it", "ja", "ko", "nl", "pl", "pt", "ru", "tr", "uk", "vi", "zh")
WIDTH = 16
"""Numbers in an embedding."""
NEW_TOKENS = 16
"""Most words generated, unless the request says otherwise."""


IN_FORCE = {"engine": "fake", "dtype": "float32", "mode": "exact", "max_new_tokens": NEW_TOKENS}
FINE = 0x3FF
"""Which bits of a text's checksum choose among the classifier's answers, which are made once each."""


class Options(BaseModel):
    """What the spec's `generation` may say of the fake engine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    markers: bool = False
    """Whether marks in a text act (`Marks`)."""
    delay_s: float = Field(default=0.0, ge=0)
    """Time each batch takes, with the GIL released."""
    delay_token_s: float = Field(default=0.0, ge=0)
    """Time each padded token of a batch adds."""
    memory_tokens: int | None = Field(default=None, ge=1)
    """Padded tokens a batch may have before the device is out of memory."""
    max_items: int | None = Field(default=None, ge=1)
    """Most items of one batch."""
    load_s: float = Field(default=0.0, ge=0)
    load_error: str | None = None
    """Loading fails with this text."""
    memory_bytes: int = Field(default=0, ge=0)
    """What the model claims to occupy."""


class FakeEngine:
    """Implements the engine port without tensors."""

    name = "fake"

    def codec(self, spec: ModelSpec) -> EngineCodec:
        return FakeCodec(spec)

    def size(self, spec: ModelSpec) -> int:
        return _options(spec).memory_bytes

    def precisions(self, spec: ModelSpec, device: str) -> tuple[str, ...]:
        return ("float32",)

    def load(self, spec: ModelSpec, codec: EngineCodec, room: Room) -> Model:
        options = _options(spec)
        time.sleep(options.load_s)
        if options.load_error:
            raise ModelFailed(options.load_error)
        return BatchModel(_Device(options).forward, max_batch_tokens=room.max_batch_tokens, max_items=options.max_items)


ENGINE = FakeEngine


class FakeCodec:
    """Tokens are runs of anything but white space; there are no special tokens."""

    kind: Kind = "any"
    heads: frozenset[type] = frozenset({Classify, LabelTokens, Answer, FillMask, Embed, Similarity, Generate, Score})
    has_chat_template = True
    languages = LANGUAGES

    def __init__(self, spec: ModelSpec) -> None:
        self._marks = _options(spec).markers
        self._limit = spec.max_input_tokens or LIMIT
        self.prompts: Mapping[str, Template] = dict(spec.prompts)
        self.in_force: Mapping[str, Any] = {**IN_FORCE, **spec.generation}

    def encode(self, requests: Sequence[Request]) -> list[Encoded | Failed]:
        lengths = [_LENGTH[type(request)](request) for request in requests]
        marks = [MARK.findall(_text(request)) for request in requests] if self._marks else [()] * len(requests)
        encoded = list(map(Encoded, requests, lengths, marks))
        if max(lengths, default=0) <= self._limit:
            return list(encoded)
        return [item if item.length <= self._limit else self._too_long(item.length) for item in encoded]

    def _too_long(self, length: int) -> Failed:
        text = f"{length} tokens; the model takes at most {self._limit}"
        return Failed(ItemErrorCode.TOO_LONG, text, input_tokens=length)

    def room(self, request: Request) -> int:
        return self._limit - _LENGTH[type(request)](request)

    def spans(self, text: str) -> list[tuple[int, int]]:
        return [match.span() for match in re.finditer(r"\S+", text)]

    def language(self, code: str) -> str | None:
        own = re.split(r"[-_]", code.strip().lower())[0]
        return own if own in LANGUAGES else None


def answer(request: Request) -> Outcome:
    """What the fake engine answers: the same for the same request, whatever its company."""
    return _ANSWER[type(request)](request)


class Marks:
    """What a text can do to the engine when the spec says `{"markers": true}`. Written `[[kill]]`, `[[sleep 0.5]]`."""

    @staticmethod
    def before(name: str, argument: str, batch: Sequence[Work]) -> None:
        """Marks that act before the batch is answered."""
        if name == "raise":
            raise RuntimeError("told to raise")
        if name == "oom" or (name == "crowded" and len(batch) > 1):
            raise OutOfMemory("told to be out of memory")  # `crowded` fits, but only alone
        if name == "lost":
            raise DeviceLost("told to lose the device")
        if name == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "segfault":
            ctypes.string_at(0)
        if name == "exit":
            os._exit(int(argument or 1))
        if name in ("hang", "sleep"):
            time.sleep(float(argument or 86_400))
        if name == "hang_gil":
            ctypes.PyDLL(None).sleep(int(argument or 86_400))

    @staticmethod
    def after(name: str, index: int, outcomes: list[Any]) -> None:
        """Marks that spoil the answer of the item at `index`."""
        if name == "nan":
            outcomes[index] = _with_nan(outcomes[index])
        if name == "wrong":
            outcomes[index] = "not an outcome"
        if name == "few":
            outcomes.pop()


MARK = re.compile(r"\[\[(\w+)(?: ([\d.]+))?\]\]")


class _Device:
    """Runs batches: time passes, memory ends, marks act, answers come out."""

    def __init__(self, options: Options) -> None:
        self._options = options

    def forward(self, batch: Sequence[Work]) -> list[Outcome]:
        options, tokens = self._options, batch[0].encoded.length * len(batch)
        if options.memory_tokens is not None and tokens > options.memory_tokens:
            raise OutOfMemory(f"{tokens} tokens, memory for {options.memory_tokens}")
        if options.delay_s or options.delay_token_s:
            time.sleep(options.delay_s + options.delay_token_s * tokens)
        return _marked(batch) if options.markers else _answers(batch)


def _answers(batch: Sequence[Work]) -> list[Outcome]:
    """Answers of a batch of one kind of request. Classify is the measuring stick of the orchestration: it has no call
    per item that can be spared."""
    kind: Any = type(batch[0].encoded.request)
    if kind is Classify:
        return [
            _classified(crc32((each.text if each.pair is None else _paired(each)).encode(*_UTF8)) & FINE, length)
            for each, length, _ in map(_ENCODED, batch)
        ]
    return [_ANSWER[kind](item.encoded.request) for item in batch]


def _marked(batch: Sequence[Work]) -> list[Outcome]:
    marks = [(index, name, argument) for index, item in enumerate(batch) for name, argument in item.encoded.payload]
    for _, name, argument in marks:
        Marks.before(name, argument, batch)
    outcomes = _answers(batch)
    for index, name, _ in marks:
        Marks.after(name, index, outcomes)
    return outcomes


def _with_nan(outcome: Outcome) -> Outcome:
    nan = math.nan
    if isinstance(outcome, Classified):
        return replace(outcome, logits=(nan, *outcome.logits[1:]))
    if isinstance(outcome, Compared):
        return replace(outcome, similarities=(nan, *outcome.similarities[1:]))
    if isinstance(outcome, Scored):
        return replace(outcome, logprobs=(nan, *outcome.logprobs[1:]))
    if isinstance(outcome, Labelled | Answered):
        return replace(outcome, logits=array("f", [nan] * (len(outcome.logits) // 4)).tobytes())
    if isinstance(outcome, Embedded):
        return replace(outcome, vector=array("f", [nan] * (len(outcome.vector) // 4)).tobytes())
    return Failed(ItemErrorCode.MODEL_ERROR, "the model returned NaN")


# ----- the arithmetic ------------------------------------------------------------------------------------


def _options(spec: ModelSpec) -> Options:
    try:
        return Options(**spec.generation)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        known = ", ".join(Options.model_fields)
        raise ModelFailed(f"wrong options for the fake engine: {wrong}; known options: {known}") from error


_UTF8 = ("utf-8", "surrogatepass")


def _bytes(text: str) -> bytes:
    return text.encode(*_UTF8)


def _words(text: str | None) -> int:
    return len(text.split()) if text else 0


def _source(request: Generate | Score) -> str:
    """The text that is continued or transformed."""
    if request.messages is not None:
        return "\n".join([message.content for message in request.messages])
    return request.prompt or (request.source if isinstance(request, Generate) else "") or ""


def _classify(request: Classify) -> Outcome:
    text = request.text if request.pair is None else _paired(request)
    return _classified(crc32(_bytes(text)) & FINE, _LENGTH[Classify](request))


def _paired(request: Any) -> str:
    return f"{request.text}\0{request.pair}"


@lru_cache(maxsize=1 << 16)
def _classified(number: int, tokens: int) -> Classified:
    logits = tuple(((number * factor) % 4093) / 512 - 4 for factor in (1, 17, 257))
    return Classified(logits, LABELS, input_tokens=tokens)


def _label(request: LabelTokens) -> Outcome:
    """Words are tokens; those that begin with a capital letter are entities, of a kind that depends on the word."""
    spans = tuple(match.span() for match in re.finditer(r"\S+", request.text))
    logits = array("f")
    for start, end in spans:
        word = request.text[start:end]
        kind = 1 + crc32(_bytes(word)) % (len(TOKEN_LABELS) - 1) if word[0].isupper() else 0
        logits.extend(4.0 if at == kind else 0.0 for at in range(len(TOKEN_LABELS)))
    return Labelled(logits.tobytes(), TOKEN_LABELS, spans, (False,) * len(spans), input_tokens=len(spans))


def _find(request: Answer) -> Outcome:
    """Words are tokens; the answer is the one that the question's checksum falls on."""
    spans = tuple(match.span() for match in re.finditer(r"\S+", request.context))
    chosen = crc32(_bytes(request.question)) % len(spans) if spans else -1
    logits = array("f", [-2.0, -2.0])
    for at in range(len(spans)):
        logits.extend([4.0, 4.0] if at == chosen else [0.0, 0.0])
    return Answered(logits.tobytes(), spans, spans, input_tokens=_LENGTH[Answer](request))


def _fill(request: FillMask) -> Outcome:
    """Words of the text itself, or the targets, in an order that depends on the text. The mask is `[MASK]`."""
    pieces = request.text.split(MASK)
    if len(pieces) < 2:
        return Failed(ItemErrorCode.NO_MASK, f"the text has no {MASK!r}, which is the model's mask")
    words = list(request.targets or dict.fromkeys(" ".join(pieces).split()) or ("nothing",))
    words.sort(key=lambda word: crc32(_bytes(f"{request.text}\0{word}")))
    masks = []
    for at in range(1, len(pieces)):
        before, after = MASK.join(pieces[:at]), MASK.join(pieces[at:])
        masks.append(
            tuple(
                Filling(crc32(_bytes(word)) % 30_000, word, 0.5**rank, f"{before}{word}{after}")
                for rank, word in enumerate(words[: request.top_k], 1)
            )
        )
    return Filled(tuple(masks), input_tokens=_words(request.text))


def _vector(
    text: str, pooling: str | None = None, dimensions: int = WIDTH, *, normalize: bool = True
) -> "array[float]":
    digest = sha256(_bytes(f"{pooling}\0{text}")).digest()
    numbers = [int.from_bytes(digest[at : at + 2], "little") / 32768 - 1 for at in range(0, 2 * dimensions, 2)]
    length = math.hypot(*numbers) if normalize else 1.0
    return array("f", [number / (length or 1.0) for number in numbers])


def _embed(request: Embed) -> Outcome:
    dimensions = request.dimensions or WIDTH
    if dimensions > WIDTH:
        return Failed(ItemErrorCode.INVALID_ITEM, f"{dimensions} dimensions asked; the model has {WIDTH}")
    if request.pooling == "none":
        words = request.text.split()
        rows = [_vector(word, "none", dimensions, normalize=request.normalize).tobytes() for word in words]
        return Embedded(b"".join(rows), len(rows), input_tokens=len(words))
    vector = _vector(request.text, request.pooling, dimensions, normalize=request.normalize)
    return Embedded(vector.tobytes(), input_tokens=_words(request.text))


def _compare(request: Similarity) -> Outcome:
    own = _vector(request.text)
    cosines = (sum(map(mul, own, _vector(each))) for each in request.candidates)
    return Compared(tuple(cosines), input_tokens=_words(request.text))


def _generate(request: Generate) -> Outcome:
    if request.grammar is not None and request.grammar.kind != "choice":
        said = "the fake model keeps to a choice only, to no JSON and no regular expression"
        return Failed(ItemErrorCode.SCHEMA_UNSATISFIED, said, input_tokens=_words(_source(request)))
    samples = [_sample(request, index) for index in range(request.n)]
    written = sum(len(sample.text.split()) for sample in samples)
    return Generated(tuple(samples), input_tokens=_words(_source(request)), output_tokens=written)


def _sample(request: Generate, index: int) -> Sample:
    """Words of the text, drawn by a number that depends on text, language and, when sampling, on seed and sample."""
    words = _source(request).split() or ["nothing"]
    drawn = f"{request.seed}/{index}" if request.sampling.temperature or index else ""
    number = crc32(_bytes(f"{_source(request)}\0{request.source_language}\0{request.target_language}\0{drawn}"))
    if request.grammar is not None:
        choices = json.loads(request.grammar.text)
        return Sample(choices[number % len(choices)], "stop")
    most = request.sampling.max_new_tokens or NEW_TOKENS
    wished = max(number % 24 + 1, request.sampling.min_new_tokens or 0)
    text = " ".join(words[(number >> (at % 16)) % len(words)] for at in range(min(wished, most)))
    ends = [text.index(stop) for stop in request.stop if stop in text]
    if ends:
        return Sample(text[: min(ends)], "stop")
    return Sample(text, "stop" if wished <= most else "length")


def _score(request: Score) -> Outcome:
    source = _source(request)
    tokens = tuple(max(1, _words(each)) for each in request.continuations)
    grades = [crc32(_bytes(f"{source}\0{each}")) % 1000 for each in request.continuations]
    logprobs = tuple(-count * (1 + grade) / 250 for count, grade in zip(tokens, grades, strict=True))
    return Scored(logprobs, tokens, input_tokens=_LENGTH[Score](request), output_tokens=0)


_ENCODED: Callable[[Work], tuple[Any, int, Any]] = attrgetter("encoded")
_LENGTH: dict[type, Callable[[Any], int]] = {
    Classify: lambda request: len(request.text.split()) + (_words(request.pair) if request.pair else 0),
    LabelTokens: lambda request: _words(request.text),
    Answer: lambda request: _words(request.question) + _words(request.context),
    FillMask: lambda request: _words(request.text),
    Embed: lambda request: _words(request.text),
    Similarity: lambda request: _words(request.text),
    Generate: lambda request: _words(_source(request)),
    Score: lambda request: _words(_source(request)) + max(map(_words, request.continuations), default=0),
}
_ANSWER: dict[type, Callable[[Any], Outcome]] = {
    Classify: _classify,
    LabelTokens: _label,
    Answer: _find,
    FillMask: _fill,
    Embed: _embed,
    Similarity: _compare,
    Generate: _generate,
    Score: _score,
}


def _text(request: Request) -> str:
    if isinstance(request, (Generate, Score)):
        return _source(request)
    if isinstance(request, Answer):
        return f"{request.question} {request.context}"
    return f"{request.text} {request.pair or ''}" if isinstance(request, Classify) else request.text
