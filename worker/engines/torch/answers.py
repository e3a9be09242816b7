"""Generated ids as what the port returns: where a row ends, how it reads, what it counts."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jobs.errors import ItemErrorCode
from jobs.tasks.base import Failed, Generated, Outcome, Sample
from worker.engines.base import Work
from worker.engines.torch.generation import Ask

TAIL = 6
"""Prompt tokens that generated ones are decoded behind, so that a space between the two is not lost."""

Decode = Callable[[Sequence[int]], str]


class Row(NamedTuple):
    """One generated row: its ids without padding and end, the tokens the model made, and whether it ended itself."""

    ids: list[int]
    tokens: int
    ended: bool


def end_tokens(config: Any) -> frozenset[int]:
    """The tokens that end a text, of which a configuration names none, one or several."""
    ends = config.eos_token_id
    return frozenset(ends if isinstance(ends, list) else [] if ends is None else [ends])


def row_of(ids: Sequence[int], ends: frozenset[int]) -> Row:
    """The row up to its end."""
    end = next((at for at, number in enumerate(ids) if number in ends), None)
    return Row(list(ids), len(ids), False) if end is None else Row(list(ids[:end]), end + 1, True)


def read_behind(decode: Decode, prompt: Sequence[int], ids: list[int]) -> str:
    """What was generated, as it reads behind the prompt."""
    tail = prompt[-TAIL:]
    before, both = decode(tail), decode([*tail, *ids])
    return both[len(before) :] if both.startswith(before) else decode(ids)


def stop_columns(stop: Sequence[str]) -> int:
    """How many of the last tokens may hold one of these strings: a token is at least a byte of the text; a few more,
    for a string that begins inside a token."""
    return max(len(each.encode()) for each in stop) + 8


def has_stopped(decode: Decode, ids: Sequence[int], stop: Sequence[str], *, prompt: Sequence[int] = ()) -> bool:
    """Whether one of the strings appears at the end of the text generated so far, as it reads behind the prompt."""
    columns = stop_columns(stop)
    tail = list(ids[-columns:])
    text = read_behind(decode, prompt, tail) if prompt and len(ids) <= columns else decode(tail)
    return any(each in text for each in stop)


def generated(item: Work, rows: Sequence[Row], text: Callable[[Ask, Row], str]) -> Outcome:
    """The outcome of a request, from a row for each sample."""
    ask: Ask = item.encoded.payload
    found = [_sample(text(ask, row), row, ask.stop) for row in rows]
    written = sum(row.tokens for row in rows)
    return Generated(tuple(found), input_tokens=item.encoded.length, output_tokens=written)


def not_a_number(item: Work) -> Failed:
    """The outcome of a request whose logits were NaN."""
    return Failed(ItemErrorCode.MODEL_ERROR, "the model returned NaN", input_tokens=item.encoded.length)


def seed_of(item: Work) -> int | None:
    """The seed of a generation."""
    request: Any = item.encoded.request
    seed: int | None = request.seed
    return seed


def _sample(text: str, row: Row, stop: tuple[str, ...]) -> Sample:
    ends = [text.index(each) for each in stop if each in text]
    if ends:
        return Sample(text[: min(ends)], "stop")
    return Sample(text, "stop" if row.ended else "length")
