"""How a task's text is put to a model that is instructed in words: templates, chat messages, plain prompts."""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TypedDict

from jobs.errors import ItemError, ItemErrorCode
from jobs.tasks.base import Codec, Message

PLACEHOLDER = re.compile(r"\{(\w+)\}")
BARE = "{text}"
"""The template of a model that is asked with the document alone."""


class Phrase(TypedDict, total=False):
    """The fields of a Generate or Score request that say what is asked; one of them is set."""

    prompt: str
    messages: tuple[Message, ...]
    source: str


def fill(template: str, values: Mapping[str, str]) -> str:
    """The template with each `{name}` of `values` replaced, once: braces in the values and other braces stay."""
    return "".join(values.get(name, f"{{{name}}}") if name else plain for plain, name in _pieces(template))


def names(template: str) -> frozenset[str]:
    """The placeholders that occur in a template."""
    return frozenset(name for _, name in _pieces(template) if name)


def phrase(
    codec: Codec,
    task: str,
    *,
    default: str | None,
    override: str | None = None,
    values: Mapping[str, str] | None = None,
) -> Callable[[str], Phrase]:
    """Says how one document is put to this model, as a function of the document.

    The template is the job's own (`override`), else the registry's, else `default` for chat models and the bare
    document for sequence-to-sequence models. Raises ItemError for a plain causal model when there is none.
    """
    template = template_for(codec, task, default=default, override=override)

    def put(text: str) -> Phrase:
        filled = fill(template, {**(values or {}), "text": text})
        if codec.kind == "seq2seq":
            return Phrase(source=filled)
        if codec.has_chat_template:
            return Phrase(messages=(Message("user", filled),))
        return Phrase(prompt=filled)

    return put


def template_for(codec: Codec, task: str, *, default: str | None, override: str | None = None) -> str:
    """The template in force, with `{text}` in it for certain. Raises ItemError when the model has none."""
    template = override or codec.prompts.get(task) or _fallback(codec, default)
    if template is None:
        raise ItemError(
            ItemErrorCode.INVALID_ITEM,
            f"the model has no chat template and no prompt for {task}; declare one in the registry (prompts.{task})",
        )
    return template if "text" in names(template) else f"{template}\n\n{BARE}"


def _fallback(codec: Codec, default: str | None) -> str | None:
    if codec.kind == "seq2seq":
        return BARE
    return default if codec.has_chat_template else None


@lru_cache(maxsize=256)
def _pieces(template: str) -> tuple[tuple[str, str], ...]:
    """The template cut into (plain text, "") and ("", placeholder)."""
    parts = PLACEHOLDER.split(template)
    return tuple((part, "") if i % 2 == 0 else ("", part) for i, part in enumerate(parts) if part)
