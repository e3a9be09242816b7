"""Runs a task's items as the worker does, over the fake engine's codec dressed as each kind of model."""

from collections.abc import Callable, Mapping
from typing import Any

from jobs import tasks
from jobs.errors import ItemError
from jobs.models import ModelSpec
from jobs.tasks.base import (
    Answer,
    Asked,
    Classify,
    Embed,
    Failed,
    FillMask,
    Generate,
    Kind,
    LabelTokens,
    More,
    Outcome,
    Request,
    Score,
    Similarity,
)
from worker.engines.fake import FakeCodec, answer

LIMIT = 24
KINDS: dict[str, tuple[Kind, set[type], bool, tuple[str, ...], dict[str, str]]] = {
    "classifier": ("encoder", {Classify}, False, (), {}),
    "tagger": ("encoder", {LabelTokens}, False, (), {}),
    "reader": ("encoder", {Answer}, False, (), {}),
    "filler": ("encoder", {FillMask}, False, (), {}),
    "encoder": ("encoder", {Embed, Similarity}, False, (), {}),
    "chat": ("causal", {Generate, Score}, True, (), {}),
    "causal": ("causal", {Generate, Score}, False, (), {}),
    "prompted": ("causal", {Generate, Score}, False, (), dict.fromkeys(("summarize", "translate"), "Do {text} =>")),
    "seq2seq": ("seq2seq", {Generate}, False, (), {}),
    "multilingual": ("seq2seq", {Generate}, False, ("de", "en", "ko"), {}),
    "t5": ("seq2seq", {Generate}, False, (), {"translate": "translate {source} to {target}: {text}"}),
    "fake": (
        "any",
        {Classify, LabelTokens, Answer, FillMask, Embed, Similarity, Generate, Score},
        True,
        ("de", "en", "ko"),
        {},
    ),
}
PARAMS: dict[str, dict[str, Any]] = {
    "translate": {"source": "en", "target": "ko"},
    "zero_shot": {"labels": ["good", "bad", "so so"]},
}
FIELDS: dict[str, dict[str, Any]] = {
    "rerank": {"documents": ["Foxes eat mice.", "It rains today."]},
    "qa": {"context": "Foxes eat mice."},
}
"""What an item has beside its main field."""


class Codec(FakeCodec):
    """The fake codec as the text side of one kind of model."""

    def __init__(self, kind: str, limit: int = LIMIT) -> None:
        self.kind, heads, self.has_chat_template, self.languages, prompts = KINDS[kind]
        self.heads = frozenset(heads)
        spec = ModelSpec(
            name="m", path="m", kind="any", tasks=(), head="generate", prompts=prompts, max_input_tokens=limit
        )
        super().__init__(spec)
        self.in_force = {}


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
    item = task.input.model_validate(
        {**FIELDS.get(task.name, {}), task.main_field: text} if isinstance(text, str) else text
    )
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
