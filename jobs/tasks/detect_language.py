"""detect_language: which language a text is in."""

from collections.abc import Sequence
from math import isfinite
from operator import itemgetter

from pydantic import Field, SkipValidation, field_validator
from typing_extensions import TypedDict

from jobs.errors import InvalidParams, ItemError, ItemErrorCode
from jobs.schemas import Item
from jobs.tasks import scores, windows
from jobs.tasks.base import Asked, Classified, Classify, Codec, Known, Outcome, Score, Task
from jobs.tasks.labels import once_each, scores_of_labels, scoring
from jobs.tasks.languages import Language, english_name
from jobs.tasks.params import Output, Params
from jobs.tasks.texts import check_text, need

INSTRUCTION = "Which language is this text written in: {languages}? Answer with the language only.\n\nText: {text}"
COMPLETION = "Text: {text}\n\nWhich language is this text written in: {languages}?\nLanguage:"
_BY_SCORE = itemgetter("score")


NEEDED = "parameter 'languages' is needed: a causal model is asked which one of them a text is in"


class DetectLanguageItem(Item):
    text: str


class DetectLanguageParams(Params):
    top_k: int | None = Field(default=1, ge=1)
    """How many languages come back; `null`: all."""
    languages: tuple[Language, ...] | None = Field(default=None, min_length=2, max_length=200, strict=False)
    """The languages to choose from (`ko`, `pt-BR`), which a causal model needs; `null`: all that the model knows."""

    _once_each = field_validator("languages")(once_each)


class LanguageScore(TypedDict):
    language: str
    score: float


class DetectLanguageOutput(Output):
    languages: SkipValidation[list[LanguageScore]]
    """Best first, as the model calls them: ISO 639 codes by the built-in model `langid`."""


def _preprocess(item: DetectLanguageItem, params: DetectLanguageParams, codec: Codec) -> Asked:
    return Asked([_asking(params, codec)(check_text(item.text))])


def _shorten(item: DetectLanguageItem, params: DetectLanguageParams, codec: Codec) -> Asked:
    ask = _asking(params, codec)
    if params.long_text == "truncate":
        cut = windows.truncate(item.text, ask, codec)
        return Asked([ask(cut.text)], truncated_tokens=cut.dropped)
    pieces = windows.split(item.text, ask, codec)
    return Asked([ask(each.text) for each in pieces], tuple(each.tokens for each in pieces))


def _asking(params: DetectLanguageParams, codec: Codec) -> windows.Ask:
    if Score not in codec.heads or Classify in codec.heads:
        need(codec, Classify, "detect_language")
        return Classify
    languages = params.languages
    if languages is None:
        raise ItemError(ItemErrorCode.INVALID_ITEM, NEEDED)
    named = [_named(each) for each in languages]
    said = {"languages": ", ".join(named)}
    return scoring(codec, "detect_language", named, default=INSTRUCTION, plain=COMPLETION, said=said)


def _postprocess(
    item: DetectLanguageItem, asked: Asked, outcomes: Sequence[Outcome], params: DetectLanguageParams
) -> DetectLanguageOutput:
    languages = _languages(outcomes[0], params)
    rows = [_scores(each, languages) for each in outcomes]
    found = rows[0] if len(rows) == 1 else scores.weighted_mean(rows, asked.weights)
    if not isfinite(sum(found)):
        raise ItemError(ItemErrorCode.MODEL_ERROR, "the model gave scores that are no numbers (NaN or infinite)")
    ranked: list[LanguageScore] = [
        {"language": language, "score": score} for language, score in zip(languages, found, strict=True)
    ]
    ranked.sort(key=_BY_SCORE, reverse=True)
    return DetectLanguageOutput(languages=ranked[: params.top_k])


def _languages(outcome: Outcome, params: DetectLanguageParams) -> Sequence[str]:
    """Those that have scores: the model's, or the ones to choose from. Raises ItemError when it knows none of these."""
    if not isinstance(outcome, Classified):
        assert params.languages is not None
        return params.languages
    if params.languages is None:
        return outcome.labels
    chosen = [label for label in outcome.labels if label in params.languages]
    if not chosen:
        raise ItemError(
            ItemErrorCode.UNSUPPORTED_LANGUAGE,
            f"the model knows none of the languages {', '.join(params.languages)}; it knows: "
            f"{', '.join(outcome.labels[:60])}",
        )
    return chosen


def _scores(outcome: Outcome, languages: Sequence[str]) -> list[float]:
    if not isinstance(outcome, Classified):
        return scores_of_labels(outcome)
    logits = dict(zip(outcome.labels, outcome.logits, strict=True))
    return scores.apply("softmax", [logits[language] for language in languages])


def _check(params: DetectLanguageParams, model: Known) -> None:
    if model.kind != "causal":
        return
    if params.languages is None:
        raise InvalidParams(NEEDED)
    for language in params.languages:
        try:
            _named(language)
        except ItemError as error:
            raise InvalidParams(error.message) from error


def _named(language: str) -> str:
    name = english_name(language)
    if name is None:
        raise ItemError(
            ItemErrorCode.UNSUPPORTED_LANGUAGE,
            f"parameter 'languages': {language!r} is not known: give ISO 639-1 codes (en, ko, pt-BR) or English names",
        )
    return name


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
    kinds=frozenset({"encoder", "causal", "any"}),
    check=_check,
)
