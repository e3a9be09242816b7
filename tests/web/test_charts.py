"""Charts and words: what they say, and that nothing in them is markup."""

import re
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.schemas import ScheduleRun
from jobs.states import RunState
from jobs.store.insight import Cell, Pace, Phase
from jobs.store.overview import WIDTH_S, Bucket
from jobs.web import charts, words

NOW = datetime(2026, 11, 27, 12, 30, tzinfo=UTC)
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


def test_figures_carry_their_intervals() -> None:
    [picture] = _pictures(
        charts.figures(
            {"accuracy": {"value": 0.8, "interval_95": [0.7, 0.9]}, "bleu": {"value": 31.0, "interval_95": None}}
        )
    )

    assert picture.attrib["aria-label"] == "accuracy 0.800, bleu 31.000"
    assert sum(each.attrib.get("class") == "whisker" for each in picture) == 1


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (0.44, "0.4 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (125, "2 min 5 s"),
        (3600, "1 h"),
        (93_784, "1 d 2 h"),
        (3601, "1 h"),
    ],
)
def test_times_read_well(seconds: float, said: str) -> None:
    assert words.duration(seconds) == said


@pytest.mark.parametrize(
    ("share", "said"),
    [(0.0, "0 %"), (1.0, "100 %"), (0.99999, "> 99.9 %"), (0.0001, "< 0.1 %"), (0.415, "41.5 %"), (0.9949, "99.5 %")],
)
def test_all_and_nothing_are_said_only_when_meant(share: float, said: str) -> None:
    assert words.percent(share) == said


def test_numbers_read_well() -> None:
    assert words.count(1_234_567) == "1,234,567"
    assert words.count(1, "job") == "1 job"
    assert words.count(0, "job") == "0 jobs"
    assert words.rate(12_345, "items") == "12.3 k items/s"
    assert words.rate(999.9) == "1 k/s"
    assert words.size(2_100_000_000) == "2.1 GB"
    assert words.size(999) == "999 bytes"


@pytest.mark.parametrize(
    ("ahead_s", "said"),
    [
        (0, "now"),
        (-7, "7 s ago"),
        (-59.4, "59 s ago"),
        (-61, "1 min ago"),
        (-7200, "2 h ago"),
        (-200_000, "2 d ago"),
        (90, "in 2 min"),
    ],
)
def test_moments_are_near_or_far(ahead_s: float, said: str) -> None:
    told = words.ago(NOW + timedelta(seconds=ahead_s), NOW)

    assert f">{said}</time>" in told
    assert "2026-11-2" in told
