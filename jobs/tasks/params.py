"""The parameters that several tasks share: how long texts are treated, and how text is generated."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from jobs.tasks.base import Sampling

LongText = Literal["truncate", "split", "error"]
MAX_NEW_TOKENS = 1_000_000


class Params(BaseModel):
    """What every task's params are: frozen, finite, and strict about names."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    other_names: ClassVar[Mapping[str, str]] = {}
    """Accepted names of parameters that are called something else here."""

    long_text: LongText = "split"
    """What happens to a text longer than the model reads: its rest is dropped, it is read in windows, or refused."""

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        # Without this `true` would pass for 1.
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError("true and false are not allowed here")
        return value


class Output(BaseModel):
    """What every task's output is: a frozen value of finite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class GenerationParams(Params):
    """How text is generated. None: the model's own generation defaults decide."""

    other_names: ClassVar[Mapping[str, str]] = {"max_tokens": "max_new_tokens", "max_length": "max_new_tokens"}

    max_new_tokens: int | None = Field(default=None, ge=1, le=MAX_NEW_TOKENS)
    min_new_tokens: int | None = Field(default=None, ge=0, le=MAX_NEW_TOKENS)
    temperature: float | None = Field(default=None, ge=0, le=10)
    """0 is greedy."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=0, le=1_000_000)
    """0 turns it off."""
    seed: int | None = Field(default=None, ge=0, le=2**63 - 1)
    """None: the engine's own; either way the same for the same item."""
    num_beams: int | None = Field(default=None, ge=1, le=64)
    length_penalty: float | None = Field(default=None, ge=-10, le=10)
    repetition_penalty: float | None = Field(default=None, gt=0, le=10)
    no_repeat_ngram_size: int | None = Field(default=None, ge=0, le=1000)

    @model_validator(mode="after")
    def _lengths_fit(self) -> Self:
        if self.max_new_tokens is not None and (self.min_new_tokens or 0) > self.max_new_tokens:
            raise ValueError(f"min_new_tokens {self.min_new_tokens} is above max_new_tokens {self.max_new_tokens}")
        return self

    @cached_property
    def sampling(self) -> Sampling:
        """These params as a request carries them."""
        return Sampling(**{name: getattr(self, name) for name in Sampling.__dataclass_fields__})
