"""Prompt templates: how a model is asked in words, as the registry keeps it."""

import re
from collections.abc import Mapping
from functools import cached_property, lru_cache
from hashlib import sha256
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
    model_validator,
)

PLACEHOLDER = re.compile(r"\{(\w+)\}")
ANSWER = "answer"
MOST_EXAMPLES = 100
Text = Annotated[str, StringConstraints(min_length=1, max_length=100_000, pattern=r"^[^\x00]*$")]


def _hashed(rest: dict[str, Any]) -> str:
    return sha256(repr(sorted(rest.items())).encode("utf-8", "surrogatepass")).hexdigest()[:12]


class Template(BaseModel):
    """One task's prompt. `{text}` stands for the document; other placeholders are the task's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: Text
    """What is said about one document, which otherwise follows at the end."""
    system: Text | None = None
    """Said first, as the system message of a chat model."""
    examples: tuple[Mapping[str, Text], ...] = Field(default=(), max_length=MOST_EXAMPLES)
    """Documents already answered (few-shot): `text`, `answer`, and what stands for other placeholders there."""
    version: Annotated[str, StringConstraints(min_length=1, max_length=64)] = Field(default_factory=_hashed)
    """Recorded with each job. Left out: a hash of the rest, so that one version is always one wording."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        for number, example in enumerate(self.examples, 1):
            if missing := {"text", ANSWER} - example.keys():
                raise ValueError(f"example {number} has no {' and no '.join(sorted(missing))}")
        return self

    @model_serializer(mode="wrap")
    def _shortest(self, dumped: SerializerFunctionWrapHandler) -> Any:
        """Its text alone where that is all there is: what versions before tables could be written still read."""
        plain = self.system is None and not self.examples
        unnamed = self.version == _hashed({"text": self.text, "system": None, "examples": ()})
        return self.text if plain and unnamed else dumped(self)

    @cached_property
    def placeholders(self) -> frozenset[str]:
        """Those of everything that is said."""
        return names(self.text) | names(self.system or "")

    def filled(self, values: Mapping[str, str]) -> str:
        """What is said about one document."""
        return fill(self._whole, values)

    @cached_property
    def _whole(self) -> str:
        return self.text if "text" in names(self.text) else f"{self.text}\n\n{{text}}"


def _wrapped(given: Any) -> Any:
    return {"text": given} if isinstance(given, str) else given


Prompt = Annotated[Template, BeforeValidator(_wrapped)]
"""As an entry of the registry writes it: a table, or its text alone."""


def fill(template: str, values: Mapping[str, str]) -> str:
    """The template with each `{name}` of `values` replaced, once: braces in the values and other braces stay."""
    return "".join(values.get(name, f"{{{name}}}") if name else plain for plain, name in _pieces(template))


def names(template: str) -> frozenset[str]:
    """The placeholders that occur in a template."""
    return frozenset(name for _, name in _pieces(template) if name)


@lru_cache(maxsize=256)
def _pieces(template: str) -> tuple[tuple[str, str], ...]:
    """The template cut into (plain text, "") and ("", placeholder)."""
    parts = PLACEHOLDER.split(template)
    return tuple((part, "") if i % 2 == 0 else ("", part) for i, part in enumerate(parts) if part)
