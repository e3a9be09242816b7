"""`response_format`: what is refused at submit, and what an answer that is not complete comes to."""

from typing import Any

import pytest

from jobs.errors import InvalidParams, ItemError
from jobs.tasks import find, validate_params
from jobs.tasks.base import Grammar, Known
from jobs.tasks.formats import check_complete, grammar_of

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("form", "grammar"),
    [
        (None, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, Grammar("json_schema", '{"type":"object"}')),
        (
            {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}},
            Grammar("json_schema", '{"properties":{"a":{"type":"integer"}},"type":"object"}'),
        ),
        ({"type": "regex", "regex": "a+"}, Grammar("regex", "a+")),
        ({"type": "choice", "choices": ["a", "b", "a"]}, Grammar("choice", '["a","b"]')),
    ],
)
def test_forms_come_to_grammars(form: Any, grammar: Grammar | None) -> None:
    assert grammar_of(form) == grammar


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"type": "xml"}, "type 'xml' is not one of text, json_object, json_schema, regex, choice"),
        ({}, "type None is not one of"),
        ({"type": "regex"}, "regex needs 'regex'"),
        ({"type": "regex", "regex": "(a"}, "cannot be kept to"),
        ({"type": "choice", "choices": []}, "choices is a list of 1 to 1000 texts"),
        ({"type": "choice", "choices": [1]}, "choices is a list of 1 to 1000 texts"),
        ({"type": "json_schema", "json_schema": SCHEMA}, 'json_schema is {"schema": {...}}'),
        ({"type": "json_schema", "json_schema": {"schema": {"type": "nothing"}}}, "cannot be kept to"),
        ({"type": "text", "schema": {}}, "text has no 'schema'"),
    ],
)
def test_what_is_no_form_is_refused_with_the_reason(form: Any, said: str) -> None:
    with pytest.raises(InvalidParams) as caught:
        validate_params(find("generate"), {"response_format": form})

    assert said in str(caught.value)


@pytest.mark.parametrize(
    "other", [{"stop": ["x"]}, {"min_new_tokens": 5}, {"num_beams": 2}, {"no_repeat_ngram_size": 3}]
)
def test_settings_that_would_break_a_form_are_refused(other: dict[str, Any]) -> None:
    with pytest.raises(InvalidParams, match="cannot be combined with response_format"):
        validate_params(find("generate"), {"response_format": {"type": "json_object"}, **other})


@pytest.mark.parametrize(
    ("known", "said"), [(Known("seq2seq"), "encoder-decoder"), (Known("causal", engine="ctranslate2"), "ctranslate2")]
)
def test_models_that_cannot_keep_to_a_form_are_refused_at_submit(known: Known, said: str) -> None:
    task = find("generate")
    params = validate_params(task, {"response_format": {"type": "json_object"}})

    with pytest.raises(InvalidParams, match=said):
        task.check(params, known)
    task.check(params, Known("causal", engine="torch"))


def test_an_answer_that_is_cut_or_no_json_is_an_error() -> None:
    grammar = Grammar("json_schema", "{}")

    check_complete(grammar, '{"a": 1}', "stop")
    with pytest.raises(ItemError, match="not complete at max_new_tokens"):
        check_complete(grammar, '{"a": 1', "length")
    with pytest.raises(ItemError, match="is no JSON"):
        check_complete(grammar, '{"a": 1', "stop")
