"""When a job will have ended: the forecast, and how sure it is."""

import random
from datetime import UTC, datetime

import pytest

from jobs.schemas import Rate
from jobs.store import Store, progress
from tests.rows import claim, done, queued_job

MOMENT = datetime(2026, 11, 27, tzinfo=UTC)


def seconds(forecast: progress.Forecast) -> list[float]:
    return [(each - MOMENT).total_seconds() for each in forecast if each is not None]


def test_the_more_chunks_a_rate_is_known_from_the_surer_is_the_forecast() -> None:
    rate = Rate(items_per_s=10.0)
    one, many = (seconds(progress._forecast(1000, rate, known, MOMENT)) for known in ((10, 1), (100_000, 10_000)))
    assert one == pytest.approx([100, 19.144, 522.37], rel=1e-3)
    assert many == pytest.approx([100, 84.8, 118.0], rel=1e-3)


def test_without_a_rate_there_is_none() -> None:
    assert progress._forecast(10, Rate(), (5, 5), MOMENT) == progress.UNKNOWN
    assert progress._forecast(10, Rate(items_per_s=1.0), (0, 1), MOMENT) == progress.UNKNOWN


def test_results_of_a_chunk_that_has_not_ended_are_as_sure_as_one_chunk() -> None:
    rate = Rate(items_per_s=10.0)

    assert progress._forecast(1000, rate, (10, 0), MOMENT) == progress._forecast(1000, rate, (10, 1), MOMENT)


def test_a_job_tells_it_while_it_runs(store: Store) -> None:
    job = queued_job(store, 20)
    assert store.jobs.get(job.id).eta_early_at is None
    store.chunks.save([done(held) for held in claim(store, chunks=2)])
    running = store.jobs.get(job.id)
    assert running.eta_early_at is not None
    assert running.eta_at is not None
    assert running.eta_late_at is not None
    assert running.eta_early_at < running.eta_at < running.eta_late_at
    store.jobs.pause(job.id)
    assert store.jobs.get(job.id).eta_late_at is None


@pytest.mark.parametrize("spread", [0.1, 0.4, 0.8])
def test_jobs_end_within_it_nine_times_in_ten_and_more_where_chunks_are_alike(spread: float) -> None:
    """Chunks one after the other, their times log-normal; the forecast is made in the middle of the job."""
    chance = random.Random(7)
    within = 0
    for _ in range(2000):
        times = [chance.lognormvariate(0.0, spread) for _ in range(40)]
        known = chance.randrange(4, 36)
        rate = Rate(items_per_s=known / sum(times[:known]))
        _, early, late = seconds(progress._forecast(40 - known, rate, (known, known), MOMENT))
        within += early <= sum(times[known:]) <= late
    assert within / 2000 > 0.9
