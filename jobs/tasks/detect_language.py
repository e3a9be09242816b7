"""detect_language: which language a text is in."""

from collections.abc import Sequence
from math import isfinite
from operator import itemgetter

from pydantic import Field, SkipValidation
from typing_extensions import TypedDict

from jobs.errors import ItemError, ItemErrorCode
from jobs.schemas import Item
from jobs.tasks import scores, windows
from jobs.tasks.base import Asked, Classified, Classify, Codec, Outcome, Task
from jobs.tasks.params import Output, Params
from jobs.tasks.texts import check_text, need

_BY_SCORE = itemgetter("score")


class DetectLanguageItem(Item):
    text: str


class DetectLanguageParams(Params):
    top_k: int | None = Field(default=1, ge=1)
    """How many languages come back; `null`: all."""


class LanguageScore(TypedDict):
    language: str
    score: float


class DetectLanguageOutput(Output):
    languages: SkipValidation[list[LanguageScore]]
    """Best first, as the model calls them: ISO 639 codes by the built-in model `langid`."""


def _preprocess(item: DetectLanguageItem, params: DetectLanguageParams, codec: Codec) -> Asked:
    need(codec, Classify, "detect_language")
    return Asked([Classify(check_text(item.text))])


def _shorten(item: DetectLanguageItem, params: DetectLanguageParams, codec: Codec) -> Asked:
    if params.long_text == "truncate":
        cut = windows.truncate(item.text, Classify, codec)
        return Asked([Classify(cut.text)], truncated_tokens=cut.dropped)
    pieces = windows.split(item.text, Classify, codec)
    return Asked([Classify(each.text) for each in pieces], tuple(each.tokens for each in pieces))


def _postprocess(
    item: DetectLanguageItem, asked: Asked, outcomes: Sequence[Outcome], params: DetectLanguageParams
) -> DetectLanguageOutput:
    classified = [each for each in outcomes if isinstance(each, Classified)]
    rows = [scores.apply("softmax", each.logits) for each in classified]
    found = rows[0] if len(rows) == 1 else scores.weighted_mean(rows, asked.weights)
    if not isfinite(sum(found)):
        raise ItemError(ItemErrorCode.MODEL_ERROR, "the model gave scores that are no numbers (NaN or infinite)")
    ranked: list[LanguageScore] = [
        {"language": language, "score": score} for language, score in zip(classified[0].labels, found, strict=True)
    ]
    ranked.sort(key=_BY_SCORE, reverse=True)
    return DetectLanguageOutput(languages=ranked[: params.top_k])


TASK = Task(
    name="detect_language",
    aliases=("language-detection", "language-identification"),
    summary="which language a text is in",
    main_field="text",
    input=DetectLanguageItem,
    params=DetectLanguageParams,
    output=DetectLanguageOutput,
    preprocess=_preprocess,
    shorten=_shorten,
    postprocess=_postprocess,
    kinds=frozenset({"encoder", "any"}),
)
