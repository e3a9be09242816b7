"""Numbers and times in words: what people read, and never more than is so."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.web import words

NOW = datetime(2026, 11, 27, 12, 30, tzinfo=UTC)


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
    assert words.size(1) == "1 byte"
    assert words.short(0.00001) == "< 0.001"


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
        (-59.6, "1 min ago"),
        (-3599, "1 h ago"),
        (-86_399, "1 d ago"),
    ],
)
def test_moments_are_near_or_far(ahead_s: float, said: str) -> None:
    told = words.ago(NOW + timedelta(seconds=ahead_s), NOW)

    assert f">{said}</time>" in told
    assert "2026-11-2" in told


@given(st.integers(1, 10**12), st.integers(1, 10**12))
def test_a_part_is_never_called_all_or_nothing(part: int, left: int) -> None:
    said = words.percent(part / (part + left))

    assert said not in ("100 %", "0 %")


def test_a_moment_can_be_looked_up_to_the_second_in_utc() -> None:
    berlin = datetime.fromisoformat("2026-11-27T13:29:00+01:00")

    assert str(words.ago(berlin, NOW)) == (
        '<time datetime="2026-11-27T12:29:00+00:00" title="2026-11-27 12:29:00 UTC">1 min ago</time>'
    )
