"""zero_shot: which of the caller's labels fits a text, without a model trained for them."""

import zlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import ClassVar, NamedTuple

from pydantic import Field, field_validator

from jobs.errors import InvalidParams, ItemError, ItemErrorCode
from jobs.schemas import Item
from jobs.tasks import scores, windows
from jobs.tasks.base import (
    Asked,
    Classified,
    Classify,
    Codec,
    Compared,
    Known,
    More,
    Outcome,
    Request,
    Score,
    Similarity,
    Task,
)
from jobs.tasks.labels import MOST_LABELS, YES_NO, Label, RankedLabels, once_each, ranked, scores_of_labels, scoring
from jobs.tasks.params import Output, Params
from jobs.tasks.texts import check_text, need

INSTRUCTION = "Text: {text}\n\nWhich one of these labels fits the text best: {labels}? Answer with the label only."
COMPLETION = "Text: {text}\n\nWhich one of these labels fits the text best: {labels}?\nLabel:"
ONE_INSTRUCTION = 'Text: {text}\n\nDoes the label "{label}" fit the text? Answer yes or no.'
ONE_COMPLETION = 'Text: {text}\n\nDoes the label "{label}" fit the text?\nAnswer:'

Asks = list[windows.Ask]
"""How a text is asked: once, or once for each label."""


class ZeroShotItem(Item):
    text: str


class ZeroShotParams(Params):
    other_names: ClassVar[Mapping[str, str]] = {"candidate_labels": "labels"}

    labels: tuple[Label, ...] | None = Field(default=None, min_length=1, max_length=MOST_LABELS, strict=False)
    """The labels to choose from; a job always needs them."""
    multi_label: bool = False
    """Whether several labels may fit, each judged by itself; else their scores add up to 1."""
    hypothesis_template: str = Field(default="This example is {}.", min_length=2, max_length=1000)
    """The sentence that a label is put into, in place of `{}`."""

    prefilter: int | None = Field(default=None, ge=1, le=MOST_LABELS)
    """Only so many labels are judged, those whose sentences are most similar to the text by a sentence encoder that is
    joined with the model (engine `paired`); the others are left out. `null`: all are."""
    prefilter_audit: float = Field(default=0.05, ge=0, le=1)
    """The share of texts, told by their characters, for which all labels are judged nevertheless, to know how often the
    pre-filter keeps the best one (`textmill evaluate JOB --prefilter`)."""

    _once_each = field_validator("labels")(once_each)

    @field_validator("hypothesis_template")
    @classmethod
    def _has_a_place(cls, template: str) -> str:
        if "{}" not in template:
            raise ValueError("has no {} for the label")
        return template

    @property
    def hypotheses(self) -> tuple[str, ...]:
        """A sentence for each label."""
        return tuple(self.hypothesis_template.replace("{}", label) for label in self.labels or ())


class ZeroShotOutput(Output):
    labels: RankedLabels
    """Best first; equal scores in the order of the caller's labels."""
    prefilter_rank: int | None = Field(default=None, exclude_if=lambda rank: rank is None)
    """For a text that was audited: the place that the pre-filter gave to the label that is best of all, from 1."""


class _Filtering(NamedTuple):
    """What is remembered while labels are looked for: the windows that they are then judged for."""

    texts: tuple[str, ...]


class _Judging(NamedTuple):
    """What is remembered while labels are judged."""

    kept: tuple[int, ...]
    """The labels that come back, by their place."""
    judged: tuple[int, ...]
    """Those that are judged: all of them, where the text is audited."""
    order: tuple[int, ...]
    """All labels, as the pre-filter has them."""


def _preprocess(item: ZeroShotItem, params: ZeroShotParams, codec: Codec) -> Asked:
    text = check_text(item.text)
    if _filters(params, codec):
        return Asked([_compare(params.hypotheses, text)], state=_Filtering((text,)))
    return Asked([ask(text) for ask in _asks(params, codec)])


def _shorten(item: ZeroShotItem, params: ZeroShotParams, codec: Codec) -> Asked:
    filters = _filters(params, codec)
    asks = [*_asks(params, codec), *((partial(_compare, params.hypotheses),) if filters else ())]
    tightest = min(asks, key=lambda ask: codec.room(ask("")))
    if params.long_text == "truncate":
        cut = windows.truncate(item.text, tightest, codec)
        if filters:
            first = [_compare(params.hypotheses, cut.text)]
            return Asked(first, truncated_tokens=cut.dropped, state=_Filtering((cut.text,)))
        return Asked([ask(cut.text) for ask in asks], truncated_tokens=cut.dropped)
    pieces = windows.split(item.text, tightest, codec)
    if filters:
        texts = tuple(each.text for each in pieces)
        first = [_compare(params.hypotheses, text) for text in texts]
        return Asked(first, tuple(each.tokens for each in pieces), state=_Filtering(texts))
    return Asked([ask(each.text) for each in pieces for ask in asks], tuple(each.tokens for each in pieces))


def _postprocess(
    item: ZeroShotItem, asked: Asked, outcomes: Sequence[Outcome], params: ZeroShotParams
) -> ZeroShotOutput | More:
    labels = params.labels or ()
    if isinstance(asked.state, _Filtering):
        return _judge(item.text, asked.state.texts, outcomes, params)
    if isinstance(asked.state, _Judging):
        return _judged(asked, outcomes, params)
    size = len(outcomes) // max(1, len(asked.weights))
    rows = [_scores(outcomes[start : start + size], params) for start in range(0, len(outcomes), size)]
    found = rows[0] if len(rows) == 1 else scores.weighted_mean(rows, asked.weights)
    return ZeroShotOutput(labels=ranked(labels, found))


def _filters(params: ZeroShotParams, codec: Codec) -> bool:
    """Whether labels are left out before they are judged."""
    able = {Similarity, Classify} <= codec.heads and Score not in codec.heads
    return able and params.prefilter is not None and params.prefilter < len(params.labels or ())


def _judge(text: str, texts: Sequence[str], outcomes: Sequence[Outcome], params: ZeroShotParams) -> More:
    """Ask about the likeliest labels, for every window; about all of them where the text is audited."""
    rows = [outcome.similarities for outcome in outcomes if isinstance(outcome, Compared)]
    likeness = [sum(column) for column in zip(*rows, strict=True)]
    order = tuple(sorted(range(len(likeness)), key=lambda at: -likeness[at]))
    kept = tuple(sorted(order[: params.prefilter]))
    audited = zlib.crc32(text.encode("utf-8", "surrogatepass")) < params.prefilter_audit * 2**32
    judged = tuple(range(len(order))) if audited else kept
    hypotheses = params.hypotheses
    requests: list[Request] = [Classify(window, hypotheses[at]) for window in texts for at in judged]
    return More(requests, state=_Judging(kept, judged, order))


def _judged(asked: Asked, outcomes: Sequence[Outcome], params: ZeroShotParams) -> ZeroShotOutput:
    """The scores among the labels that were kept: an audit changes nothing of them."""
    state: _Judging = asked.state
    found = _means(asked, outcomes, state.judged, state.kept, params)
    labels = [(params.labels or ())[at] for at in state.kept]
    rank = None
    if len(state.judged) > len(state.kept):
        every = _means(asked, outcomes, state.judged, state.judged, params)
        rank = state.order.index(max(state.judged, key=lambda at: every[at])) + 1
    return ZeroShotOutput(labels=ranked(labels, found), prefilter_rank=rank)


def _means(
    asked: Asked, outcomes: Sequence[Outcome], judged: Sequence[int], wanted: Sequence[int], params: ZeroShotParams
) -> list[float]:
    """The scores of the wanted labels among themselves, over all windows."""
    places = [judged.index(at) for at in wanted]
    rows = [
        _scores([outcomes[start + place] for place in places], params) for start in range(0, len(outcomes), len(judged))
    ]
    return rows[0] if len(rows) == 1 else scores.weighted_mean(rows, asked.weights)


def _check(params: ZeroShotParams, model: Known) -> None:
    if params.prefilter is not None and model.engine != "paired":
        raise InvalidParams(
            "parameter 'prefilter' needs a model that is joined with a sentence encoder (engine 'paired' in a models "
            f"file); this one's engine is {model.engine!r}"
        )
    if not params.labels:
        raise InvalidParams("parameter 'labels' is needed: the labels to choose from")


def _asks(params: ZeroShotParams, codec: Codec) -> Asks:
    labels = params.labels
    if not labels:
        raise ItemError(ItemErrorCode.INVALID_ITEM, "parameter 'labels' is needed: the model has none of its own")
    if Score in codec.heads:
        return _scorings(labels, params.multi_label, codec)
    if Similarity in codec.heads and Classify not in codec.heads:
        return [partial(_compare, params.hypotheses)]
    need(codec, Classify, "zero_shot")
    return [partial(_entail, hypothesis) for hypothesis in params.hypotheses]


def _compare(hypotheses: tuple[str, ...], text: str) -> Request:
    return Similarity(text, hypotheses)


def _entail(hypothesis: str, text: str) -> Request:
    return Classify(text, hypothesis)


def _scorings(labels: tuple[str, ...], multi_label: bool, codec: Codec) -> Asks:
    """On a causal model. The text comes first, so that what is asked about it again and again is read once."""
    if multi_label:
        one = ONE_INSTRUCTION if codec.has_chat_template else ONE_COMPLETION
        ask = partial(scoring, codec, "zero_shot", YES_NO, default=one, plain=one, override=one)
        return [ask(said={"label": label}) for label in labels]
    said = {"labels": ", ".join(labels)}
    return [scoring(codec, "zero_shot", labels, default=INSTRUCTION, plain=COMPLETION, said=said)]


def _scores(outcomes: Sequence[Outcome], params: ZeroShotParams) -> list[float]:
    """A score for each label, from what came back for one window of the text."""
    first = outcomes[0]
    if isinstance(first, Classified):
        return _entailed([each for each in outcomes if isinstance(each, Classified)], params.multi_label)
    if not params.multi_label:
        return scores_of_labels(first)
    if isinstance(first, Compared):
        return [max(0.0, cosine) for cosine in first.similarities]
    return [scores_of_labels(each)[0] for each in outcomes]


def _entailed(outcomes: Sequence[Classified], multi_label: bool) -> list[float]:
    """As the zero-shot pipeline of Transformers 5.23 reads the logits of an NLI model: among the labels, or of each
    against its contradiction (which it takes to be the first class, or the last where entailment is the first)."""
    entailment = _entailment(outcomes[0].labels)
    logits = [outcome.logits[entailment] for outcome in outcomes]
    if len(outcomes) > 1 and not multi_label:
        return scores.apply("softmax", logits)
    contradiction = -1 if entailment == 0 else 0
    return [scores.sigmoid(yes - outcome.logits[contradiction]) for yes, outcome in zip(logits, outcomes, strict=True)]


def _entailment(labels: Sequence[str]) -> int:
    """The class that says that the hypothesis follows. Raises ItemError for a model that has none."""
    found = next((at for at, label in enumerate(labels) if label.lower().startswith("entail")), None)
    if found is None or len(labels) < 2:
        raise ItemError(
            ItemErrorCode.INVALID_ITEM,
            f"zero_shot needs a model with a class 'entailment' (NLI); the model has: {', '.join(labels)}",
        )
    return found


TASK = Task(
    name="zero_shot",
    aliases=("zero-shot-classification",),
    summary="which of your labels fits a text, with a model that was not trained for them",
    main_field="text",
    input=ZeroShotItem,
    params=ZeroShotParams,
    output=ZeroShotOutput,
    preprocess=_preprocess,
    shorten=_shorten,
    postprocess=_postprocess,
    kinds=frozenset({"encoder", "causal", "any"}),
    check=_check,
)
