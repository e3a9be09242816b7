"""One result beside its item, drawn for its task by the macro of that name in `outputs.html`; others as JSON."""

import json
import logging
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from markupsafe import Markup

from jobs.errors import MEANINGS
from jobs.schemas import Result
from jobs.tasks.languages import NAMES, english_name

DRAWN = (
    "classify",
    "detect_language",
    "embed",
    "fill_mask",
    "generate",
    "ner",
    "qa",
    "rerank",
    "summarize",
    "translate",
    "zero_shot",
)
"""Tasks that `outputs.html` has a macro for; those of other distributions are shown as JSON."""
SHOWN_CHARS = 1500
"""Of a text, at once; the rest is behind a fold."""
LABEL_CHARS = 200
"""Of a label beside its bar; the rest is behind a fold, or stands in the text anyway."""
MOST_SPANS = 1000
"""Entities that are marked in one text."""
SPARKS = 64
"""Numbers of a vector that are drawn."""
KINDS = 8
"""Colours of marks; with more labels they recur."""
UNSPACED = 15
"""Characters a word from which on a text's words are not told apart by spaces."""

_CODES = {name: code for code, name in NAMES.items()}
_SUBTAG = re.compile("[A-Za-z]{2}|[A-Za-z]{4}")
_log = logging.getLogger(__name__)


class Piece(NamedTuple):
    """Some of a text, on which the same spans lie."""

    text: str
    kind: int
    """The colour of the innermost span's label, from 1; 0: no span lies on it."""
    ended: tuple[str, ...]
    """Labels of the spans that end with it, the innermost first."""


class Marked(NamedTuple):
    """A text in three parts, the middle of which is shown at once."""

    before: list[Piece]
    shown: list[Piece]
    after: list[Piece]
    hidden: tuple[int, int]
    """Characters of the first and of the last part."""
    left_out: int
    """Spans that are not marked: there are too many, or they are no place in the text."""


def render(task: str, item: Mapping[str, Any], result: Result, params: Mapping[str, Any] | None = None) -> Markup:
    """HTML of the item and what came of it. Never raises for an item or output of whatever shape. `params`: the job's,
    which say what an output does not (the language translated to)."""
    from jobs.web.drawing import environment

    macros: Any = environment().get_template("outputs.html").module
    if result.error is not None:
        code = result.error.code
        return Markup(macros.failed(result, MEANINGS[code], _plain(item)))
    output = result.output or {}
    if task in DRAWN:
        given = {**(params or {}), **(item.get("params") or {})}
        try:
            return Markup(getattr(macros, task)(item, output, result, given))
        except Exception:  # the output of another version of the task
            _log.debug("a result of %s is shown as JSON: it has not the shape that is known", task, exc_info=True)
    return Markup(macros.other(_plain(item), _plain(output)))


def marked(
    text: str, spans: Sequence[Mapping[str, Any]], label: str, word: str, around: Mapping[str, Any] | None = None
) -> Marked:
    """The text, cut wherever a span (`start`, `end`, in characters) begins or ends. `label` and `word`: what of a span
    says its label, and what stands there. What is shown at once is the text's beginning, or lies around one span."""
    placed = [each for each in spans if _placed(text, each, word)][:MOST_SPANS]
    low, high = _in_view(text, around if around and _placed(text, around, word) else None)
    before, shown, after = list[Piece](), list[Piece](), list[Piece]()
    at = 0
    for piece in _pieces(text, [(each["start"], each["end"], str(each[label])) for each in placed], {low, high}):
        (before if at < low else shown if at < high else after).append(piece)
        at += len(piece.text)
    return Marked(before, shown, after, (low, len(text) - high), len(spans) - len(placed))


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


def scale(rows: Sequence[Mapping[str, Any]]) -> float:
    """The score that fills a bar: 1, or the largest of scores that are no probabilities."""
    return max([1.0, *(float(each["score"] or 0) for each in rows)])


def lengths(before: str, after: str) -> tuple[int, int, str]:
    """How long two texts are, and in what: words, or characters where a text does not part its words by spaces."""
    counts = len(before.split()), len(after.split())
    if any(len(text) > UNSPACED * max(count, 1) for text, count in zip((before, after), counts, strict=True)):
        return len(before), len(after), "character"
    return *counts, "word"


def lang(language: str | None) -> str:
    """A language as HTML names it (BCP 47): `ko-Hang` for `kor_Hang`, `de` for `German`; empty: nobody knows it."""
    base, *rest = re.split("[-_]", language or "")
    code = _CODES.get(english_name(base) or "", "")
    return "-".join((code, *filter(_SUBTAG.fullmatch, rest[:2]))) if code else ""


def structured(text: str) -> str | None:
    """The text as readable JSON, if it is an object or a list; else None."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return _plain(json.loads(text))
    except (ValueError, RecursionError):
        return None


def _placed(text: str, span: Mapping[str, Any], word: str) -> bool:
    """Whether the span is where it says: another program may count bytes."""
    start, end = span["start"], span["end"]
    return start is not None and 0 <= start < end <= len(text) and text[start:end] == span[word]


def _in_view(text: str, span: Mapping[str, Any] | None) -> tuple[int, int]:
    """Which characters are shown at once: the first ones, or those around the span."""
    if span is None or span["end"] <= SHOWN_CHARS:
        return 0, min(len(text), SHOWN_CHARS)
    low = max(0, int(span["start"]) - SHOWN_CHARS // 2)
    return low, min(len(text), max(low + SHOWN_CHARS, int(span["end"])))


def _pieces(text: str, spans: Sequence[tuple[int, int, str]], cuts: set[int]) -> list[Piece]:
    """One sweep over the borders of spans (start, end, label)."""
    kinds = {name: at % KINDS + 1 for at, name in enumerate(dict.fromkeys(name for *_, name in spans))}
    begun, ended = defaultdict[int, list[int]](list), defaultdict[int, list[int]](list)
    for number, (start, end, _) in enumerate(inward := sorted(spans, key=lambda span: (span[0], -span[1]))):
        begun[start].append(number)
        ended[end].append(number)
    over, found = dict[int, str](), list[Piece]()
    for low, high in pairwise(sorted({0, len(text), *cuts, *begun, *ended})):
        for number in ended.get(low, ()):
            del over[number]
        over.update({number: inward[number][2] for number in begun.get(low, ())})
        kind = kinds[over[next(reversed(over))]] if over else 0
        names = dict.fromkeys(inward[number][2] for number in reversed(ended.get(high, ())))
        found.append(Piece(text[low:high], kind, tuple(names)))
    return found


def _plain(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)
