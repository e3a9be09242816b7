"""Durations in words."""

import pytest

from jobs.durations import duration


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-3, "0 s"),
        (0, "0 s"),
        (0.25, "250 ms"),
        (0.9996, "1 s"),
        (4.24, "4.2 s"),
        (9.96, "10 s"),
        (12, "12 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (3599.6, "1 h"),
        (3601, "1 h"),
        (7500, "2 h 5 min"),
        (93_784, "1 d 2 h"),
        (356_400, "4 d 3 h"),
    ],
)
def test_durations_read_naturally(seconds: float, said: str) -> None:
    assert duration(seconds) == said
