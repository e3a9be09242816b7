"""Another session that forgets to end its transaction: row 12 of the fault list."""

import statistics
import time

import psycopg
import pytest

from jobs.store import Store
from jobs.upkeep import Upkeep
from tests.deployment import Deploy
from tests.rows import block, claim, loading_job
from tests.servers import Postgres

pytestmark = pytest.mark.servers

MOST_TIMES_SLOWER = 10


@pytest.mark.parametrize("chunks", [2_000, pytest.param(20_000, marks=pytest.mark.thorough)])
def test_an_old_snapshot_slows_no_claim_tenfold(postgres: Postgres, postgres_url: str, chunks: int) -> None:
    """Row 12. Scaled: what matters of an hour is how many chunks were taken since the snapshot."""
    store = Store.open(postgres_url)
    job = loading_job(store)
    for lo in range(0, (chunks + 400) * 5, 5000):
        store.jobs.append(job.id, [block(lo, 5000)])
    store.jobs.seal(job.id)
    baseline = _p99(store, 200)

    with postgres.connect(postgres_url.rsplit("/", 1)[1]) as outside:
        outside.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        outside.execute("SELECT count(*) FROM chunks")
        taken = 0
        while taken < chunks:
            taken += len(claim(store, chunks=1, cost=2000, items=10**6))
        slowed = _p99(store, 200)
        outside.execute("ROLLBACK")

    print(f"p99 of a claim: {baseline * 1000:.1f} ms, {slowed * 1000:.1f} ms behind {taken} dead entries")
    assert slowed < MOST_TIMES_SLOWER * baseline
    store.close()


@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
def test_a_session_that_idles_in_a_transaction_is_ended(deploy: Deploy, postgres: Postgres, store_url: str) -> None:
    """Row 12."""
    mill = deploy(idle_transaction_s=1.0)
    with postgres.connect(store_url.rsplit("/", 1)[1]) as outside:
        outside.execute("SET application_name = 'somebody'")
        outside.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        outside.execute("SELECT count(*) FROM chunks")
        mill.until(lambda: _ended(mill.upkeep), what="the session to be ended")

        with pytest.raises(psycopg.errors.AdminShutdown):
            outside.execute("SELECT 1")


def _ended(upkeep: Upkeep) -> bool:
    upkeep._rounds = 0  # it looks for such sessions in one round of many
    return upkeep.round().get("ended", 0) == 1


def _p99(store: Store, times: int) -> float:
    took = []
    for _ in range(times):
        began = time.perf_counter()
        assert claim(store)
        took.append(time.perf_counter() - began)
    return statistics.quantiles(took, n=100)[98]
