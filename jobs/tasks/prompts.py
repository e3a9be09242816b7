"""How a task's text is put to a model that is instructed in words: templates, chat messages, plain prompts."""

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import TypedDict

from jobs.errors import ItemError, ItemErrorCode
from jobs.tasks.base import Codec, Message
from jobs.tasks.templates import ANSWER, Template, fill

BARE = Template(text="{text}")
"""The template of a model that is asked with the document alone."""


class Phrase(TypedDict, total=False):
    """The fields of a Generate or Score request that say what is asked; one of them is set."""

    prompt: str
    messages: tuple[Message, ...]
    source: str


def phrase(
    codec: Codec,
    task: str,
    *,
    default: str,
    plain: str | None = None,
    override: str | None = None,
    values: Mapping[str, str] | None = None,
) -> Callable[[str], Phrase]:
    """Says how one document is put to this model, as a function of the document.

    The template is the job's own (`override`), else the registry's, else `default` for chat models, `plain` for other
    causal ones and the bare document for sequence-to-sequence models. Its examples come first: turns of a
    conversation, or text. Raises ItemError for a model that has none of these.
    """
    template = template_for(codec, task, default=default, plain=plain, override=override)
    said = dict(values or {})
    if codec.kind == "seq2seq":
        return lambda text: Phrase(source=template.filled({**said, "text": text}))
    if codec.has_chat_template:
        turns = tuple(_turns(template, said))
        return lambda text: Phrase(messages=(*turns, Message("user", template.filled({**said, "text": text}))))
    start = lead(template, said)
    return lambda text: Phrase(prompt=start + template.filled({**said, "text": text}))


def template_for(
    codec: Codec, task: str, *, default: str, plain: str | None = None, override: str | None = None
) -> Template:
    """The template in force. Raises ItemError when the model has none."""
    if override:
        return _worded(override)
    if declared := codec.prompts.get(task):
        return declared
    if codec.kind == "seq2seq":
        return BARE
    own = default if codec.has_chat_template else plain
    if own is None:
        raise ItemError(
            ItemErrorCode.INVALID_ITEM,
            f"the model has no chat template and no prompt for {task}; declare one in the registry (prompts.{task})",
        )
    return _worded(own)


@lru_cache(maxsize=256)
def _worded(text: str) -> Template:
    """The same for every item of a job: making one costs more than filling it."""
    return Template(text=text)


def lead(template: Template, values: Mapping[str, str]) -> str:
    """What stands before the document's own prompt where there are no turns: the system text and the examples."""
    start = f"{fill(template.system, values)}\n\n" if template.system else ""
    for example in template.examples:
        asked = template.filled({**values, **example})
        start += f"{asked}{glue(asked)}{example[ANSWER]}\n\n"
    return start


def glue(prompt: str) -> str:
    """What stands between a plain prompt and its answer."""
    return "" if prompt[-1].isspace() else " "


def _turns(template: Template, values: Mapping[str, str]) -> Iterator[Message]:
    if template.system:
        yield Message("system", fill(template.system, values))
    for example in template.examples:
        yield Message("user", template.filled({**values, **example}))
        yield Message("assistant", example[ANSWER])
