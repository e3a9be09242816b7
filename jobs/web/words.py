"""Numbers and times that read well, as filters of templates."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from jobs.durations import duration

SIZES = ("bytes", "kB", "MB", "GB", "TB")
STEPS = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


def count(number: float, noun: str = "") -> str:
    """`1,234,567`; with a noun `1 job`, `2 jobs`."""
    text = f"{number:,.0f}"
    return f"{text} {noun}{'' if round(number) == 1 else 's'}" if noun else text


def short(number: float) -> str:
    """`12.3 k`, `4.5 M`: three digits."""
    if 0 < number < 0.001:
        return "< 0.001"
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= size * 0.9995:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


def rate(per_s: float, noun: str = "") -> str:
    """`12.3 k items/s`, or without a noun `12.3 k/s`."""
    return f"{short(per_s)}{' ' if noun else ''}{noun}/s"


def size(number: float) -> str:
    """`2.1 GB`, in thousands."""
    for unit in SIZES:
        if number < 999.5 or unit == SIZES[-1]:
            return f"{number:.3g} {unit}" if number != 1 or unit != SIZES[0] else "1 byte"
        number /= 1000
    raise AssertionError


def percent(share: float) -> str:
    """`41.5 %`; all and nothing are said only when they are meant exactly."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    if 0.999 < share < 1:
        return "> 99.9 %"
    return f"{share * 100:.3g} %"


def ago(moment: datetime, now: datetime | None = None) -> Markup:
    """`5 min ago`, `in 2 h`, with the exact time to be looked at."""
    seconds = ((now or datetime.now(UTC)) - moment).total_seconds()
    size, unit = _step(abs(seconds))
    whole = round(abs(seconds) / size)
    text = "now" if not whole else f"{whole} {unit} ago" if seconds > 0 else f"in {whole} {unit}"
    exact = moment.astimezone(UTC)
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        exact.isoformat(timespec="seconds"), f"{exact:%Y-%m-%d %H:%M:%S} UTC", text
    )


def _step(seconds: float) -> tuple[float, str]:
    """The unit to tell it in, by what it is when rounded: an hour less a second is not 60 min."""
    for step, (below, _) in pairwise(STEPS):
        if round(seconds / below) * below >= step[0]:
            return step
    return STEPS[-1]


FILTERS: Mapping[str, Callable[..., Any]] = {
    "count": count,
    "rate": rate,
    "duration": duration,
    "bytes": size,
    "percent": percent,
    "ago": ago,
}
"""By the names that templates use."""
