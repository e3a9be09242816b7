"""Which items of a stream stand for all of it: so many, evenly spread over the lengths there are."""

from collections.abc import Sequence

from jobs.store.values import Pick

KEPT = 65_536
"""Items that are remembered at least, to choose from; up to twice as many choose exactly."""
_GOLDEN, _WORD = 0x9E3779B97F4A7C15, 2**64


class Strata:
    """Takes the cost of every item and remembers some of them: always the same, in bounded memory, and of every part of
    the input, whatever its order."""

    def __init__(self, n: int) -> None:
        self._n, self._below = n, _WORD
        self._kept: list[Pick] = []

    def add(self, seq_lo: int, costs: Sequence[int]) -> None:
        """Take the items from `seq_lo` on."""
        self._kept += [Pick(seq, cost) for seq, cost in enumerate(costs, seq_lo) if self._chosen(seq)]
        while len(self._kept) > 2 * KEPT:
            self._below //= 2
            self._kept = [pick for pick in self._kept if self._chosen(pick.seq)]

    def picks(self) -> list[Pick]:
        """The items chosen, the shortest and the longest among them, in their order; all, if there are no more."""
        by_cost = sorted(self._kept, key=lambda pick: (pick.cost, pick.seq))
        last, steps = len(by_cost) - 1, self._n - 1
        if last < steps:
            return sorted(by_cost)
        ranks = [(2 * step * last + steps) // (2 * steps) for step in range(self._n)] if steps else [last // 2]
        return sorted(by_cost[rank] for rank in ranks)

    def _chosen(self, seq: int) -> bool:
        """Multiples of the golden ratio lie evenly and keep no step with any order of the input."""
        return seq * _GOLDEN % _WORD < self._below
