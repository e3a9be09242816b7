"""The store against a model of it in dictionaries: any verbs in any order leave the rows that the model says."""

import random

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from jobs.store import Store
from tests.faults.store_machine import Machine

pytestmark = pytest.mark.servers


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("store_url", "examples", "steps"),
    [
        pytest.param("sqlite", 12, 20),
        pytest.param("postgresql", 4, 20),
        pytest.param("sqlite", 80, 50, marks=pytest.mark.thorough),
        pytest.param("postgresql", 40, 50, marks=pytest.mark.thorough),
    ],
    indirect=["store_url"],
)
def test_any_verbs_in_any_order_leave_what_the_model_says(
    store: Store, chance: random.Random, examples: int, steps: int
) -> None:
    """A model of behaviour: of producers, workers and upkeep, one after the other."""

    class Tried(Machine):
        pass

    Tried.store = store
    seed(chance.randrange(2**32))(Tried)
    run_state_machine_as_test(
        Tried,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            phases=[Phase.generate],  # a failure is short enough as it comes, and every step is many transactions
            database=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
