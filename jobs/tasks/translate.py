"""translate: a text in another language; a long one in whole sentences, joined again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated

from pydantic import StringConstraints

from jobs.errors import InvalidParams, ItemError, ItemErrorCode
from jobs.schemas import Item
from jobs.tasks import windows
from jobs.tasks.base import Asked, Codec, FinishReason, Generate, Known, Outcome, Sampling, Task
from jobs.tasks.languages import english_name
from jobs.tasks.params import GenerationParams, Output, check_room
from jobs.tasks.prompts import names, phrase, template_for
from jobs.tasks.texts import check_text, finish_reason, first_text, need

PROMPTED_TOKENS = 512
"""Longest answer of a model asked in words, unless the job says otherwise."""
SHARE = 0.5
"""A part takes at most this share of the answer's length, so that a wordier language is not cut off."""
INSTRUCTION = "Translate the following text from {source} to {target}. Reply with the translation only.\n\n{text}"
TO_TARGET = "Translate the following text to {target}. Reply with the translation only.\n\n{text}"

Language = Annotated[str, StringConstraints(min_length=2, max_length=64, pattern=r"^[A-Za-z][A-Za-z0-9 _-]*$")]


class TranslateItem(Item):
    text: str


class TranslateParams(GenerationParams):
    source: Language | None = None
    """The texts' language (`ko`, `pt-BR`, or the model's own code); `null`: the model's only one, or the model finds
    out."""
    target: Language | None = None
    """The language to translate to; `null` only for a model of one fixed pair."""


class TranslateOutput(Output):
    translation_text: str
    source: str | None
    """The language translated from, as the job named it; `null`: it named none."""
    finish_reason: FinishReason
    """`length` when `max_new_tokens` ended the translation, or that of a part: it is not whole."""


def _preprocess(item: TranslateItem, params: TranslateParams, codec: Codec) -> Asked:
    ask, limit = _asking(params, codec), _limit(params, codec)
    text = check_text(item.text)
    # Fewer characters than tokens allowed need no counting: a token seldom is less than a character.
    if limit is not None and params.long_text == "split" and len(text) > limit:
        return _in_parts(text, ask, codec, limit)
    return Asked([ask(text)])


def _shorten(item: TranslateItem, params: TranslateParams, codec: Codec) -> Asked:
    ask = _asking(params, codec)
    if params.long_text == "truncate":
        cut = windows.truncate(item.text, ask, codec)
        return Asked([ask(cut.text)], truncated_tokens=cut.dropped)
    return _in_parts(item.text, ask, codec, _limit(params, codec))


def _in_parts(text: str, ask: Callable[[str], Generate], codec: Codec, limit: int | None) -> Asked:
    pieces = windows.parts(text, ask, codec, limit=limit)
    return Asked(
        [ask(piece.text) for piece in pieces],
        tuple(piece.tokens for piece in pieces),
        state=tuple(piece.gap for piece in pieces),
    )


def _postprocess(
    item: TranslateItem, asked: Asked, outcomes: Sequence[Outcome], params: TranslateParams
) -> TranslateOutput:
    texts = [first_text(outcome) for outcome in outcomes]
    joined = texts[0]
    for gap, text in zip(asked.state or (), texts[1:], strict=False):
        joined += _joint(gap, joined, text) + text
    return TranslateOutput(translation_text=joined, source=params.source, finish_reason=finish_reason(outcomes))


def _check(params: TranslateParams, model: Known) -> None:
    check_room(params, model)
    if model.kind in ("causal", "any") and params.target is None:
        raise InvalidParams("parameter 'target' is needed: the model can translate to more than one language")
    if model.kind == "causal":
        try:
            _named(params, model.prompts.get("translate") or _default(params))
        except ItemError as error:
            raise InvalidParams(error.message) from error


def _asking(params: TranslateParams, codec: Codec) -> Callable[[str], Generate]:
    """How one text is put to this model: by language codes, by words, or as it is for a model of one pair."""
    need(codec, Generate, "translate")
    sampling, seed = _sampling(params, codec), params.seed
    if codec.languages:
        source, target = _code(params.source, codec, "source"), _code(params.target, codec, "target")
        return lambda text: Generate(
            source=text, sampling=sampling, seed=seed, source_language=source, target_language=target
        )
    default = _default(params)
    values = _named(params, template_for(codec, "translate", default=default))
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


def _named(params: TranslateParams, template: str) -> Mapping[str, str]:
    """The languages that the template speaks of, by their English names. Raises ItemError."""
    given, needed = {"source": params.source, "target": params.target}, names(template)
    return {name: _name(code, name) for name, code in given.items() if name in needed}


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
)
