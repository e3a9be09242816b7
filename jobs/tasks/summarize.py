"""summarize: a text in fewer words; a long one part by part, then the summaries of its parts, or one that grows."""

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
REFINE = (
    "This is a summary of the beginning of a text:\n\n{summary}\n\nThe text goes on:\n\n{text}\n\n"
    "Summarize all of it in {length}. Reply with the summary only."
)
SHARE = 0.5
"""Most of the room that the summary so far may take beside the next part."""


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

    method: Literal["map_reduce", "refine"] = "map_reduce"
    """How a long text is summarized: each part by itself, then the summaries together; or part after part, each beside
    the summary of all before it, which keeps the thread and takes as many rounds as there are parts."""


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


@dataclass(frozen=True, slots=True)
class _Refine:
    """What the next rounds need: how to ask about a part beside the summary so far, and the parts that are left."""

    ask: Callable[[str, str], Generate]
    left: tuple[str, ...]
    finish_reason: FinishReason = "stop"


def _preprocess(item: SummarizeItem, params: SummarizeParams, codec: Codec) -> Asked:
    return Asked([_asking(params, codec)(check_text(item.text))])


def _shorten(item: SummarizeItem, params: SummarizeParams, codec: Codec) -> Asked:
    ask = _asking(params, codec)
    if params.long_text == "truncate":
        cut = windows.truncate(item.text, ask, codec)
        return Asked([ask(cut.text)], truncated_tokens=cut.dropped)
    if params.method == "refine":
        return _refined(item.text, params, codec)
    pieces = windows.parts(item.text, ask, codec)
    weights = tuple(piece.tokens for piece in pieces)

    def cut_up(text: str, whole: bool) -> list[windows.Window]:
        if not whole:
            return windows.parts(text, ask, codec)
        left = windows.truncate(text, ask, codec)
        return [windows.Window(left.text, left.tokens)]

    return Asked([ask(piece.text) for piece in pieces], weights, state=_Reduce(cut_up, ask, sum(weights), 1))


def _refined(text: str, params: SummarizeParams, codec: Codec) -> Asked:
    """The first part by itself; each of the others leaves room for a summary as long as one may be."""
    first, ask = _asking(params, codec), _asking_on(params, codec)
    room = codec.room(ask("", ""))
    longest = _sampling(params, codec).max_new_tokens or codec.in_force.get("max_new_tokens") or room
    pieces = windows.parts(text, first, codec, limit=max(room - min(longest, int(room * SHARE)), 1))
    tokens = tuple(piece.tokens for piece in pieces)
    return Asked([first(pieces[0].text)], tokens, state=_Refine(ask, tuple(piece.text for piece in pieces[1:])))


def _postprocess(
    item: SummarizeItem, asked: Asked, outcomes: Sequence[Outcome], params: SummarizeParams
) -> SummarizeOutput | More:
    if isinstance(asked.state, _Refine):
        return _next_part(first_text(outcomes[0]), finish_reason(outcomes), asked.state)
    summaries = [first_text(outcome) for outcome in outcomes]
    state: _Reduce | None = asked.state
    reason = "length" if state is not None and state.finish_reason == "length" else finish_reason(outcomes)
    joined = "\n".join(summary for summary in summaries if summary)
    if state is None or len(summaries) == 1 or not joined:
        return SummarizeOutput(summary_text=joined, finish_reason=reason)
    return _next_round(joined, replace(state, finish_reason=reason))


def _next_part(summary: str, reason: FinishReason, state: _Refine) -> SummarizeOutput | More:
    """The summary of all so far goes on beside the next part."""
    reason = "length" if state.finish_reason == "length" else reason
    if not state.left:
        return SummarizeOutput(summary_text=summary, finish_reason=reason)
    request = state.ask(summary, state.left[0])
    return More([request], state=replace(state, left=state.left[1:], finish_reason=reason))


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


def _asking_on(params: SummarizeParams, codec: Codec) -> Callable[[str, str], Generate]:
    """How a part is put to the model beside the summary of those before it, which is cut where both do not fit. A model
    that is not told in words what to do reads one behind the other."""
    told = codec.has_chat_template and params.prompt is None
    words, sampling = LENGTHS[params.length or "medium"].words, _sampling(params, codec)
    plain = _asking(params, codec)

    def put(summary: str, text: str) -> Generate:
        if not told:
            return plain(f"{summary}\n\n{text}" if summary else text)
        values = {"length": words, "summary": summary}
        said = phrase(codec, "summarize", default=REFINE, override=REFINE, values=values)(text)
        return Generate(**said, sampling=sampling, seed=params.seed)

    def ask(summary: str, text: str) -> Generate:
        request = put(summary, text)
        if codec.room(request) >= 0 or not summary.strip():
            return request
        return put(windows.truncate(summary, lambda cut: put(cut, text), codec).text, text)

    return ask


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
    text=lambda output: output["summary_text"],
)
