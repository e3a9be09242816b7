"""The model registry: what a model is called, where it lies, which tasks it serves. No weights are touched here."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from jobs.tasks.base import Kind

FAKE = "fake"
"""The key that always exists: the fake engine, for every task."""


class ModelSpec(BaseModel):
    """One entry of the registry (table `models`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/@-]{0,190}$")
    path: str
    """A local folder (absolute) or a Hub id `owner/name`. In jobs only `name` is ever given."""
    revision: str | None = None
    kind: Kind
    tasks: tuple[str, ...]
    engine: str = "torch"
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """None: the `dtype` setting."""
    device: str | None = None
    head: Literal["classify", "embed", "generate"]
    """Which model class is loaded: sequence classification, bare encoder, or generation."""
    adapter: str | None = None
    """A LoRA folder, merged at load."""
    prompts: Mapping[str, str] = Field(default_factory=dict)
    """Prompt templates by task; `{text}` stands for the document, `{source}` and `{target}` for languages."""
    generation: Mapping[str, Any] = Field(default_factory=dict)
    """Overrides of the model's own generation defaults."""
    max_input_tokens: int | None = Field(default=None, ge=1)
    """Below what the architecture allows, where a model is better so (MiniLM: 256)."""
    note: str = ""
    """Said to people beside the name, e.g. that a 135 M model is for show."""
