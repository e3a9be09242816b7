"""qa: the answer to a question, out of a text: cut from it, or put in words by a model that is asked."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import ClassVar, NamedTuple

from pydantic import Field, SkipValidation
from typing_extensions import TypedDict

from jobs.schemas import Item
from jobs.tasks import windows
from jobs.tasks.base import Answer, Answered, Asked, Codec, Generate, Generated, Outcome, Sampling, Task
from jobs.tasks.params import Output, Params
from jobs.tasks.prompts import phrase
from jobs.tasks.texts import check_text, first_text, need

INSTRUCTION = "Answer the question in a few words, out of this text only.\n\nText: {text}\n\nQuestion: {question}"
COMPLETION = "Text: {text}\n\nQuestion: {question}\nAnswer:"
NEW_TOKENS = 64
"""Longest answer of a model that is asked in words."""


class QaItem(Item):
    question: str
    context: str


class QaParams(Params):
    other_names: ClassVar[Mapping[str, str]] = {
        "topk": "top_k",
        "max_answer_length": "max_answer_len",
        "handle_impossible": "handle_impossible_answer",
    }

    top_k: int = Field(default=1, ge=1, le=1000)
    """How many answers come back, at most."""
    max_answer_len: int = Field(default=15, ge=1, le=512)
    """Longest answer, in the model's tokens."""
    handle_impossible_answer: bool = False
    """Whether no answer at all is among the answers: an empty one, with its score."""


class AnswerScore(TypedDict):
    """Named as in huggingface_hub's QuestionAnsweringOutputElement."""

    answer: str
    score: float | None
    """Probability that the answer begins and ends just there; `null`: put in words, and nobody knows."""
    start: int | None
    end: int | None
    """Its characters in the context; `null`: put in words that do not stand there."""


class QaOutput(Output):
    answers: SkipValidation[list[AnswerScore]]
    """Best first."""


class _Span(NamedTuple):
    start: int
    end: int
    score: float


def _preprocess(item: QaItem, params: QaParams, codec: Codec) -> Asked:
    question, context = check_text(item.question, "question"), check_text(item.context, "context")
    return Asked([_asking(question, codec)(context)], state=(0,))


def _shorten(item: QaItem, params: QaParams, codec: Codec) -> Asked:
    """A question that leaves the context less than half of the room is cut; models asked in words read the start of
    a context alone, since pieces of an answer cannot be put together."""
    question, dropped = item.question, 0
    if Answer in codec.heads:
        half = max(1, codec.room(Answer("", "")) // 2)
        cut = windows.truncate(question, lambda text: Answer(text, ""), codec, limit=half)
        question, dropped = cut.text, cut.dropped
    ask = _asking(question, codec)
    if params.long_text == "truncate" or Answer not in codec.heads:
        cut = windows.truncate(item.context, ask, codec)
        return Asked([ask(cut.text)], truncated_tokens=cut.dropped + dropped, state=(0,))
    pieces = windows.split(item.context, ask, codec)
    starts, tokens = tuple(each.start for each in pieces), tuple(each.tokens for each in pieces)
    return Asked([ask(each.text) for each in pieces], tokens, dropped, starts)


def _postprocess(item: QaItem, asked: Asked, outcomes: Sequence[Outcome], params: QaParams) -> QaOutput:
    if isinstance(outcomes[0], Generated):
        return QaOutput(answers=[_in_words(item, first_text(outcomes[0]))])
    found: dict[tuple[int, int], float] = {}
    nothing = 1.0
    for offset, outcome in zip(asked.state, outcomes, strict=True):
        assert isinstance(outcome, Answered)
        best, none = _decoded(outcome, params)
        nothing = min(nothing, none)
        for place, score in _at_once(best).items():
            moved = (place[0] + offset, place[1] + offset)
            found[moved] = max(score, found.get(moved, 0.0))
    answers: list[AnswerScore] = [
        {"answer": item.context[start:end], "score": score, "start": start, "end": end}
        for (start, end), score in found.items()
    ]
    if params.handle_impossible_answer:
        answers.append({"answer": "", "score": nothing, "start": 0, "end": 0})
    answers.sort(key=lambda each: -(each["score"] or 0.0))
    return QaOutput(answers=answers[: params.top_k])


def _asking(question: str, codec: Codec) -> windows.Ask:
    if Answer in codec.heads:
        return partial(Answer, question)
    need(codec, Answer if codec.kind == "seq2seq" else Generate, "qa")
    put = phrase(codec, "qa", default=INSTRUCTION, plain=COMPLETION, values={"question": question})
    sampling = Sampling(max_new_tokens=NEW_TOKENS, temperature=0)
    return lambda text: Generate(**put(text), sampling=sampling)


def _in_words(item: QaItem, text: str) -> AnswerScore:
    """With its place, where the words stand in the context."""
    start = item.context.find(text) if text else -1
    if start < 0:
        return {"answer": text, "score": None, "start": None, "end": None}
    return {"answer": text, "score": None, "start": start, "end": start + len(text)}


def _decoded(answered: Answered, params: QaParams) -> tuple[list[_Span], float]:
    """The best spans of one window, on word borders, and the probability of no answer, as the question-answering
    pipeline of Transformers 4 had them: each the product of the probabilities of its two ends."""
    import numpy  # a task may use it, and a producer need not have it

    logits = numpy.frombuffer(answered.logits, dtype="<f4").reshape(-1, 2)
    powers = numpy.exp(logits - logits.max(axis=0))
    begins, ends = (powers / powers.sum(axis=0)).T
    nothing = float(begins[0] * ends[0])
    begins, ends = begins[1:], ends[1:]
    count = len(begins)
    scores = numpy.zeros((min(params.max_answer_len, count), count), dtype=numpy.float32)
    for length in range(len(scores)):
        scores[length, : count - length] = begins[: count - length] * ends[length:]
    most = min(2 * params.top_k + 10, scores.size)  # several spans of tokens are the same words
    spans = [divmod(int(at), count) for at in numpy.argpartition(-scores.ravel(), most - 1)[:most]] if most else []
    found = [(at, at + length, float(scores[length, at])) for length, at in spans]
    return [_words(answered, *each) for each in found if each[2] > 0], nothing


def _words(answered: Answered, first: int, last: int, score: float) -> _Span:
    return _Span(answered.words[first][0], answered.words[last][1], score)


def _at_once(spans: Iterable[_Span]) -> dict[tuple[int, int], float]:
    """Spans of the same words are one answer, whose score is their sum. A token may stand for no character: that is no
    answer."""
    found: dict[tuple[int, int], float] = {}
    for span in (each for each in spans if each.start < each.end):
        found[span.start, span.end] = found.get((span.start, span.end), 0.0) + span.score
    return found


TASK = Task(
    name="qa",
    aliases=("question-answering",),
    summary="the answer to a question, out of a text",
    main_field="question",
    input=QaItem,
    params=QaParams,
    output=QaOutput,
    preprocess=_preprocess,
    shorten=_shorten,
    postprocess=_postprocess,
    kinds=frozenset({"encoder", "causal", "any"}),
    text=lambda output: output["answers"][0]["answer"] if output["answers"] else None,
)
