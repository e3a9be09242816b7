"""One result beside its item, drawn for its task by the macro of that name in `outputs.html`; others as JSON."""

import json
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from markupsafe import Markup

from jobs.schemas import Result

SHOWN_CHARS = 1500
"""Of a text, at once; the rest is behind a fold."""
SPARKS = 64
"""Numbers of a vector that are drawn."""


class Piece(NamedTuple):
    """Some of a text, and the labels that lie on it."""

    text: str
    labels: tuple[str, ...]


def render(task: str, item: Mapping[str, Any], result: Result) -> Markup:
    """HTML of the item and what came of it. Never raises for an item or output of whatever shape."""
    from jobs.web.drawing import environment

    macros: Any = environment().get_template("outputs.html").module
    if result.error is not None:
        return Markup(macros.failed(item, result.error, _plain(item)))
    output = result.output or {}
    draw = getattr(macros, task, None)
    try:
        drawn = draw(item, output, result) if draw is not None else macros.other(_plain(item), _plain(output))
    except Exception:  # an output of another version of the task
        drawn = macros.other(_plain(item), _plain(output))
    return Markup(drawn)


def pieces(text: str, spans: Sequence[Mapping[str, Any]], label: str = "entity_group") -> list[Piece]:
    """The text, cut wherever a span (`start`, `end`, in characters) begins or ends."""
    whole = [(max(0, int(each["start"])), min(len(text), int(each["end"])), str(each.get(label, ""))) for each in spans]
    cuts = sorted({0, len(text), *(at for low, high, _ in whole for at in (low, high) if 0 <= at <= len(text))})
    return [
        Piece(text[low:high], tuple(name for start, end, name in whole if start <= low and high <= end))
        for low, high in pairwise(cuts)
    ]


def sparks(vector: Sequence[float] | Sequence[Sequence[float]]) -> tuple[list[float], int, int, float]:
    """Of a vector, or of the first of several: some numbers to be drawn, how many it has, how many vectors there are,
    its length."""
    first: Any = vector[0] if vector and isinstance(vector[0], list) else vector
    count = len(vector) if first is not vector else 1
    step = max(1, len(first) // SPARKS)
    return (
        [float(each) for each in first[::step]][:SPARKS],
        len(first),
        count,
        math.sqrt(sum(each * each for each in first)),
    )


def _plain(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)
