"""Labels that a caller gives: checked, scored by a causal model or by similarity, and ranked."""

from collections.abc import Mapping, Sequence
from math import isfinite
from operator import itemgetter
from typing import Annotated

from pydantic import SkipValidation, StringConstraints
from typing_extensions import TypedDict

from jobs.errors import ItemError, ItemErrorCode
from jobs.tasks import scores, windows
from jobs.tasks.base import Codec, Compared, Outcome, Score, Scored
from jobs.tasks.prompts import glue, phrase

YES_NO = ("yes", "no")
SIMILARITY_SCALE = 20.0
"""Cosines are multiplied by this before the softmax: what sentence-transformers trains with (temperature 0.05)."""
_BY_SCORE = itemgetter("score")


Label = Annotated[str, StringConstraints(min_length=1, max_length=1000, pattern=r"^[^\x00]*\S[^\x00]*$")]
MOST_LABELS = 1000


class LabelScore(TypedDict):
    """A dict, not a model: an item has several, and each model would cost as much as all the rest of its scoring."""

    label: str
    score: float


RankedLabels = SkipValidation[list[LabelScore]]
"""As `ranked` makes them: checking them again would cost a tenth of an item."""


def once_each(labels: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """The labels. Raises ValueError when one is given twice."""
    if labels and len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise ValueError(f"label {twice!r} is given twice")
    return labels


def scoring(
    codec: Codec,
    task: str,
    labels: Sequence[str],
    *,
    default: str,
    plain: str,
    override: str | None = None,
    said: Mapping[str, str] | None = None,
) -> windows.Ask:
    """How a text is put to a causal model that is then asked how likely each label is as the answer: in the words of
    `phrase`. `said`: what stands for the template's other placeholders."""
    put = phrase(codec, task, default=default, plain=plain, override=override, values=said)

    def ask(text: str) -> Score:
        phrased = put(text)
        prompt, messages = phrased.get("prompt"), phrased.get("messages")
        between = "" if prompt is None else glue(prompt)
        return Score(tuple(between + label for label in labels), prompt=prompt, messages=messages)

    return ask


def scores_of_labels(outcome: Outcome, function: scores.Function | None = None) -> list[float]:
    """A score for each of the caller's labels, in their order: from mean log-probabilities or from cosines, which
    `none` leaves as they are."""
    if isinstance(outcome, Scored):
        raw = [logprob / max(count, 1) for logprob, count in zip(outcome.logprobs, outcome.tokens, strict=True)]
        return scores.apply(function or "softmax", raw)
    assert isinstance(outcome, Compared)
    if function == "none":
        return list(outcome.similarities)
    return scores.apply("softmax", [SIMILARITY_SCALE * cosine for cosine in outcome.similarities])


def ranked(
    labels: Sequence[str], found: Sequence[float], *, threshold: float | None = None, top_k: int | None = None
) -> list[LabelScore]:
    """Best first, equal scores in the order of `labels`. Raises ItemError for scores that are no numbers."""
    if not isfinite(sum(found)):
        raise ItemError(ItemErrorCode.MODEL_ERROR, "the model gave scores that are no numbers (NaN or infinite)")
    best: list[LabelScore] = [{"label": label, "score": score} for label, score in zip(labels, found, strict=True)]
    best.sort(key=_BY_SCORE, reverse=True)
    if threshold is not None:
        best = [each for each in best if each["score"] >= threshold]
    return best[:top_k]
