"""Which items are chosen to stand for all."""

import random

import pytest

from jobs.store.values import Pick
from jobs.strata import KEPT, Strata


def picked(n: int, costs: list[int], *, at_once: int = 1000) -> list[Pick]:
    strata = Strata(n)
    for lo in range(0, len(costs), at_once):
        strata.add(lo, costs[lo : lo + at_once])
    return strata.picks()


def test_they_are_spread_evenly_from_the_shortest_to_the_longest(chance: random.Random) -> None:
    costs = list(range(5000))
    chance.shuffle(costs)

    found = picked(11, costs)

    assert sorted(pick.cost for pick in found) == [round(4999 * step / 10) for step in range(11)]
    assert found == sorted(found)
    assert all(costs[pick.seq] == pick.cost for pick in found)


@pytest.mark.parametrize(("n", "costs", "wanted"), [(1, [5, 1, 9], [5]), (3, [4, 2], [4, 2]), (2, [7, 7, 7], [7, 7])])
def test_few_items_will_do(n: int, costs: list[int], wanted: list[int]) -> None:
    found = picked(n, costs)

    assert [pick.cost for pick in found] == wanted
    assert len({pick.seq for pick in found}) == len(found)


def test_of_a_long_input_every_part_counts_whatever_its_order(chance: random.Random) -> None:
    costs = [1 + 500 * (seq % 2) + seq // 1000 for seq in range(8 * KEPT)]
    again, found = picked(100, costs, at_once=777), picked(100, costs)

    halves = [sum(pick.seq % 2 for pick in found), sum(pick.seq < 4 * KEPT for pick in found)]
    assert found == again
    assert all(40 <= half <= 60 for half in halves)
