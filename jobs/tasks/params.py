"""The parameters that several tasks share: how long texts are treated, and how text is generated."""

from collections.abc import Mapping
from functools import cached_property
from typing import ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from jobs.errors import InvalidParams
from jobs.tasks.base import Known, Sampling

LongText = Literal["truncate", "split", "error"]
MAX_NEW_TOKENS = 1_000_000


class Params(BaseModel):
    """What every task's params are: frozen, finite, and strict about names and types (but a whole number is a number).

    The text under each field is its explanation for callers. A tuple needs `Field(strict=False)`: JSON has lists only.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    other_names: ClassVar[Mapping[str, str]] = {}
    """Accepted names of parameters that are called something else here."""

    long_text: LongText = "split"
    """What happens to a text longer than the model reads: its rest is dropped, it is read in pieces, or refused."""


class Output(BaseModel):
    """What every task's output is: a frozen value of finite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class GenerationParams(Params):
    """How text is generated. None: the model's own generation defaults decide."""

    other_names: ClassVar[Mapping[str, str]] = {"max_tokens": "max_new_tokens", "max_length": "max_new_tokens"}

    max_new_tokens: int | None = Field(default=None, ge=1, le=MAX_NEW_TOKENS)
    """Longest answer, in tokens; the text that goes in does not count."""
    min_new_tokens: int | None = Field(default=None, ge=0, le=MAX_NEW_TOKENS)
    """Shortest answer, in tokens."""
    temperature: float | None = Field(default=None, ge=0, le=10)
    """How freely tokens are drawn; 0 takes the likeliest each time."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Tokens are drawn from the likeliest that together have this probability."""
    top_k: int | None = Field(default=None, ge=0, le=1_000_000)
    """Tokens are drawn from so many of the likeliest; 0: from all."""
    seed: int | None = Field(default=None, ge=0, le=2**63 - 1)
    """Where random numbers start; with the item's place in the job it fixes the answer."""
    num_beams: int | None = Field(default=None, ge=1, le=64)
    """Beams of a beam search."""
    length_penalty: float | None = Field(default=None, ge=-10, le=10)
    """Above 0 beams prefer long answers."""
    repetition_penalty: float | None = Field(default=None, gt=0, le=10)
    """Above 1 tokens that were used before become less likely."""
    no_repeat_ngram_size: int | None = Field(default=None, ge=0, le=1000)
    """No run of so many tokens comes twice; 0: off."""

    @model_validator(mode="after")
    def _lengths_fit(self) -> Self:
        if self.max_new_tokens is not None and (self.min_new_tokens or 0) > self.max_new_tokens:
            raise ValueError(f"min_new_tokens {self.min_new_tokens} is above max_new_tokens {self.max_new_tokens}")
        return self

    @cached_property
    def sampling(self) -> Sampling:
        """These params as a request carries them."""
        return Sampling(**{name: getattr(self, name) for name in Sampling.__dataclass_fields__})


def check_room(params: GenerationParams, model: Known) -> None:
    """Raises InvalidParams when the answer asked for leaves no room for any prompt."""
    for name in ("max_new_tokens", "min_new_tokens"):
        asked, context = getattr(params, name), model.context_tokens
        if asked is not None and context is not None and asked >= context:
            raise InvalidParams(
                f"parameter {name!r}: {asked} leaves no room for a prompt: the model's context is {context} tokens, "
                "for prompt and answer together"
            )
