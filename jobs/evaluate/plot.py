"""A report as a picture: figures with their intervals, and the confusion of labels, as SVG."""

from collections.abc import Iterator
from html import escape

from jobs.evaluate.report import Report

LEFT, WIDTH, ROW = 170, 460, 26
CELL, MOST_CELLS = 34, 20
"""Labels of which a confusion is drawn."""
FONT = 'font-family="system-ui, sans-serif" font-size="13"'


def svg(report: Report, title: str) -> str:
    """The picture. Figures run from 0 to 1, BLEU and chrF from 0 to 100."""
    top = 64 + ROW * len(report.figures)
    drawn = report.confusion is not None and len(report.labels) <= MOST_CELLS
    side = CELL * (len(report.labels) + 1) if drawn else 0
    width, height = max(LEFT + WIDTH + 90, LEFT + side + 40), top + (side + 150 if drawn else 20)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" {FONT}>',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="16" y="28" font-size="16" font-weight="600" fill="#111">{escape(title)}</text>',
        *_figures(report),
        *(_confusion(report, top + 110) if drawn else ()),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _figures(report: Report) -> Iterator[str]:
    for at, (name, value) in enumerate(report.figures.items()):
        y, scale = 54 + ROW * at, 100.0 if name in ("bleu", "chrf") else 1.0
        bold = ' font-weight="600"' if name == report.main else ""
        yield f'<text x="{LEFT - 10}" y="{y + 13}" text-anchor="end" fill="#333"{bold}>{escape(name)}</text>'
        yield f'<rect x="{LEFT}" y="{y}" width="{WIDTH}" height="16" fill="#eef1f4"/>'
        yield f'<rect x="{LEFT}" y="{y}" width="{WIDTH * value / scale:.1f}" height="16" fill="#3b7dd8"/>'
        if name in report.intervals:
            low, high = (LEFT + WIDTH * each / scale for each in report.intervals[name])
            yield f'<path d="M{low:.1f} {y + 8}H{high:.1f}M{low:.1f} {y + 4}v8M{high:.1f} {y + 4}v8" stroke="#111"/>'
        yield f'<text x="{LEFT + WIDTH + 10}" y="{y + 13}" fill="#111">{value:.3f}</text>'


def _confusion(report: Report, top: int) -> Iterator[str]:
    """Gold labels down, found ones across; each row's shares as shades."""
    names = [*report.labels, "none"]
    yield f'<text x="16" y="{top - 88}" fill="#333">gold (rows) and found (columns)</text>'
    for row, (name, counts) in enumerate(zip(names, report.confusion or (), strict=True)):
        y, whole = top + CELL * row, sum(counts)
        yield f'<text x="{LEFT - 10}" y="{y + 21}" text-anchor="end" fill="#333">{escape(name[:22])}</text>'
        x = LEFT + CELL * row + 20
        yield f'<text transform="translate({x} {top - 6}) rotate(-45)" fill="#333">{escape(name[:14])}</text>'
        for column, count in enumerate(counts):
            share = count / whole if whole else 0.0
            left = LEFT + CELL * column
            fill = f"rgb({round(255 - 196 * share)},{round(255 - 130 * share)},{round(255 - 39 * share)})"
            yield f'<rect x="{left}" y="{y}" width="{CELL - 1}" height="{CELL - 1}" fill="{fill}" stroke="#dde"/>'
            if count:
                ink = "#fff" if share > 0.5 else "#111"
                yield f'<text x="{left + CELL / 2}" y="{y + 21}" text-anchor="middle" fill="{ink}">{count}</text>'
