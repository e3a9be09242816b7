"""embed: one vector for a text, or one for each of its tokens."""

import math
from array import array
from collections.abc import Sequence
from functools import partial
from typing import Literal

from pydantic import Field, field_serializer

from jobs.errors import InvalidParams, ItemError, ItemErrorCode
from jobs.schemas import Item
from jobs.tasks import scores, windows
from jobs.tasks.base import Asked, Codec, Embed, Embedded, Known, Outcome, Task
from jobs.tasks.params import Output, Params
from jobs.tasks.texts import check_text, need


def floats(vector: bytes) -> list[float]:
    """The numbers of a vector as it is stored: float32, little-endian."""
    return array("f", vector).tolist()


def numbers(vector: bytes, tokens: int | None) -> list[float] | list[list[float]]:
    """The numbers of a vector, or of each of several `tokens`."""
    flat = floats(vector)
    if tokens is None:
        return flat
    width = len(flat) // max(tokens, 1)
    return [flat[at : at + width] for at in range(0, len(flat), width)]


class EmbedItem(Item):
    text: str


class EmbedParams(Params):
    pooling: Literal["mean", "cls", "max", "last", "none"] | None = None
    """How the tokens' vectors become one; `null`: as the model's configuration says, else `mean`; `none`: each token
    keeps its own."""
    normalize: bool = True
    """Whether a vector is brought to length 1."""
    dimensions: int | None = Field(default=None, ge=1, le=65_536)
    """Only the first so many numbers, for models trained for it (Matryoshka); `null`: all."""


class EmbedOutput(Output):
    embedding: bytes
    """The vector, as long as the model is wide or `dimensions` says; with `pooling=none` a list of such, one for each
    token that the model read, its special ones included."""  # here: float32 bytes, little-endian
    tokens: int | None = Field(default=None, exclude_if=lambda tokens: tokens is None)
    """How many vectors there are, with `pooling=none`."""

    @field_serializer("embedding")
    def _numbers(self, vector: bytes) -> list[float] | list[list[float]]:
        return numbers(vector, self.tokens)

    @property
    def vector(self) -> bytes:
        """What is stored instead of JSON."""
        return self.embedding

    @property
    def beside(self) -> dict[str, int] | None:
        """What is stored with it, as JSON."""
        return None if self.tokens is None else {"tokens": self.tokens}


def _preprocess(item: EmbedItem, params: EmbedParams, codec: Codec) -> Asked:
    need(codec, Embed, "embed")
    return Asked([Embed(check_text(item.text), params.pooling, params.normalize, params.dimensions)])


def _shorten(item: EmbedItem, params: EmbedParams, codec: Codec) -> Asked:
    # Windows are asked raw: the weighted mean of mean-pooled windows is then the mean over all their tokens.
    single = params.long_text == "truncate"
    normalize = params.normalize and (single or params.pooling == "none")
    ask = partial(Embed, pooling=params.pooling, normalize=normalize, dimensions=params.dimensions)
    if single:
        cut = windows.truncate(item.text, ask, codec)
        return Asked([ask(cut.text)], truncated_tokens=cut.dropped)
    # Overlapping windows would give some tokens two vectors.
    pieces = (windows.parts if params.pooling == "none" else windows.split)(item.text, ask, codec)
    return Asked([ask(piece.text) for piece in pieces], tuple(piece.tokens for piece in pieces))


def _postprocess(item: EmbedItem, asked: Asked, outcomes: Sequence[Outcome], params: EmbedParams) -> EmbedOutput:
    embedded = [outcome for outcome in outcomes if isinstance(outcome, Embedded)]
    vectors = [each.vector for each in embedded]
    if params.pooling == "none":
        joined = b"".join(vectors)
        _check_finite(joined)
        return EmbedOutput(embedding=joined, tokens=sum(each.tokens or 0 for each in embedded))
    if asked.weights:
        mean = scores.weighted_mean([floats(vector) for vector in vectors], asked.weights)
        return EmbedOutput(embedding=_packed(_unit(mean) if params.normalize else mean))
    _check_finite(vectors[0])
    return EmbedOutput(embedding=vectors[0])


def _check(params: EmbedParams, model: Known) -> None:
    wide = model.dimensions
    if wide is not None and params.dimensions is not None and params.dimensions > wide:
        raise InvalidParams(f"parameter 'dimensions': {params.dimensions} is more than the {wide} that the model has")


def _unit(vector: list[float]) -> list[float]:
    length = math.hypot(*vector)
    return [value / length for value in vector] if length > 0 else vector


def _packed(vector: list[float]) -> bytes:
    if not all(map(math.isfinite, vector)):
        raise _not_finite()
    return array("f", vector).tobytes()


def _check_finite(vector: bytes) -> None:
    """Raises ItemError."""
    if not math.isfinite(math.fsum(map(abs, array("f", vector)))):
        raise _not_finite()


def _not_finite() -> ItemError:
    return ItemError(ItemErrorCode.MODEL_ERROR, "the model gave a vector with NaN or infinite numbers")


TASK = Task(
    name="embed",
    aliases=("feature-extraction", "embeddings"),
    summary="one vector for a text",
    main_field="text",
    input=EmbedItem,
    params=EmbedParams,
    output=EmbedOutput,
    preprocess=_preprocess,
    shorten=_shorten,
    postprocess=_postprocess,
    kinds=frozenset({"encoder", "any"}),
    check=_check,
)
