"""fill_mask: the likeliest words for the gaps in a text."""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import Field, SkipValidation, StringConstraints
from typing_extensions import TypedDict

from jobs.schemas import Item
from jobs.tasks.base import Asked, Codec, Filled, FillMask, Outcome, Task
from jobs.tasks.params import Output, Params
from jobs.tasks.texts import check_text, need

Target = Annotated[str, StringConstraints(min_length=1, max_length=1000, pattern=r"^[^\x00]*$")]


class FillMaskItem(Item):
    text: str


class FillMaskParams(Params):
    other_names: ClassVar[Mapping[str, str]] = {"topk": "top_k"}

    top_k: int = Field(default=5, ge=1, le=1000)
    """How many words come back for each gap, at most."""
    targets: tuple[Target, ...] = Field(default=(), max_length=1000, strict=False)
    """Only these words are considered; one that the vocabulary has not is its first token."""


class FilledMask(TypedDict):
    """Named as in huggingface_hub's FillMaskOutputElement."""

    token: int
    token_str: str
    score: float
    sequence: str


class FillMaskOutput(Output):
    masks: SkipValidation[list[list[FilledMask]]]
    """For each mask, in the order of the text, the likeliest words first."""


def _preprocess(item: FillMaskItem, params: FillMaskParams, codec: Codec) -> Asked:
    need(codec, FillMask, "fill_mask")
    return Asked([FillMask(check_text(item.text), params.top_k, params.targets)])


def _postprocess(
    item: FillMaskItem, asked: Asked, outcomes: Sequence[Outcome], params: FillMaskParams
) -> FillMaskOutput:
    (outcome,) = outcomes
    assert isinstance(outcome, Filled)
    return FillMaskOutput(
        masks=[
            [
                {
                    "token": each.token,
                    "token_str": each.token_str,
                    "score": each.score,
                    "sequence": each.sequence,
                }
                for each in mask
            ]
            for mask in outcome.masks
        ]
    )


TASK = Task(
    name="fill_mask",
    aliases=("masked-language-modeling",),
    summary="the likeliest words for the gaps in a text",
    main_field="text",
    input=FillMaskItem,
    params=FillMaskParams,
    output=FillMaskOutput,
    preprocess=_preprocess,
    shorten=None,  # a part of the text has not the same gaps
    postprocess=_postprocess,
    kinds=frozenset({"encoder", "any"}),
)
