"""Everything at random, for as long as one likes: row 44 of the list. `make soak MINUTES=60`; `SEED=N` repeats."""

import json
import random
from collections.abc import Iterator

import pytest

from tests.deployment import Deploy
from tests.faults.chaos import Chaos
from tests.leftovers import check_process, check_queue
from tests.servers import Postgres, Valkey

pytestmark = [pytest.mark.servers, pytest.mark.timeout(0)]

SLOPE_MB = 1.0
"""Memory a worker may gain in a minute, in the median of all that lived long enough to tell."""
CALM_MINUTES = 4.0
"""At the end of a long soak no worker is killed for so long: before, none lives long enough for its memory to tell."""


@pytest.fixture
def own_valkey() -> Iterator[Valkey]:
    """A Valkey that may be killed."""
    with Valkey() as server:
        yield server.start()


@pytest.mark.parametrize(
    "minutes",
    [
        pytest.param(0.25, id="quick"),
        pytest.param(1.0, marks=pytest.mark.thorough, id="thorough"),
        pytest.param(None, marks=pytest.mark.soak, id="soak"),
    ],
)
def test_nothing_is_lost_or_doubled_whatever_happens(
    request: pytest.FixtureRequest,
    deploy: Deploy,
    own_valkey: Valkey,
    chance: random.Random,
    store_url: str,
    minutes: float | None,
) -> None:
    """Row 44."""
    told = request.config.getoption("--minutes") / 2 if minutes is None else minutes  # one half for each database
    postgres: Postgres | None = None if store_url.startswith("sqlite") else request.getfixturevalue("postgres")
    mill = deploy(redis_url=own_valkey.url, idle_claim_s=0.5)
    mill.upkeep.start()
    chaos = Chaos(mill, own_valkey, postgres, chance)

    chaos.run((told - CALM_MINUTES if told > 2 * CALM_MINUTES else told) * 60)
    chaos.settle(180 + told * 60)
    if told > 2 * CALM_MINUTES:
        chaos.run(CALM_MINUTES * 60, calm=True)
        chaos.settle(180)

    figures = chaos.verdict()
    print(json.dumps({"database": mill.store.dialect, "minutes": told, **figures, "faults": dict(chaos.done)}))
    for worker in mill.workers:
        if worker.alive:
            check_process(worker.pid)
    check_queue(mill.settings, killed=chaos.launched)
    slopes = sorted(chaos.slopes_mb)
    print(f"memory, MB a minute: {[round(slope, 2) for slope in slopes]}")
    assert told <= 2 * CALM_MINUTES or slopes
    assert not slopes or slopes[len(slopes) // 2] < SLOPE_MB
