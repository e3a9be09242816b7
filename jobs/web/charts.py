"""Charts as SVG, drawn on the server: no style of their own, so that the page's colours and its policy hold.

pygal writes styles and scripts into its pictures, leather fixed colours: neither fits a page that allows no inline
style and follows the reader's light or dark.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from jobs.store.overview import BUCKETS
from jobs.web import words

if TYPE_CHECKING:
    from jobs.schemas import ScheduleRun
    from jobs.store.insight import Cell, Phase, Piece
    from jobs.store.overview import Bucket

WIDTH = 960
SERIES = 8
"""Colours there are; further tasks are drawn as one."""
LEFT, RIGHT, TOP, BOTTOM = 56, 8, 8, 22
HEIGHT = 180
HOURS = {"1h": 1, "24h": 24, "7d": 168}
STRIP_HEIGHT = 26
WORST = ("running", "pending", "held", "cancelled", "done")
"""Which state a cell of several chunks shows, unless one of them has failed items."""
SCALES = {"bleu": 100.0, "chrf": 100.0}


def progress(ok: int, error: int, total: int) -> Markup:
    """A bar of what is done: ok, failed, and what is left."""
    done = ok + error
    said = f"{words.count(ok)} ok, {words.count(error)} failed, {words.count(max(total - done, 0))} to be done"
    good = 100 * ok / total if total else 0
    bad = 100 * error / total if total else 0
    bad = max(bad, 0.5) if error else 0
    return _svg(
        "bar",
        (100, 6),
        said,
        f'<rect class="rest" width="100" height="6"/><rect class="ok" width="{good:.2f}" height="6"/>'
        f'<rect class="bad" x="{min(good, 100 - bad):.2f}" width="{bad:.2f}" height="6"/>',
        stretch=True,
    )


def throughput(buckets: "Sequence[Bucket]", span: str, now: datetime | None = None) -> Markup:
    """Items by task over the last hour, day or week, as stacked bars; the same as a table below."""
    hours = HOURS[span]
    size = hours * 3600 // BUCKETS[hours]
    last = int((now or datetime.now(UTC)).timestamp()) // size
    starts = [datetime.fromtimestamp(at * size, UTC) for at in range(last - BUCKETS[hours] + 1, last + 1)]
    sums: dict[str, int] = {}
    for bucket in buckets:
        sums[bucket.task] = sums.get(bucket.task, 0) + bucket.items
    tasks = sorted(sums, key=lambda task: -sums[task])
    shown = tasks if len(tasks) <= SERIES else [*tasks[: SERIES - 1], "others"]
    heights: dict[datetime, dict[str, float]] = {start: {} for start in starts}
    for bucket in buckets:
        if (column := heights.get(bucket.start_at)) is not None:
            name = bucket.task if bucket.task in shown else "others"
            column[name] = column.get(name, 0.0) + bucket.items / size
    form = "%H:%M" if hours <= 24 else "%a %d"
    drawn = _stacked(starts, heights, shown, form)
    said = "; ".join(f"{task} {words.count(sums[task], 'item')}" for task in tasks)
    picture = _svg("chart", (WIDTH, HEIGHT), f"Items a second over the last {span}: {said}", drawn)
    rows = Markup("").join(
        Markup("<tr><td>{}<td>{}<td class=n>{}<td class=n>{}<td class=n>{}</tr>").format(
            f"{each.start_at:%Y-%m-%d %H:%M}",
            each.task,
            words.count(each.items),
            words.count(each.errors),
            words.count(each.tokens),
        )
        for each in buckets
    )
    table = Markup(
        "<details><summary>As a table</summary><div class=wide tabindex=0><table><thead><tr><th>From, UTC<th>Task<th class=n>Items"
        "<th class=n>Failed<th class=n>Tokens</tr></thead><tbody>{}</tbody></table></div></details>"
    ).format(rows)
    return _scrolled(picture) + _legend([(f"series-{at}", task) for at, task in enumerate(shown, 1)]) + table


def pace(pieces: "Sequence[Piece]") -> Markup:
    """Items a piece of time in the life of a job."""
    top = max(piece.items for piece in pieces)
    first, last = pieces[0].start_at, pieces[-1].start_at
    steps = sorted({(b.start_at - a.start_at) for a, b in zip(pieces, pieces[1:], strict=False)})
    size = steps[0] if steps else timedelta(seconds=1)
    columns = round((last - first) / size) + 1
    wide = WIDTH / max(columns, 12)
    bars = "".join(
        f'<rect class="series-1" x="{round((each.start_at - first) / size) * wide:.1f}" y="{60 - 56 * each.items / top:.1f}" '
        f'width="{max(wide - 1, 0.5):.1f}" height="{56 * each.items / top:.1f}"/>'
        for each in pieces
    )
    best = words.rate(top / max(size.total_seconds(), 1.0), "items")
    return _scrolled(_svg("chart", (WIDTH, 62), f"Items over time, at best {best}", bars)) + Markup(
        '<p class="muted small">{} to {} UTC, at best {}</p>'
    ).format(f"{first:%H:%M:%S}", f"{last + size:%H:%M:%S}", best)


def timeline(phases: "Sequence[Phase]", now: datetime | None = None) -> Markup:
    """How long a job was in each phase, as one bar with its parts named below."""
    moment = now or datetime.now(UTC)
    times = [(phase.name, max(((phase.end_at or moment) - phase.start_at).total_seconds(), 0.0)) for phase in phases]
    whole = sum(seconds for _, seconds in times) or 1.0
    x, parts = 0.0, list[str]()
    for name, seconds in times:
        wide = WIDTH * seconds / whole
        parts.append(f'<rect class="phase-{name}" x="{x:.1f}" width="{wide:.1f}" height="14"/>')
        x += wide
    said = ", ".join(f"{name} {words.duration(seconds)}" for name, seconds in times)
    legend = [(f"phase-{name}", f"{name} {words.duration(seconds)}") for name, seconds in times]
    return _svg("bar", (WIDTH, 14), said, "".join(parts), stretch=True) + _legend(legend)


def strip(cells: "Sequence[Cell]") -> Markup:
    """The chunks of a job in the order of its items, a cell for each or for some neighbours."""
    wide = WIDTH / len(cells)
    gap = 1 if wide > 4 else 0.25
    drawn, seen = list[str](), dict[str, int]()
    for at, cell in enumerate(cells):
        kind = "bad" if cell.n_error else next(state for state in WORST if state in cell.states)
        seen[kind] = seen.get(kind, 0) + 1
        said = ", ".join(f"{count} {state}" for state, count in cell.states.items())
        failed = f", {words.count(cell.n_error)} failed" if cell.n_error else ""
        title = f"items {words.count(cell.seq_lo)} to {words.count(cell.seq_hi - 1)}: {said}{failed}, tried {cell.tries} times"
        drawn.append(
            f'<rect class="chunk-{kind}" x="{at * wide:.2f}" width="{wide - gap:.2f}" height="{STRIP_HEIGHT}">'
            f"<title>{escape(title)}</title></rect>"
        )
    names = {"bad": "done, with failed items", "held": "resting", "pending": "waiting"}
    legend = [(f"chunk-{kind}", f"{names.get(kind, kind)} {count}") for kind, count in seen.items()]
    said = ", ".join(text for _, text in legend)
    return _svg("bar", (WIDTH, STRIP_HEIGHT), said, "".join(drawn), stretch=True) + _legend(legend)


def runs(found: "Sequence[ScheduleRun]") -> Markup:
    """The runs of a schedule, given the last one first and drawn last: as high as they had items, coloured by outcome."""
    most = max((run.n_items or 0 for run in found), default=0) or 1
    bars = list[str]()
    for at, run in enumerate(reversed(found)):
        high = 4 + 20 * (run.n_items or 0) / most
        items = words.count(run.n_items, "item") if run.n_items else "no items"
        title = escape(f"{run.due_at:%Y-%m-%d %H:%M} UTC: {run.state}, {items}")
        bars.append(
            f'<rect class="run-{run.state}" x="{at * 7}" y="{26 - high:.1f}" width="5" height="{high:.1f}"><title>{title}</title></rect>'
        )
    said = f"the last {words.count(len(found), 'run')}"
    return _svg("runs", (max(7 * len(found), 7), 26), said, "".join(bars))


def label_bar(share: float, said: str) -> Markup:
    """A score between 0 and 1 as a bar."""
    wide = 100 * min(max(share, 0.0), 1.0)
    return _svg(
        "bar score",
        (100, 6),
        said,
        f'<rect class="rest" width="100" height="6"/><rect class="series-1" width="{wide:.1f}" height="6"/>',
        stretch=True,
    )


def sparkline(values: Sequence[float]) -> Markup:
    """Numbers around zero as a line of bars."""
    most = max(map(abs, values), default=0.0) or 1.0
    wide = 240 / max(len(values), 1)
    bars = "".join(
        f'<rect class="series-1" x="{at * wide:.2f}" y="{14 - max(value, 0) / most * 14:.2f}" width="{max(wide - 0.4, 0.3):.2f}" height="{max(abs(value) / most * 14, 0.3):.2f}"/>'
        for at, value in enumerate(values)
    )
    return _svg("spark", (240, 28), f"{len(values)} numbers", bars)


def figures(found: Mapping[str, Mapping[str, Any]]) -> Markup:
    """Figures of an evaluation with their intervals."""
    rows, top = list[str](), 0
    for name, figure in found.items():
        scale, value = SCALES.get(name, 1.0), float(figure["value"])
        x, wide = 150, 440
        rows.append(f'<text class="name" x="{x - 10}" y="{top + 14}" text-anchor="end">{escape(name)}</text>')
        rows.append(f'<rect class="rest" x="{x}" y="{top + 2}" width="{wide}" height="15"/>')
        rows.append(
            f'<rect class="series-1" x="{x}" y="{top + 2}" width="{wide * min(max(value / scale, 0), 1):.1f}" height="15"/>'
        )
        if (interval := figure.get("interval_95")) is not None:
            low, high = (x + wide * min(max(each / scale, 0), 1) for each in interval)
            rows.append(
                f'<path class="whisker" d="M{low:.1f} {top + 9.5}H{high:.1f}M{low:.1f} {top + 5.5}v8M{high:.1f} {top + 5.5}v8"/>'
            )
        rows.append(f'<text x="{x + wide + 10}" y="{top + 14}">{value:.3f}</text>')
        top += 26
    said = ", ".join(f"{name} {figure['value']:.3f}" for name, figure in found.items())
    return _svg("chart", (WIDTH, max(top, 1)), said, "".join(rows))


def confusion(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> Markup:
    """Right answers down, found ones across; the fuller the colour, the larger the share of its row."""
    names = [*labels, "none"]
    head = Markup("").join(Markup("<th class=n>{}").format(name) for name in names)
    rows = Markup("")
    for name, row in zip(names, counts, strict=True):
        whole = sum(row) or 1
        cells = Markup("").join(
            Markup('<td class="n share-{}">{}').format(round(10 * each / whole), each or "") for each in row
        )
        rows += Markup("<tr><th>{}{}</tr>").format(name, cells)
    return Markup(
        '<div class="wide" tabindex="0"><table class="confusion"><thead><tr><th>{}</tr></thead><tbody>{}</tbody></table></div>'
    ).format(head, rows)


def _stacked(
    starts: Sequence[datetime], heights: Mapping[datetime, Mapping[str, float]], names: Sequence[str], form: str
) -> str:
    most = _round_up(max((sum(column.values()) for column in heights.values()), default=0.0) or 1.0)
    room, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    wide = room / len(starts)
    parts = list[str]()
    for share in (0.0, 0.5, 1.0):
        y = TOP + high * (1 - share)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        label = words.short(most * share)
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    every = max(1, len(starts) // 6)
    for at, start in enumerate(starts):
        x, y = LEFT + at * wide, float(TOP + high)
        if at % every == every // 2:
            parts.append(f'<text x="{x + wide / 2:.1f}" y="{HEIGHT - 6}" text-anchor="middle">{start:{form}}</text>')
        for number, name in enumerate(names, 1):
            if value := heights[start].get(name):
                tall = high * value / most
                y -= tall
                title = escape(f"{start:%H:%M} {name}: {words.rate(value, 'items')}")
                parts.append(
                    f'<rect class="series-{number}" x="{x:.1f}" y="{y:.1f}" width="{wide - 1:.1f}" height="{tall:.1f}">'
                    f"<title>{title}</title></rect>"
                )
    return "".join(parts)


def _round_up(value: float) -> float:
    """To 1, 2 or 5 with zeros."""
    size = 10.0 ** len(str(int(value))) if value >= 1 else 1.0
    return next(each for each in (size / 10, size / 5, size / 2, size) if each >= value)


def _scrolled(picture: Markup) -> Markup:
    """On narrow screens its end is seen, the rest by scrolling."""
    return Markup('<div class="wide latest" tabindex="0">{}</div>').format(picture)


def _legend(entries: Sequence[tuple[str, str]]) -> Markup:
    return Markup('<ul class="legend">{}</ul>').format(
        Markup("").join(
            Markup(
                '<li><svg class="key" viewBox="0 0 10 10" aria-hidden="true"><rect class="{}" width="10" height="10"/></svg> {}</li>'
            ).format(*each)
            for each in entries
        )
    )


def _svg(kind: str, box: tuple[float, float], said: str, drawn: str, *, stretch: bool = False) -> Markup:
    """`drawn`: made of numbers and escaped text alone."""
    shape = Markup(' preserveAspectRatio="none"') if stretch else ""
    return Markup('<svg class="{}" viewBox="0 0 {} {}" role="img" aria-label="{}"{}>{}</svg>').format(
        kind, box[0], box[1], said, shape, Markup(drawn)
    )
