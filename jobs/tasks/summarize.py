"""summarize: a text in fewer words; a long one part by part, then the summaries of its parts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal, NamedTuple

from pydantic import StringConstraints

from jobs.schemas import Item
from jobs.tasks import windows
from jobs.tasks.base import Asked, Codec, FinishReason, Generate, More, Outcome, Sampling, Task
from jobs.tasks.params import GenerationParams, Output, check_room
from jobs.tasks.prompts import phrase
from jobs.tasks.texts import check_text, finish_reason, first_text, need

MAX_ROUNDS = 6
"""After so many rounds of summaries of summaries, what does not fit is cut: it has long stopped shrinking."""
INSTRUCTION = "Summarize the following text in {length}. Reply with the summary only.\n\n{text}"


class Length(NamedTuple):
    """What a length means: tokens at least (sequence-to-sequence models only) and at most, and in words."""

    least: int
    most: int
    words: str


LENGTHS = {
    "short": Length(5, 128, "one or two sentences"),
    "medium": Length(30, 320, "one short paragraph"),
    "long": Length(100, 800, "several paragraphs"),
}
"""The most is well above what the words ask for, so that a summary ends by itself and is not cut."""


class SummarizeItem(Item):
    text: str


class SummarizeParams(GenerationParams):
    length: Literal["short", "medium", "long"] | None = None
    """At most 128, 320, 800 tokens (for sequence-to-sequence models also at least 5, 30, 100), and so in the
    prompt: one or two sentences, one short paragraph, several paragraphs; `null`: a sequence-to-sequence model's own
    lengths, `medium` for a model asked in words."""
    prompt: Annotated[str, StringConstraints(min_length=1, max_length=100_000)] | None = None
    """How the model is asked; `{text}` is the document, which otherwise follows at the end."""


class SummarizeOutput(Output):
    summary_text: str
    finish_reason: FinishReason
    """`length` when `max_new_tokens` ended the summary, or that of a part: it is not whole."""


@dataclass(frozen=True, slots=True)
class _Reduce:
    """What the next round needs: how to ask about a text (in parts if it is long), how the last rounds went."""

    ask: Callable[[str, bool], list[windows.Window]]
    request: Callable[[str], Generate]
    tokens: int
    """What the last round read."""
    round: int
    finish_reason: FinishReason = "stop"
    """`length` when any summary so far was cut."""


def _preprocess(item: SummarizeItem, params: SummarizeParams, codec: Codec) -> Asked:
    return Asked([_asking(params, codec)(check_text(item.text))])


def _shorten(item: SummarizeItem, params: SummarizeParams, codec: Codec) -> Asked:
    ask = _asking(params, codec)
    if params.long_text == "truncate":
        cut = windows.truncate(item.text, ask, codec)
        return Asked([ask(cut.text)], truncated_tokens=cut.dropped)
    pieces = windows.parts(item.text, ask, codec)
    weights = tuple(piece.tokens for piece in pieces)

    def cut_up(text: str, whole: bool) -> list[windows.Window]:
        if not whole:
            return windows.parts(text, ask, codec)
        left = windows.truncate(text, ask, codec)
        return [windows.Window(left.text, left.tokens)]

    return Asked([ask(piece.text) for piece in pieces], weights, state=_Reduce(cut_up, ask, sum(weights), 1))


def _postprocess(
    item: SummarizeItem, asked: Asked, outcomes: Sequence[Outcome], params: SummarizeParams
) -> SummarizeOutput | More:
    summaries = [first_text(outcome) for outcome in outcomes]
    state: _Reduce | None = asked.state
    reason = "length" if state is not None and state.finish_reason == "length" else finish_reason(outcomes)
    joined = "\n".join(summary for summary in summaries if summary)
    if state is None or len(summaries) == 1 or not joined:
        return SummarizeOutput(summary_text=joined, finish_reason=reason)
    return _next_round(joined, replace(state, finish_reason=reason))


def _next_round(joined: str, state: _Reduce) -> More:
    """Ask about the joined summaries; as one text, cut to fit, once they no longer get shorter."""
    pieces = state.ask(joined, False)
    tokens = sum(piece.tokens for piece in pieces)
    if len(pieces) > 1 and (tokens >= state.tokens or state.round >= MAX_ROUNDS):
        pieces = state.ask(joined, True)
    following = replace(state, tokens=tokens, round=state.round + 1)
    return More([state.request(piece.text) for piece in pieces], state=following)


def _asking(params: SummarizeParams, codec: Codec) -> Callable[[str], Generate]:
    need(codec, Generate, "summarize")
    words = LENGTHS[params.length or "medium"].words
    put = phrase(codec, "summarize", default=INSTRUCTION, override=params.prompt, values={"length": words})
    sampling = _sampling(params, codec)
    return lambda text: Generate(**put(text), sampling=sampling, seed=params.seed)


def _sampling(params: SummarizeParams, codec: Codec) -> Sampling:
    """The job's sampling, with the limits of `length` where the job gives none of its own."""
    own = codec.kind == "seq2seq"
    if params.length is None and own:
        return params.sampling
    length = LENGTHS[params.length or "medium"]
    most = params.max_new_tokens or max(length.most, params.min_new_tokens or 0)
    least = params.min_new_tokens if params.min_new_tokens is not None or not own else min(length.least, most)
    return replace(params.sampling, max_new_tokens=most, min_new_tokens=least)


TASK = Task(
    name="summarize",
    aliases=("summarization",),
    summary="a text in fewer words",
    main_field="text",
    input=SummarizeItem,
    params=SummarizeParams,
    output=SummarizeOutput,
    preprocess=_preprocess,
    shorten=_shorten,
    postprocess=_postprocess,
    kinds=frozenset({"seq2seq", "causal", "any"}),
    check=check_room,
)
