"""translate: a text in another language; a long one in whole sentences, joined again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from jobs.errors import InvalidParams, ItemError, ItemErrorCode
from jobs.schemas import Item
from jobs.tasks import detection, windows
from jobs.tasks.base import Asked, Codec, FinishReason, Generate, Known, Outcome, Routes, Sampling, Task
from jobs.tasks.languages import Language, english_name
from jobs.tasks.params import GenerationParams, Output, check_room
from jobs.tasks.prompts import phrase, template_for
from jobs.tasks.templates import Template
from jobs.tasks.texts import check_text, finish_reason, first_text, need

PROMPTED_TOKENS = 512
"""Longest answer of a model asked in words, unless the job says otherwise."""
SHARE = 0.5
"""A part takes at most this share of the answer's length, so that a wordier language is not cut off."""
INSTRUCTION = "Translate the following text from {source} to {target}. Reply with the translation only.\n\n{text}"
TO_TARGET = "Translate the following text to {target}. Reply with the translation only.\n\n{text}"

RECOGNIZED = 0.1
"""Least probability of a detected language, of 140: a few words have no more, a text without letters has 0.01."""
DETECTED = "en"
"""Stands at submit for the language that is only known with the text."""


class TranslateItem(Item):
    text: str


class TranslateParams(GenerationParams):
    source: Language | None = None
    """The texts' language (`ko`, `pt-BR`, or the model's own code); `null`: detected, for each text."""
    target: Language | None = None
    """The language to translate to; `null` only for a model of one fixed pair."""


class TranslateOutput(Output):
    translation_text: str
    source: str | None
    """The language translated from, as the job named it, else as it was detected (ISO 639); `null`: not recognized."""
    finish_reason: FinishReason
    """`length` when `max_new_tokens` ended the translation, or that of a part: it is not whole."""


class _State(NamedTuple):
    """What is remembered of an item."""

    source: str | None
    gaps: tuple[str, ...] = ()
    """The white space behind each part of its text."""


def _preprocess(item: TranslateItem, params: TranslateParams, codec: Codec) -> Asked:
    text = check_text(item.text)
    source = _source(text, params, codec)
    ask, limit = _asking(params, source, codec), _limit(params, codec)
    # Fewer characters than tokens allowed need no counting: a token seldom is less than a character.
    long = limit is not None and len(text) > limit
    if params.long_text == "split" and (long or _by_line(text, codec)):
        return _in_parts(text, source, ask, codec, limit)
    return Asked([ask(text)], state=_State(source))


def _shorten(item: TranslateItem, params: TranslateParams, codec: Codec) -> Asked:
    source = _source(item.text, params, codec)
    ask = _asking(params, source, codec)
    if params.long_text == "truncate":
        cut = windows.truncate(item.text, ask, codec)
        return Asked([ask(cut.text)], truncated_tokens=cut.dropped, state=_State(source))
    return _in_parts(item.text, source, ask, codec, _limit(params, codec))


def _in_parts(text: str, source: str | None, ask: Callable[[str], Generate], codec: Codec, limit: int | None) -> Asked:
    pieces = windows.parts(text, ask, codec, limit=limit, by_line=_by_line(text, codec))
    return Asked(
        [ask(piece.text) for piece in pieces],
        tuple(piece.tokens for piece in pieces),
        state=_State(source, tuple(piece.gap for piece in pieces)),
    )


def _by_line(text: str, codec: Codec) -> bool:
    """Whether each line is put to the model by itself: a translation model takes a line break for a space, and
    paragraphs would come back as one. A chat model keeps them, and translates better what it sees whole."""
    return codec.kind == "seq2seq" and "\n" in text.strip()


def _postprocess(
    item: TranslateItem, asked: Asked, outcomes: Sequence[Outcome], params: TranslateParams
) -> TranslateOutput:
    texts = [first_text(outcome) for outcome in outcomes]
    joined = texts[0]
    for gap, text in zip(asked.state.gaps, texts[1:], strict=False):
        joined += _joint(gap, joined, text) + text
    return TranslateOutput(translation_text=joined, source=asked.state.source, finish_reason=finish_reason(outcomes))


def _check(params: TranslateParams, model: Known) -> None:
    check_room(params, model)
    if model.kind in ("causal", "any") and params.target is None:
        raise InvalidParams("parameter 'target' is needed: the model can translate to more than one language")
    if model.kind == "causal":
        try:
            _named(params, params.source or DETECTED, model.prompts.get("translate") or Template(text=_default(params)))
        except ItemError as error:
            raise InvalidParams(error.message) from error


def _route(item: TranslateItem, params: TranslateParams, routes: Routes) -> str | None:
    """The model of the item's languages; a source that is not given is the likeliest of those there are models for."""
    if params.source is not None or "source" not in routes.places:
        return routes.find({"source": params.source, "target": params.target})
    for source, share in detection.detect(item.text):
        if share < RECOGNIZED:
            return None
        if found := routes.find({"source": source, "target": params.target}):
            return found
    return None


def _source(text: str, params: TranslateParams, codec: Codec) -> str | None:
    """The text's language: the job's, else the likeliest of those that the model knows; None: not recognized."""
    if params.source is not None:
        return params.source
    found = detection.detect(text)
    if found[0][1] < RECOGNIZED:
        return None
    return next((code for code, _ in found if not codec.languages or codec.language(code)), None)


def _asking(params: TranslateParams, source: str | None, codec: Codec) -> Callable[[str], Generate]:
    """How one text is put to this model: by language codes, by words, or as it is for a model of one pair."""
    need(codec, Generate, "translate")
    sampling, seed = _sampling(params, codec), params.seed
    if codec.languages:
        spoken, target = _code(source, codec, "source"), _code(params.target, codec, "target")
        return lambda text: Generate(
            source=text, sampling=sampling, seed=seed, source_language=spoken, target_language=target
        )
    default = _default(params)
    values = _named(params, source, template_for(codec, "translate", default=default))
    put = phrase(codec, "translate", default=default, values=values)
    return lambda text: Generate(**put(text), sampling=sampling, seed=seed)


def _code(language: str | None, codec: Codec, parameter: str) -> str | None:
    """The model's own code. A missing source is left to the model, a missing target is not."""
    if language is None and parameter == "source":
        return None
    code = codec.language(language) if language else None
    if code is None:
        known = codec.languages
        more = f" and {len(known) - 60} more" if len(known) > 60 else ""
        given = f"{parameter} language {language!r} is not" if language else f"parameter {parameter!r} is needed:"
        raise ItemError(
            ItemErrorCode.UNSUPPORTED_LANGUAGE, f"{given} one of the model's: {', '.join(known[:60])}{more}"
        )
    return code


def _default(params: TranslateParams) -> str:
    return INSTRUCTION if params.source else TO_TARGET


def _named(params: TranslateParams, source: str | None, template: Template) -> Mapping[str, str]:
    """The languages that the template speaks of, by their English names. Raises ItemError."""
    given = {"source": source, "target": params.target}
    return {name: _name(code, name) for name, code in given.items() if name in template.placeholders}


def _name(language: str | None, parameter: str) -> str:
    name = english_name(language) if language else None
    if name is None:
        given = f"{parameter} language {language!r} is not known" if language else f"parameter {parameter!r} is needed"
        raise ItemError(
            ItemErrorCode.UNSUPPORTED_LANGUAGE,
            f"{given}: give an ISO 639-1 code (en, ko, pt-BR) or a language's English name",
        )
    return name


def _sampling(params: TranslateParams, codec: Codec) -> Sampling:
    if codec.kind == "seq2seq" or params.max_new_tokens is not None:
        return params.sampling
    return replace(params.sampling, max_new_tokens=max(PROMPTED_TOKENS, params.min_new_tokens or 0))


def _limit(params: TranslateParams, codec: Codec) -> int | None:
    """Tokens of one part, so that its translation fits the answer; None: only the model's input limits it."""
    most = _sampling(params, codec).max_new_tokens or codec.in_force.get("max_new_tokens")
    return None if most is None else max(int(most * SHARE), 1)


def _joint(gap: str, before: str, after: str) -> str:
    """What stands between two parts: their line break, a space, or nothing in scripts without spaces."""
    if "\n" in gap:
        return gap
    return "" if before and after and _unspaced(before[-1]) and _unspaced(after[0]) else " "


def _unspaced(char: str) -> bool:
    return "\u3000" <= char <= "\u9fff" or "\uff00" <= char <= "\uffef" or "\u0e00" <= char <= "\u0eff"


TASK = Task(
    name="translate",
    aliases=("translation", "translation_{source}_to_{target}"),
    summary="a text in another language",
    main_field="text",
    input=TranslateItem,
    params=TranslateParams,
    output=TranslateOutput,
    preprocess=_preprocess,
    shorten=_shorten,
    postprocess=_postprocess,
    kinds=frozenset({"seq2seq", "causal", "any"}),
    check=_check,
    route=_route,
    text=lambda output: output["translation_text"],
)
