"""Charts as SVG, drawn on the server: no style of their own, so that the page's colours and its policy hold.

pygal writes styles and scripts into its pictures, leather fixed colours: neither fits a page that allows no inline
style and follows the reader's light or dark.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

from jobs.durations import duration
from jobs.store.overview import WIDTH_S
from jobs.web import words

if TYPE_CHECKING:
    from jobs.schemas import ScheduleRun
    from jobs.store.insight import Cell, Pace, Phase
    from jobs.store.overview import Bucket

WIDTH = 960
HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 180, 56, 8, 8, 22
"""Of a chart with axes, and its margins."""
LABEL, DAY_S = 24, 86_400
"""Room that a time needs at the right end of its axis."""
BAR, STRIP, PACE, RUN = 14, 26, 60, 26
"""Heights."""
LEAST = 0.004
"""Share of a timeline that the shortest phase is given, to be seen."""
SERIES = 8
"""Colours there are; further tasks are drawn as one."""
OTHERS = "others"
HOURS = {"1h": 1, "24h": 24, "7d": 168}
"""For which throughput is shown."""
TICK_S = {"1h": 600, "24h": 14_400, "7d": 86_400}
"""Seconds between the times that its axis names, which are round ones."""
SHOWN_FIRST = ("running", "pending", "held", "cancelled", "done")
"""Which state a cell of several chunks shows, unless one of them has failed items."""
CALLED = {"bad": "done, with failed items", "held": "resting", "pending": "waiting"}
SCALES = {"bleu": 100.0, "chrf": 100.0}
"""Figures that do not end at 1."""


class Rect(NamedTuple):
    """`kind`: the class that gives it its colour."""

    kind: str
    x: float
    y: float
    width: float
    height: float
    title: str = ""


class Label(NamedTuple):
    x: float
    y: float
    text: str
    anchor: str = "start"


class Line(NamedTuple):
    kind: str
    path: str


Shape = Rect | Label | Line


def progress(ok: int, error: int, total: int) -> Markup:
    """A bar of what is done: ok, failed, and what is left."""
    good, bad = (100 * count / total if total else 0.0 for count in (ok, error))
    bad = max(bad, 0.5) if error else 0.0  # one of a million is still to be seen
    said = f"{words.count(ok)} ok, {words.count(error)} failed, {words.count(max(total - ok - error, 0))} to be done"
    bars = [Rect("rest", 0, 0, 100, 6), Rect("ok", 0, 0, good, 6), Rect("bad", min(good, 100 - bad), 0, bad, 6)]
    return _svg("bar", (100, 6), said, bars, stretch=True)


def score(share: float, said: str) -> Markup:
    """A number between 0 and 1 as a bar."""
    bars = [Rect("rest", 0, 0, 100, 6), Rect("series-1", 0, 0, 100 * min(max(share, 0.0), 1.0), 6)]
    return _svg("bar", (100, 6), said, bars, stretch=True)


def throughput(buckets: "Sequence[Bucket]", span: str, now: datetime | None = None) -> Markup:
    """Items by task over the last hour, day or week, as stacked bars; the same as a table below."""
    size = WIDTH_S[HOURS[span]]
    pieces = HOURS[span] * 3600 // size
    last = int((now or datetime.now(UTC)).timestamp()) // size
    starts = [datetime.fromtimestamp(at * size, UTC) for at in range(last - pieces + 1, last + 1)]
    sums: dict[str, int] = {}
    for bucket in buckets:
        sums[bucket.task] = sums.get(bucket.task, 0) + bucket.items
    tasks = sorted(sums, key=lambda task: -sums[task])
    names = tasks if len(tasks) <= SERIES else [*tasks[: SERIES - 1], OTHERS]
    rates: dict[datetime, dict[str, float]] = {start: {} for start in starts}
    for bucket in buckets:
        if (column := rates.get(bucket.start_at)) is not None:
            name = bucket.task if bucket.task in names else OTHERS
            column[name] = column.get(name, 0.0) + bucket.items / size
    said = "; ".join(f"{task} {words.count(sums[task], 'item')}" for task in tasks)
    shapes = _stacked(rates, names, TICK_S[span])
    picture = _svg("chart", (WIDTH, HEIGHT), f"Items a second over the last {span}: {said}", shapes)
    legend = _legend([(f"series-{at}", name) for at, name in enumerate(names, 1)])
    rows = ((f"{start:%Y-%m-%d %H:%M}", *counted) for start, *counted in buckets)
    return _scrolled(picture) + legend + _table(("From, UTC", "Task"), ("Items", "Failed", "Tokens"), rows)


def pace(pieces: "Sequence[Pace]") -> Markup:
    """Items a piece of time in the life of a job."""
    first, last, top = pieces[0].start_at, pieces[-1].start_at, max(piece.items for piece in pieces) or 1
    size = min((after.start_at - before.start_at for before, after in pairwise(pieces)), default=timedelta(seconds=1))
    wide = WIDTH / max(round((last - first) / size) + 1, 12)
    bars = []
    for piece in pieces:
        tall = PACE * piece.items / top
        title = f"{piece.start_at:%H:%M:%S} UTC: {words.count(piece.items, 'item')}"
        bars.append(
            Rect(
                "series-1", round((piece.start_at - first) / size) * wide, PACE - tall, max(wide - 1, 0.5), tall, title
            )
        )
    best = words.rate(top / max(size.total_seconds(), 1.0), "items")
    about = Markup('<p class="muted small">{:%H:%M:%S} to {:%H:%M:%S} UTC, at best {}</p>').format(
        first, last + size, best
    )
    rows = ((f"{each.start_at:%Y-%m-%d %H:%M:%S}", each.items, each.tokens) for each in pieces)
    picture = _scrolled(_svg("chart", (WIDTH, PACE), f"Items over time, at best {best}", bars))
    return picture + about + _table(("From, UTC",), ("Items", "Tokens"), rows)


def timeline(phases: "Sequence[Phase]", now: datetime | None = None) -> Markup:
    """How long a job was in each phase, as the parts of one bar."""
    moment = now or datetime.now(UTC)
    spans = [(each.name, ((each.end_at or moment) - each.start_at).total_seconds()) for each in phases]
    times = [(name, seconds) for name, seconds in spans if seconds > 0]
    whole, x, bars = sum(seconds for _, seconds in times), 0.0, list[Rect]()
    shares = [(name, max(seconds / whole, LEAST)) for name, seconds in times]
    room = sum(share for _, share in shares)
    for name, share in shares:
        bars.append(Rect(f"phase-{name}", x, 0, WIDTH * share / room, BAR))
        x += bars[-1].width
    named = [(f"phase-{name}", f"{name} {duration(seconds)}") for name, seconds in times]
    return _svg("bar", (WIDTH, BAR), ", ".join(text for _, text in named), bars, stretch=True) + _legend(named)


def strip(cells: "Sequence[Cell]") -> Markup:
    """The chunks of a job in the order of its items, a cell for each or for some neighbours."""
    wide = WIDTH / len(cells)
    seen, bars = dict[str, int](), list[Rect]()
    for at, cell in enumerate(cells):
        kind = "bad" if cell.n_error else next(state for state in SHOWN_FIRST if state in cell.states)
        seen[kind] = seen.get(kind, 0) + 1
        bars.append(Rect(f"chunk-{kind}", at * wide, 0, wide - min(1.0, wide / 8), STRIP, _told(cell)))
    named = [(f"chunk-{kind}", f"{CALLED.get(kind, kind)} {count}") for kind, count in seen.items()]
    return _svg("bar", (WIDTH, STRIP), ", ".join(text for _, text in named), bars, stretch=True) + _legend(named)


def runs(found: "Sequence[ScheduleRun]") -> Markup:
    """The runs of a schedule, given the last one first, drawn the last one right: as high as they had items."""
    most, bars = max((run.n_items or 0 for run in found), default=0) or 1, list[Rect]()
    for at, run in enumerate(reversed(found)):
        tall = 4 + (RUN - 6) * (run.n_items or 0) / most
        items = words.count(run.n_items, "item") if run.n_items else "no items"
        title = f"{run.due_at:%Y-%m-%d %H:%M} UTC: {run.state}, {items}"
        bars.append(Rect(f"run-{run.state}", at * 7, RUN - tall, 5, tall, title))
    ended = ", ".join(f"{count} {state}" for state, count in Counter(run.state for run in found).items())
    said = f"the last {words.count(len(found), 'run')}: {ended}"
    return _svg("runs", (max(7 * len(found), 7), RUN), said, bars)


def sparkline(values: Sequence[float]) -> Markup:
    """Numbers around zero as bars up and down."""
    most, wide = max(map(abs, values), default=0.0) or 1.0, 240 / max(len(values), 1)
    bars = [
        Rect("series-1", at * wide, 14 - max(value, 0.0) / most * 14, wide * 0.85, max(abs(value) / most * 14, 0.3))
        for at, value in enumerate(values)
    ]
    return _svg("spark", (240, 28), words.count(len(values), "number"), bars)


def figures(found: Mapping[str, Mapping[str, Any]]) -> Markup:
    """Figures of an evaluation with their intervals."""
    x, wide, shapes = 170, 640, list[Shape]()
    for at, (name, figure) in enumerate(found.items()):
        y, scale = 26 * at, SCALES.get(name, 1.0)
        value, *interval = (
            wide * min(max(each / scale, 0.0), 1.0) for each in (figure["value"], *(figure.get("interval_95") or ()))
        )
        shapes += [Label(x - 10, y + 14, name, "end"), Rect("rest", x, y + 2, wide, 15)]
        shapes += [Rect("series-1", x, y + 2, value, 15), Label(x + wide + 10, y + 14, f"{figure['value']:.3f}")]
        if interval:
            low, high = (x + each for each in interval)
            shapes.append(
                Line("whisker", f"M{low:.1f} {y + 9.5}H{high:.1f}M{low:.1f} {y + 5.5}v8M{high:.1f} {y + 5.5}v8")
            )
    said = ", ".join(f"{name} {figure['value']:.3f}" for name, figure in found.items())
    return _scrolled(_svg("chart", (WIDTH, max(26 * len(found), 1)), said, shapes), from_end=False)


def _told(cell: "Cell") -> str:
    states = ", ".join(f"{count} {state}" for state, count in cell.states.items())
    failed = f", {words.count(cell.n_error)} failed" if cell.n_error else ""
    span = f"items {words.count(cell.seq_lo)} to {words.count(cell.seq_hi - 1)}"
    return f"{span}: {states}{failed}, tried {words.count(cell.attempts, 'time')}"


def _stacked(rates: Mapping[datetime, Mapping[str, float]], names: Sequence[str], tick_s: int) -> Iterator[Shape]:
    """Columns over an axis of time, with what their height means at the left."""
    form = "%H:%M" if tick_s < DAY_S else "%a %d"
    most = _round_up(max((sum(column.values()) for column in rates.values()), default=0.0))
    tall, wide = HEIGHT - TOP - BOTTOM, (WIDTH - LEFT - RIGHT) / len(rates)
    for share in (0.0, 0.5, 1.0):
        y = TOP + tall * (1 - share)
        yield Line("grid", f"M{LEFT} {y:.1f}H{WIDTH - RIGHT}")
        yield Label(LEFT - 6, y + 4, words.short(most * share), "end")
    for at, (start, column) in enumerate(rates.items()):
        x, y = LEFT + at * wide, float(TOP + tall)
        if start.timestamp() % tick_s == 0:
            yield Line("grid", f"M{x:.1f} {TOP + tall}v5")
            if x < WIDTH - LABEL:
                yield Label(x, HEIGHT - 4, f"{start:{form}}", "middle")
        for number, name in enumerate(names, 1):
            if rate := column.get(name):
                y -= tall * rate / most
                title = f"{start:%a %H:%M} UTC, {name}: {words.rate(rate, 'items')}"
                yield Rect(f"series-{number}", x, y, wide - 1, tall * rate / most, title)


def _round_up(value: float) -> float:
    """To 1, 2 or 5 times a power of ten."""
    size = 10.0 ** math.floor(math.log10(value)) if value > 0 else 1.0
    return next(each for each in (size, 2 * size, 5 * size, 10 * size) if each >= value)


def _table(named: Sequence[str], counted: Sequence[str], rows: Iterable[Sequence[Any]]) -> Markup:
    """What a picture shows, to be read: columns of words, then columns of numbers."""
    heads = Markup("").join(Markup("<th>{}").format(each) for each in named)
    heads += Markup("").join(Markup('<th class="n">{}').format(each) for each in counted)
    row = Markup("<tr>" + "<td>{}" * len(named) + '<td class="n">{:,}' * len(counted) + "</tr>")
    return Markup(
        '<details><summary>As a table</summary><div class="wide" tabindex="0"><table><thead><tr>{}</tr></thead>'
        "<tbody>{}</tbody></table></div></details>"
    ).format(heads, Markup("").join(row.format(*each) for each in rows))


def _scrolled(picture: Markup, *, from_end: bool = True) -> Markup:
    """On narrow screens one end is seen, the present of a time axis, the rest by scrolling."""
    return Markup('<div class="wide{}" tabindex="0">{}</div>').format(" latest" if from_end else "", picture)


def _legend(named: Sequence[tuple[str, str]]) -> Markup:
    key = Markup('<li><svg class="key" viewBox="0 0 10 10" aria-hidden="true">{}</svg> {}</li>')
    entries = (key.format(_drawn(Rect(kind, 0, 0, 10, 10)), text) for kind, text in named)
    return Markup('<ul class="legend">{}</ul>').format(Markup("").join(entries))


def _svg(
    kind: str,
    box: tuple[float, float],
    said: str,
    shapes: "Sequence[Shape] | Iterator[Shape]",
    *,
    stretch: bool = False,
) -> Markup:
    """`said`: what it shows, for those who do not see it."""
    shape = Markup(' preserveAspectRatio="none"') if stretch else ""
    return Markup('<svg class="{}" viewBox="0 0 {} {}" role="img" aria-label="{}"{}>{}</svg>').format(
        kind, *box, said, shape, Markup("").join(map(_drawn, shapes))
    )


def _drawn(shape: Shape) -> Markup:
    if isinstance(shape, Line):
        return Markup('<path class="{}" d="{}"/>').format(*shape)
    if isinstance(shape, Label):
        return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
            shape.x, shape.y, shape.anchor, shape.text
        )
    title = Markup("<title>{}</title>").format(shape.title) if shape.title else ""
    return Markup('<rect class="{}" x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}">{}</rect>').format(
        *shape[:5], title
    )
