"""Every task on every kind of model: one valid output an item, the same each time, or an error by its code."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import jsonschema
import pytest

from jobs import tasks
from jobs.errors import InvalidParams, ItemError, ItemErrorCode
from jobs.models import ModelSpec
from jobs.tasks.base import (
    Asked,
    Classify,
    Embed,
    Failed,
    Generate,
    Kind,
    More,
    Outcome,
    Request,
    Score,
    Similarity,
)
from worker.engines.fake import FakeCodec, answer

LIMIT = 24
LONG = " ".join(f"Sentence number {number} is here." for number in range(20))
SHORT = "A short text."

KINDS: dict[str, tuple[Kind, set[type], bool, tuple[str, ...], dict[str, str]]] = {
    "classifier": ("encoder", {Classify}, False, (), {}),
    "encoder": ("encoder", {Embed, Similarity}, False, (), {}),
    "chat": ("causal", {Generate, Score}, True, (), {}),
    "causal": ("causal", {Generate, Score}, False, (), {}),
    "prompted": ("causal", {Generate, Score}, False, (), {name: "Do {text} =>" for name in ("summarize", "translate")}),
    "seq2seq": ("seq2seq", {Generate}, False, (), {}),
    "multilingual": ("seq2seq", {Generate}, False, ("de", "en", "ko"), {}),
    "t5": ("seq2seq", {Generate}, False, (), {"translate": "translate {source} to {target}: {text}"}),
    "fake": ("any", {Classify, Embed, Similarity, Generate, Score}, True, ("de", "en", "ko"), {}),
}
PARAMS: dict[str, dict[str, Any]] = {"translate": {"source": "en", "target": "ko"}}
LABELLED = {"encoder", "chat", "causal"}
"""Models that classify by the caller's labels only."""
SERVES = {
    "classify": {"classifier", "encoder", "chat", "causal", "fake"},
    "embed": {"encoder", "fake"},
    "summarize": {"chat", "prompted", "seq2seq", "multilingual", "t5", "fake"},
    "translate": {"chat", "prompted", "seq2seq", "multilingual", "t5", "fake"},
    "generate": {"chat", "causal", "prompted", "seq2seq", "multilingual", "t5", "fake"},
}
PAIRS = [(task, kind) for task, kinds in SERVES.items() for kind in sorted(kinds)]
UNSERVED = [(task, kind) for task, kinds in SERVES.items() for kind in sorted(KINDS.keys() - kinds)]


class Codec(FakeCodec):
    """The fake codec as the text side of one kind of model."""

    def __init__(self, kind: str, limit: int = LIMIT) -> None:
        self.kind, heads, self.has_chat_template, self.languages, prompts = KINDS[kind]
        self.heads = frozenset(heads)
        spec = ModelSpec(
            name="m", path="m", kind="any", tasks=(), head="generate", prompts=prompts, max_input_tokens=limit
        )
        super().__init__(spec)


def run(
    name: str,
    text: str | Mapping[str, Any],
    codec: Codec,
    params: Mapping[str, Any] | None = None,
    answers: Callable[[Request], Outcome] = answer,
) -> tuple[Any, list[Asked]]:
    """What the worker does with one item: its output, and what was asked in each round. Raises ItemError."""
    task = tasks.find(name)
    checked = tasks.validate_params(task, {**PARAMS.get(task.name, {}), **(params or {})})
    item = task.input.model_validate({task.main_field: text} if isinstance(text, str) else text)
    asked = task.preprocess(item, checked, codec)
    if _refused(codec, asked) and checked.long_text != "error":
        asked = task.shorten(item, checked, codec)  # type: ignore[misc]
    rounds = [asked]
    while True:
        if refusal := _refused(codec, rounds[-1]):
            raise ItemError(refusal.code, refusal.message)
        output = task.postprocess(item, rounds[-1], [answers(each) for each in rounds[-1].requests], checked)
        if not isinstance(output, More):
            return output, rounds
        rounds.append(Asked(output.requests, asked.weights, asked.truncated_tokens, output.state))


def _refused(codec: Codec, asked: Asked) -> Failed | None:
    return next((each for each in codec.encode(asked.requests) if isinstance(each, Failed)), None)


@cache
def _schema(name: str) -> dict[str, Any]:
    return tasks.find(name).output.model_json_schema(mode="serialization")


def needed(task: str, kind: str) -> dict[str, Any]:
    return {"labels": ["good", "bad", "so so"]} if task == "classify" and kind in LABELLED else {}


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


@pytest.mark.parametrize(("task", "kind"), PAIRS)
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


@pytest.mark.parametrize(("task", "kind"), [(task, kind) for task, kind in PAIRS if task != "generate"])
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
    item = schema.input.model_construct(**{schema.main_field: text})
    params = tasks.validate_params(schema, {**PARAMS.get(task, {}), **needed(task, kind)})

    with pytest.raises(ItemError) as caught:
        schema.preprocess(item, params, Codec(kind))

    assert caught.value.code is code
    assert caught.value.message.encode()


@pytest.mark.parametrize(("task", "kind"), PAIRS)
def test_the_check_at_submit_agrees_with_the_model(task: str, kind: str) -> None:
    found = tasks.find(task)
    params = tasks.validate_params(found, {**PARAMS.get(task, {}), **needed(task, kind)})

    found.check(params, KINDS[kind][0])

    assert KINDS[kind][0] in found.kinds


@pytest.mark.parametrize(
    ("task", "params", "kind", "head", "said"),
    [
        ("classify", {"labels": ["a", "b"]}, "encoder", "classify", "the model has labels of its own"),
        ("classify", {}, "causal", None, "'labels' is needed"),
        ("classify", {}, "encoder", "embed", "'labels' is needed"),
        ("translate", {}, "causal", None, "'target' is needed"),
    ],
)
def test_params_that_no_item_could_run_with_are_refused_at_submit(
    task: str, params: dict[str, Any], kind: Kind, head: Any, said: str
) -> None:
    found = tasks.find(task)

    with pytest.raises(InvalidParams, match=said):
        found.check(tasks.validate_params(found, params), kind, head)
