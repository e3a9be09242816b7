"""A chunk that changes hands in the middle: what has a result is not run again."""

import pytest

from tests.checker import check, column
from tests.corpora import model, submit
from tests.deployment import Deploy

pytestmark = pytest.mark.servers


@pytest.mark.thorough
@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
def test_a_chunk_goes_on_where_the_worker_before_left_it(deploy: Deploy) -> None:
    """Row 33."""
    mill = deploy(grace_s=0.1)
    job_id = submit(mill.store, 40, per_chunk=40, model=model(mill.store, delay_s=0.15, max_items=1))
    first = mill.start()
    mill.until(lambda: mill.store.jobs.get(job_id).counts.ok > 0, what="a part to be saved")

    assert first.stop() == 0
    left = mill.store.jobs.get(job_id).counts.pending
    mill.start()
    mill.until(lambda: mill.store.jobs.get(job_id).state.final or sum(column(mill.store, "SELECT errors FROM chunks")))

    assert 0 < left < 40
    assert column(mill.store, "SELECT errors FROM chunks") == [0], "I1: an item that has a result ran again"
    check(mill.store, job_id)
