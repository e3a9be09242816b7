"""Charts: what they show, that it can be read without seeing them, and that nothing in them is markup."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.schemas import ScheduleRun
from jobs.states import RunState
from jobs.store.insight import Cell, Pace, Phase
from jobs.store.overview import WIDTH_S, Bucket
from jobs.web import charts

NOW = datetime(2026, 11, 27, 12, 30, tzinfo=UTC)
STATIC = Path(charts.__file__).parent / "static"
EVIL = '"><script>alert(1)</script>'


def _pictures(html: str) -> list[ElementTree.Element]:
    """Every SVG in it, parsed."""
    return [ElementTree.fromstring(each) for each in re.findall(r"<svg.*?</svg>", html, re.DOTALL)]


def _widths(picture: ElementTree.Element, kind: str) -> list[float]:
    return [float(each.attrib["width"]) for each in picture if each.attrib.get("class") == kind]


def test_a_bar_shows_even_one_failure_of_a_million() -> None:
    [picture] = _pictures(charts.progress(999_999, 1, 1_000_000))

    assert picture.attrib["aria-label"] == "999,999 ok, 1 failed, 0 to be done"
    assert _widths(picture, "bad") == [0.5]


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9))
def test_a_bar_never_leaves_its_box(ok: int, error: int, left: int) -> None:
    [picture] = _pictures(charts.progress(ok, error, ok + error + left))

    for rect in picture:
        assert float(rect.attrib["x"]) >= 0
        assert float(rect.attrib["x"]) + float(rect.attrib["width"]) <= 100.01


@pytest.mark.parametrize("span", ["1h", "24h", "7d"])
def test_throughput_stacks_tasks_and_puts_many_into_one(span: str) -> None:
    size = timedelta(seconds=WIDTH_S[charts.HOURS[span]])
    start = datetime.fromtimestamp(int(NOW.timestamp()) // int(size.total_seconds()) * size.total_seconds(), UTC)
    buckets = [Bucket(start, f"task{at}", 100 - at, 0, 5) for at in range(12)] + [Bucket(start - size, EVIL, 1, 0, 1)]

    html = str(charts.throughput(buckets, span, NOW))

    picture = _pictures(html)[0]
    assert {each.attrib["class"] for each in picture if "series" in each.attrib.get("class", "")} == {
        f"series-{at}" for at in range(1, 9)
    }
    assert "others" in html
    assert "<script>" not in html


def test_the_tallest_column_fits_under_its_scale() -> None:
    [picture, *_] = _pictures(charts.throughput([Bucket(NOW.replace(minute=30), "ner", 7_777_777, 0, 1)], "1h", NOW))

    assert all(float(each.attrib["y"]) >= charts.TOP for each in picture if each.tag == "rect")


def test_a_strip_shows_failures_before_anything_else() -> None:
    cells = [
        Cell(0, 256, {"done": 1}, 255, 1, 1),
        Cell(256, 512, {"done": 3, "running": 1}, 100, 0, 2),
        Cell(512, 768, {"pending": 1}, 0, 0, 0),
    ]

    [picture, *_] = _pictures(charts.strip(cells))

    assert [each.attrib["class"] for each in picture] == ["chunk-bad", "chunk-running", "chunk-pending"]
    assert picture[1][0].text == "items 256 to 511: 3 done, 1 running, tried 2 times"


def test_a_timeline_divides_a_life() -> None:
    phases = [
        Phase("waiting", NOW - timedelta(seconds=40), NOW - timedelta(seconds=10)),
        Phase("running", NOW - timedelta(seconds=10), None),
    ]

    [picture, *_] = _pictures(charts.timeline(phases, NOW))

    assert picture.attrib["aria-label"] == "waiting 30 s, running 10 s"
    assert _widths(picture, "phase-waiting") == [charts.WIDTH * 0.75]


def test_pace_leaves_gaps_where_nothing_was_done() -> None:
    pieces = [Pace(NOW + timedelta(seconds=each), 10, 1) for each in (0, 1, 100)]

    [picture] = _pictures(charts.pace(pieces))

    xs = [float(each.attrib["x"]) for each in picture]
    assert xs[2] - xs[1] > 50 * (xs[1] - xs[0])


def test_runs_are_drawn_the_last_one_right() -> None:
    made = [
        ScheduleRun(
            id=at,
            schedule_id="s",
            due_at=NOW,
            state=state,
            created_at=NOW,
            ended_at=None,
            job_id=None,
            n_items=items,
            note=None,
        )
        for at, (state, items) in enumerate([(RunState.SUBMITTED, 100), (RunState.EMPTY, None)])
    ]

    [picture] = _pictures(charts.runs(made))

    assert [each.attrib["class"] for each in picture] == ["run-empty", "run-submitted"]
    assert picture.attrib["aria-label"] == "the last 2 runs: 1 submitted, 1 empty"


def test_figures_carry_their_intervals() -> None:
    [picture] = _pictures(
        charts.figures(
            {"accuracy": {"value": 0.8, "interval_95": [0.7, 0.9]}, "bleu": {"value": 31.0, "interval_95": None}}
        )
    )

    assert picture.attrib["aria-label"] == "accuracy 0.800, bleu 31.000"
    assert sum(each.attrib.get("class") == "whisker" for each in picture) == 1


def test_an_axis_names_round_times_and_round_numbers() -> None:
    late = NOW.replace(hour=12, minute=37, second=41)

    labels = {
        span: [each.text for each in _pictures(charts.throughput([], span, late))[0] if each.tag == "text"]
        for span in charts.HOURS
    }

    assert labels["1h"] == ["0", "0.5", "1", "11:40", "11:50", "12:00", "12:10", "12:20", "12:30"]
    assert labels["24h"][3:] == ["16:00", "20:00", "00:00", "04:00", "08:00", "12:00"]
    assert labels["7d"][3:] == ["Sat 21", "Sun 22", "Mon 23", "Tue 24", "Wed 25", "Thu 26", "Fri 27"]


@pytest.mark.parametrize("items", [1, 7, 999, 1000, 1001, 10**9])
def test_columns_fill_at_least_two_fifths_of_their_scale(items: int) -> None:
    [picture, *_] = _pictures(charts.throughput([Bucket(NOW, "ner", items, 0, 1)], "1h", NOW))

    [column] = [each for each in picture if each.tag == "rect"]
    room = charts.HEIGHT - charts.TOP - charts.BOTTOM
    assert 0.39 * room <= float(column.attrib["height"]) <= room + 0.01


def test_the_shortest_phase_is_still_seen() -> None:
    phases = [Phase("waiting", NOW - timedelta(days=2), NOW), Phase("running", NOW, NOW + timedelta(seconds=1))]

    [picture, *_] = _pictures(charts.timeline(phases, NOW))

    assert _widths(picture, "phase-running")[0] > 3
    assert sum(float(each.attrib["width"]) for each in picture) == pytest.approx(charts.WIDTH, abs=0.1)


def test_pictures_are_told_in_words_and_tables() -> None:
    table = str(charts.pace([Pace(NOW, 1234, 56_789)]))
    [runs] = _pictures(charts.runs([]))
    throughput = str(charts.throughput([Bucket(NOW, EVIL, 1234, 5, 6)], "1h", NOW))

    assert '<td>2026-11-27 12:30:00<td class="n">1,234<td class="n">56,789</tr>' in table
    assert runs.attrib["role"] == "img"
    assert "<td>&#34;&gt;&lt;script&gt;alert(1)&lt;/script&gt;<td" in throughput


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_colour_stands_out_from_the_card(scheme: str) -> None:
    """WCAG 1.4.11: 3 to 1 for what a picture is read by; 1.4.3: 4.5 to 1 for words."""
    colours = _colours(scheme)

    for name in ("ok", "bad", *(f"series-{at}" for at in range(1, charts.SERIES + 1))):
        assert _contrast(colours[name], colours["card"]) >= 3, name
    assert _contrast(colours["muted"], colours["card"]) >= 4.5
    assert _contrast(colours["mark-ink"], colours["mark"]) >= 4.5
    assert _contrast(colours["ok"], colours["rest"]) >= 3
    assert _contrast(colours["bad"], colours["rest"]) >= 3


def _colours(scheme: str) -> dict[str, str]:
    """The custom properties in force."""
    css = "".join((STATIC / name).read_text("utf-8") for name in ("app.css", "rendering.css"))
    found = re.findall(r"(prefers-color-scheme: dark\) \{\s*)?:root \{(.*?)\}", css, re.DOTALL)
    blocks = [body for dark, body in sorted(found) if scheme == "dark" or not dark]
    return dict(re.findall(r"--([\w-]+): #(\w+)", " ".join(blocks)))


def _contrast(one: str, other: str) -> float:
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    """Relative, as WCAG 2.2 defines it."""
    whole = "".join(2 * each for each in colour) if len(colour) == 3 else colour
    shares = [int(whole[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
