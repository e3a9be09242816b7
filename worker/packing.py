"""Lengths in, batches out: which requests go through the model together. Pure arithmetic, no tensors."""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import NamedTuple


class Packing(NamedTuple):
    """A way of putting texts into one pass."""

    tokens: Callable[[Sequence[int]], int]
    """What texts of these lengths, longest first, take of a pass."""
    batches: Callable[..., list[list[int]]]
    """`(lengths, budget, max_items=None)`: indices into `lengths`, batch by batch, every index once, longest first."""


def pack(lengths: Sequence[int], budget: int, *, max_items: int | None = None) -> list[list[int]]:
    """Batches within `budget` padded tokens: the longest length times the items.

    An item longer than the budget is a batch of its own. Items of equal length stay in the order they came in.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    batches = []
    start = 0
    while start < len(order):
        fit = max(1, budget // max(1, lengths[order[start]]))
        end = start + min(fit, max_items or fit)
        batches.append(order[start:end])
        start = end
    return batches


def pack_end_to_end(lengths: Sequence[int], budget: int, *, max_items: int | None = None) -> list[list[int]]:
    """The same without padding: the lengths of a batch together are within `budget`."""
    batches: list[list[int]] = []
    room = 0
    for at in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if not batches or lengths[at] > room or len(batches[-1]) == max_items:
            batches.append([])
            room = budget
        batches[-1].append(at)
        room -= lengths[at]
    return batches


def pack_equal(lengths: Sequence[int], budget: int, *, max_items: int | None = None) -> list[list[int]]:
    """As `pack`, but a batch's items are all of one length."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    batches = []
    for _, run in groupby(order, key=lengths.__getitem__):
        alike = list(run)
        batches += [
            [alike[at] for at in batch] for batch in pack([lengths[at] for at in alike], budget, max_items=max_items)
        ]
    return batches


PADDED = Packing(lambda lengths: max(1, lengths[0]) * len(lengths), pack)
"""Side by side, all as long as the longest."""
EQUAL = Packing(PADDED.tokens, pack_equal)
"""Side by side, and none of them padded."""
END_TO_END = Packing(lambda lengths: max(1, sum(lengths)), pack_end_to_end)
"""One behind the other."""
