"""classify: which of a model's (or the caller's) labels fits a text."""

from collections.abc import Sequence
from functools import partial
from typing import Self

from pydantic import Field, field_validator, model_validator

from jobs.errors import InvalidParams, ItemError, ItemErrorCode
from jobs.schemas import Item
from jobs.tasks import scores, windows
from jobs.tasks.base import Asked, Classified, Classify, Codec, Known, Outcome, Score, Similarity, Task
from jobs.tasks.labels import MOST_LABELS, Label, RankedLabels, once_each, ranked, scores_of_labels, scoring
from jobs.tasks.params import Output, Params
from jobs.tasks.texts import check_text

INSTRUCTION = "Which one of these labels fits the text best: {labels}? Answer with the label only.\n\nText: {text}"
COMPLETION = "Text: {text}\n\nWhich one of these labels fits the text best: {labels}?\nLabel:"


class ClassifyItem(Item):
    text: str
    text_pair: str | None = None


class ClassifyParams(Params):
    top_k: int | None = Field(default=None, ge=1)
    """How many labels come back; `null`: all."""
    function_to_apply: scores.Function | None = None
    """How logits become scores; `null`: sigmoid for a multi-label model and for one with a single label, else
    softmax."""
    threshold: float | None = None
    """Labels that score less are left out, all of them if need be."""
    labels: tuple[Label, ...] | None = Field(default=None, min_length=2, max_length=MOST_LABELS, strict=False)
    """Your own labels, for models that have none."""

    _once_each = field_validator("labels")(once_each)

    @model_validator(mode="after")
    def _compared(self) -> Self:
        if self.labels and self.function_to_apply == "sigmoid":
            raise ValueError("function_to_apply 'sigmoid' needs a classification head; with labels: softmax, none")
        return self


class ClassifyOutput(Output):
    labels: RankedLabels
    """Best first; equal scores in the order of the model's (or the caller's) labels."""


def _preprocess(item: ClassifyItem, params: ClassifyParams, codec: Codec) -> Asked:
    text, pair = check_text(item.text), item.text_pair
    if pair is not None:
        check_text(pair, "text_pair")
    if params.labels is None and Classify in codec.heads:
        return Asked([Classify(text, pair)])
    return Asked([_by_labels(item, params, codec)(text)])


def _shorten(item: ClassifyItem, params: ClassifyParams, codec: Codec) -> Asked:
    text, pair, dropped = item.text, item.text_pair, 0
    if params.labels is None and Classify in codec.heads:
        if pair is not None:
            text, pair, dropped = _fit_pair(text, pair, codec)
        ask: windows.Ask = partial(Classify, pair=pair)
    else:
        ask = _by_labels(item, params, codec)
    if params.long_text == "truncate":
        cut = windows.truncate(text, ask, codec)
        return Asked([ask(cut.text)], truncated_tokens=cut.dropped + dropped)
    pieces = windows.split(text, ask, codec)
    return Asked([ask(p.text) for p in pieces], tuple(p.tokens for p in pieces), truncated_tokens=dropped)


def _postprocess(
    item: ClassifyItem, asked: Asked, outcomes: Sequence[Outcome], params: ClassifyParams
) -> ClassifyOutput:
    if len(outcomes) == 1:
        labels, found = _scores(outcomes[0], params)
    else:
        rows = [_scores(outcome, params) for outcome in outcomes]
        labels, found = rows[0][0], scores.weighted_mean([row for _, row in rows], asked.weights)
    return ClassifyOutput(labels=ranked(labels, found, threshold=params.threshold, top_k=params.top_k))


def _check(params: ClassifyParams, model: Known) -> None:
    if params.labels and model.head == "classify":
        raise InvalidParams("parameter 'labels': the model has labels of its own; leave it out")
    if not params.labels and (model.kind == "causal" or model.head == "embed"):
        raise InvalidParams("parameter 'labels' is needed: the model has no classification head with labels of its own")


def _by_labels(item: ClassifyItem, params: ClassifyParams, codec: Codec) -> windows.Ask:
    """How a text is asked about the caller's labels: scored by a causal model, or compared by a sentence encoder."""
    if item.text_pair is not None:
        raise ItemError(ItemErrorCode.INVALID_ITEM, "'text_pair' needs a model with a classification head")
    labels = params.labels
    if labels is None:
        raise ItemError(ItemErrorCode.INVALID_ITEM, "the model has no labels of its own: parameter 'labels' is needed")
    if Score in codec.heads:
        said = {"labels": ", ".join(labels)}
        return scoring(codec, "classify", labels, default=INSTRUCTION, plain=COMPLETION, said=said)
    if Similarity in codec.heads:
        return lambda text: Similarity(text, labels)
    raise ItemError(ItemErrorCode.INVALID_ITEM, "the model has labels of its own: parameter 'labels' does not apply")


def _fit_pair(text: str, pair: str, codec: Codec) -> tuple[str, str, int]:
    """The pair as it goes beside every window: at most half of the room, what is more is dropped."""
    half = codec.room(Classify("", "")) // 2
    if len(codec.spans(pair)) <= half:
        return text, pair, 0
    limit = max(half, 2 * half - len(codec.spans(text)))
    cut = windows.truncate(pair, partial(Classify, ""), codec, limit=limit)
    return text, cut.text, cut.dropped


def _scores(outcome: Outcome, params: ClassifyParams) -> tuple[Sequence[str], list[float]]:
    function = params.function_to_apply
    if isinstance(outcome, Classified):
        sigmoid = outcome.multi_label or len(outcome.logits) == 1
        return outcome.labels, scores.apply(function or ("sigmoid" if sigmoid else "softmax"), outcome.logits)
    assert params.labels is not None
    return params.labels, scores_of_labels(outcome, function)


TASK = Task(
    name="classify",
    aliases=("text-classification", "sentiment", "sentiment-analysis"),
    summary="which of a model's labels (or of yours) fits a text",
    main_field="text",
    input=ClassifyItem,
    params=ClassifyParams,
    output=ClassifyOutput,
    preprocess=_preprocess,
    shorten=_shorten,
    postprocess=_postprocess,
    kinds=frozenset({"encoder", "causal", "any"}),
    check=_check,
)
