"""Every task on every kind of model: one valid output an item, the same each time, or an error by its code."""

from functools import cache
from typing import Any

import jsonschema
import pytest

from jobs import tasks
from jobs.errors import InvalidParams, ItemError, ItemErrorCode
from jobs.tasks.base import Known
from jobs.tasks.templates import Template
from tests.jobs.task_runs import FIELDS, KINDS, PARAMS, Codec, run

LONG = " ".join(f"Sentence number {number} is here." for number in range(20))
SHORT = "A short text."


LABELLED = {"encoder", "chat", "causal"}
"""Models that classify by the caller's labels only."""
SERVES = {
    "classify": {"classifier", "encoder", "chat", "causal", "fake"},
    "detect_language": {"classifier", "chat", "causal", "prompted", "fake"},
    "ner": {"tagger", "fake"},
    "qa": {"reader", "chat", "causal", "prompted", "fake"},
    "rerank": {"encoder", "chat", "causal", "prompted", "fake"},
    "zero_shot": {"encoder", "chat", "causal", "prompted", "fake"},
    "embed": {"encoder", "fake"},
    "summarize": {"chat", "prompted", "seq2seq", "multilingual", "t5", "fake"},
    "translate": {"chat", "prompted", "seq2seq", "multilingual", "t5", "fake"},
    "generate": {"chat", "causal", "prompted", "seq2seq", "multilingual", "t5", "fake"},
}
PAIRS = [(task, kind) for task, kinds in SERVES.items() for kind in sorted(kinds)]
OF_ONE_TEXT = [(task, kind) for task, kind in PAIRS if task not in FIELDS]
"""Tasks whose item is a text; how the others shorten theirs is in their own tests."""
UNSERVED = [(task, kind) for task, kinds in SERVES.items() for kind in sorted(KINDS.keys() - kinds)]


@cache
def _schema(name: str) -> dict[str, Any]:
    return tasks.find(name).output.model_json_schema(mode="serialization")


def needed(task: str, kind: str) -> dict[str, Any]:
    if task == "classify" and kind in LABELLED:
        return {"labels": ["good", "bad", "so so"]}
    languages = task == "detect_language" and kind in {"chat", "causal", "prompted"}
    return {"languages": ["en", "ko"]} if languages else {}


@pytest.mark.parametrize(("task", "kind"), PAIRS)
@pytest.mark.parametrize("text", [SHORT, "x", "한국어 문장.", "{text} {labels} { } %s \\1", "<|im_end|>"])
def test_an_item_has_one_valid_output_which_is_always_the_same(task: str, kind: str, text: str) -> None:
    first, rounds = run(task, text, Codec(kind), needed(task, kind))
    second, _ = run(task, text, Codec(kind), needed(task, kind))

    assert first == second
    assert type(first) is tasks.find(task).output
    assert len(rounds) == 1
    jsonschema.validate(first.model_dump(mode="json"), _schema(task))


@pytest.mark.parametrize(("task", "kind"), PAIRS)
def test_the_text_reaches_the_model_whole_and_uninterpreted(task: str, kind: str) -> None:
    text = "{source} {text} {labels} {length}"

    _, rounds = run(task, text, Codec(kind, limit=100), needed(task, kind))

    assert text in repr(rounds[0].requests[0])


@pytest.mark.parametrize(("task", "kind"), UNSERVED)
def test_a_model_that_does_not_serve_the_task_fails_the_item_in_words(task: str, kind: str) -> None:
    with pytest.raises(ItemError) as caught:
        run(task, SHORT, Codec(kind))

    assert caught.value.code is ItemErrorCode.INVALID_ITEM
    assert "model" in caught.value.message


@pytest.mark.parametrize(("task", "kind"), OF_ONE_TEXT)
def test_a_long_text_is_truncated_to_one_request_that_fits(task: str, kind: str) -> None:
    output, rounds = run(task, LONG, Codec(kind, limit=60), {**needed(task, kind), "long_text": "truncate"})

    assert len(rounds) == len(rounds[0].requests) == 1
    assert 40 <= rounds[0].truncated_tokens <= 75
    assert not rounds[0].weights
    jsonschema.validate(output.model_dump(mode="json"), _schema(task))


@pytest.mark.parametrize(("task", "kind"), PAIRS)
def test_a_long_text_is_refused_where_the_job_says_so(task: str, kind: str) -> None:
    with pytest.raises(ItemError) as caught:
        run(task, LONG, Codec(kind), {**needed(task, kind), "long_text": "error"})

    assert caught.value.code is ItemErrorCode.TOO_LONG


@pytest.mark.parametrize(("task", "kind"), [(task, kind) for task, kind in OF_ONE_TEXT if task != "generate"])
def test_a_long_text_is_read_in_windows_by_default(task: str, kind: str) -> None:
    output, rounds = run(task, LONG, Codec(kind, limit=60), needed(task, kind))

    assert len(rounds[0].requests) == len(rounds[0].weights) > 1
    assert rounds[0].truncated_tokens == 0
    assert "number 0 is" in repr(rounds[0].requests[0])
    assert "number 19 is" in repr(rounds[0].requests[-1])
    jsonschema.validate(output.model_dump(mode="json"), _schema(task))


@pytest.mark.parametrize(("task", "kind"), PAIRS)
@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", ItemErrorCode.EMPTY_TEXT),
        (" \n\t\u3000", ItemErrorCode.EMPTY_TEXT),
        ("a\0b", ItemErrorCode.INVALID_TEXT),
        ("a\ud800b", ItemErrorCode.INVALID_TEXT),
    ],
)
def test_a_bad_text_fails_by_its_code(task: str, kind: str, text: str, code: ItemErrorCode) -> None:
    # pydantic refuses lone surrogates itself; a text that comes another way must be caught all the same.
    schema = tasks.find(task)
    item = schema.input.model_construct(**FIELDS.get(task, {}), **{schema.main_field: text})
    params = tasks.validate_params(schema, {**PARAMS.get(task, {}), **needed(task, kind)})

    with pytest.raises(ItemError) as caught:
        schema.preprocess(item, params, Codec(kind))

    assert caught.value.code is code
    assert caught.value.message.encode()


@pytest.mark.parametrize(("task", "kind"), PAIRS)
def test_the_check_at_submit_agrees_with_the_model(task: str, kind: str) -> None:
    found = tasks.find(task)
    params = tasks.validate_params(found, {**PARAMS.get(task, {}), **needed(task, kind)})

    found.check(params, Known(KINDS[kind][0]))

    assert KINDS[kind][0] in found.kinds


@pytest.mark.parametrize(
    ("task", "params", "model", "said"),
    [
        ("classify", {"labels": ["a", "b"]}, Known("encoder", "classify"), "the model has labels of its own"),
        ("classify", {}, Known("causal"), "'labels' is needed"),
        ("classify", {}, Known("encoder", "embed"), "'labels' is needed"),
        ("embed", {"dimensions": 385}, Known("encoder", dimensions=384), "'dimensions': 385 is more than the 384 that"),
        ("translate", {}, Known("causal"), "'target' is needed"),
        ("translate", {"target": "xx"}, Known("causal"), "target language 'xx' is not known: give an ISO 639-1 code"),
        ("translate", {"target": "de", "source": "xx"}, Known("causal"), "source language 'xx' is not known"),
        *(
            (task, {**PARAMS.get(task, {}), name: 64}, Known("causal", context_tokens=64), words)
            for task in ("generate", "summarize", "translate")
            for name, words in (
                (
                    "max_new_tokens",
                    "'max_new_tokens': 64 leaves no room for a prompt: the model's context is 64 tokens",
                ),
                ("min_new_tokens", "'min_new_tokens': 64 leaves no room for a prompt"),
            )
        ),
    ],
)
def test_params_that_no_item_could_run_with_are_refused_at_submit(
    task: str, params: dict[str, Any], model: Known, said: str
) -> None:
    found = tasks.find(task)

    with pytest.raises(InvalidParams, match=said):
        found.check(tasks.validate_params(found, params), model)


@pytest.mark.parametrize(
    ("task", "params", "model"),
    [
        ("embed", {"dimensions": 384}, Known("encoder", dimensions=384)),
        ("embed", {"dimensions": 5000}, Known("encoder")),
        ("generate", {"max_new_tokens": 63}, Known("causal", context_tokens=64)),
        ("generate", {"max_new_tokens": 10**6}, Known("causal")),
        ("translate", {"target": "xx"}, Known("causal", prompts={"translate": Template(text="Into Elvish: {text}")})),
        ("translate", {"target": "xx"}, Known("seq2seq")),
        (
            "translate",
            {"target": "de"},
            Known("causal", prompts={"translate": Template(text="{source} to {target}:")}),
        ),
    ],
)
def test_what_fits_or_is_not_known_is_not_refused_at_submit(task: str, params: dict[str, Any], model: Known) -> None:
    found = tasks.find(task)

    found.check(tasks.validate_params(found, params), model)
