"""How sure an estimate of time is that comes from past jobs."""

import random

import pytest

from jobs.store import rates
from jobs.store.rates import Pace


@pytest.mark.parametrize(
    ("spread", "known"),
    [*((spread, known) for spread in (0.0, 0.2, 0.3) for known in (1, 3, 10)), (0.5, 10), (0.5, 20)],
)
def test_jobs_end_within_it_about_nine_times_in_ten(spread: float, known: int) -> None:
    """Jobs of different lengths, whose rates are log-normal; the estimate is made of those before. That they are more
    apart than is thought at first can only be known from several."""
    chance, within = random.Random(7), 0
    for _ in range(1000):
        jobs = [(chance.randrange(10_000, 200_000), chance.lognormvariate(0.0, spread)) for _ in range(known + 1)]
        paces = [Pace(cost, cost / (100 * rate), 40) for cost, rate in jobs]
        *before, now = paces
        found = rates._together(before)
        told = rates.estimate(found.pace, now.cost, now.pieces, spread=found.spread, jobs=found.jobs)
        within += told.early_s <= now.seconds <= told.late_s

    assert within / 1000 > 0.85


def test_long_jobs_count_for_more() -> None:
    long, short = Pace(10**6, 100.0, 100), Pace(100, 10.0, 1)

    found = rates._together([long, short, short])

    assert found.pace.cost / found.pace.seconds == pytest.approx(10**6 / 120, rel=0.01)


def test_the_more_equal_jobs_were_the_surer_is_the_next() -> None:
    one, many = (rates._together([Pace(10_000, 10.0, 40)] * n) for n in (1, 20))

    assert one.spread == pytest.approx(0.3 * 2**0.5)
    assert many.spread < 0.1
    told = rates.estimate(one.pace, 10_000, 40, spread=one.spread, jobs=1)
    assert (told.seconds, told.known_from, told.jobs) == (10.0, "past jobs", 1)
    assert told.late_s / told.seconds == pytest.approx(told.seconds / told.early_s, rel=0.01)
