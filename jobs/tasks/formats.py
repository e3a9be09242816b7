"""Answers of a form that was asked for: JSON, JSON by a schema, a regular expression, one of several texts."""

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from jobs.errors import ItemError, ItemErrorCode
from jobs.tasks.base import FinishReason, Grammar, Known

FORMS = {
    "text": (),
    "json_object": (),
    "json_schema": ("json_schema",),
    "regex": ("regex",),
    "choice": ("choices",),
}
"""The types of `response_format`, and what each needs beside its type."""
SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""As JSON is mostly written: where any white space is allowed, a model may write nothing else for ever."""
UNFORMED = ("ctranslate2",)
"""Engines that choose tokens by themselves, out of reach of a grammar."""
MOST_CHARACTERS = 100_000
MOST_CHOICES = 1000


def grammar_of(form: Mapping[str, Any] | None) -> Grammar | None:
    """What an answer has to keep to; None: nothing. Raises ValueError for a form that is none."""
    if form is None:
        return None
    kind = form.get("type")
    if kind not in FORMS:
        raise ValueError(f"type {kind!r} is not one of {', '.join(FORMS)}")
    if strange := set(form) - {"type", *FORMS[kind]}:
        raise ValueError(f"{kind} has no {sorted(strange)[0]!r}")
    if missing := [name for name in FORMS[kind] if name not in form]:
        raise ValueError(f"{kind} needs {missing[0]!r}")
    made = _MAKE[kind](form)
    if made is not None and len(made.text) > MOST_CHARACTERS:
        raise ValueError(f"{len(made.text):,} characters are too many: at most {MOST_CHARACTERS:,}")
    if made is not None and (wrong := _refusal(made)):
        raise ValueError(wrong)
    return made


def compiled(grammar: Grammar) -> str:
    """The grammar as llguidance takes it. Raises ImportError, and ValueError where it is none."""
    from llguidance import LLMatcher, grammar_from

    if grammar.kind == "json_schema":
        return str(LLMatcher.grammar_from_json_schema(grammar.text, defaults=SPACING))
    return str(grammar_from(grammar.kind, grammar.text))


def cannot_keep(model: Known) -> str:
    """Why a model cannot keep to any form; empty: it can, as far as is known at submit."""
    if model.kind == "seq2seq":
        return "encoder-decoder models cannot keep to a form; causal models of torch can"
    if model.engine in UNFORMED:
        return f"engine {model.engine!r} cannot keep to a form; causal models of torch can"
    return ""


def check_complete(grammar: Grammar, text: str, reason: FinishReason) -> None:
    """Raises ItemError for an answer that ended before it kept to its grammar."""
    if reason == "length":
        said = f"the answer was not complete at max_new_tokens: {text[-60:]!r}"
        raise ItemError(ItemErrorCode.SCHEMA_UNSATISFIED, said)
    if grammar.kind == "json_schema":
        try:
            orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise ItemError(ItemErrorCode.SCHEMA_UNSATISFIED, f"the answer is no JSON: {error}") from None


def _schema(form: Mapping[str, Any]) -> Grammar:
    given = form["json_schema"]
    schema = given.get("schema") if isinstance(given, dict) else None
    if not isinstance(schema, dict):
        raise ValueError('json_schema is {"schema": {...}}, perhaps with name, description and strict')
    return Grammar("json_schema", orjson.dumps(schema, option=orjson.OPT_SORT_KEYS).decode())


def _regex(form: Mapping[str, Any]) -> Grammar:
    if not isinstance(form["regex"], str) or not form["regex"]:
        raise ValueError("regex is a text")
    return Grammar("regex", form["regex"])


def _choice(form: Mapping[str, Any]) -> Grammar:
    choices = form["choices"]
    texts = isinstance(choices, list) and all(isinstance(each, str) and each for each in choices)
    if not texts or not 0 < len(choices) <= MOST_CHOICES:
        raise ValueError(f"choices is a list of 1 to {MOST_CHOICES} texts")
    return Grammar("choice", orjson.dumps(list(dict.fromkeys(choices))).decode())


_MAKE: Mapping[str, Callable[[Mapping[str, Any]], Grammar | None]] = {
    "text": lambda form: None,
    "json_object": lambda form: Grammar("json_schema", '{"type":"object"}'),
    "json_schema": _schema,
    "regex": _regex,
    "choice": _choice,
}


def _refusal(grammar: Grammar) -> str:
    """Why no answer could keep to it, as far as llguidance, where it is installed, can tell without a vocabulary."""
    try:
        from llguidance import LLMatcher
    except ImportError:
        return ""
    try:
        found: str = LLMatcher.validate_grammar(compiled(grammar))
    except ValueError as error:
        found = str(error)
    return f"cannot be kept to: {found[:500]}" if found else ""
