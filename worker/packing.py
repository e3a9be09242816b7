"""Lengths in, batches out: which requests go through the model together. Pure arithmetic, no tensors."""

from collections.abc import Sequence


def pack(lengths: Sequence[int], budget: int, *, max_items: int | None = None) -> list[list[int]]:
    """Indices into `lengths`, batch by batch: every index once, longest first, each batch within `budget` padded
    tokens (its longest length times its items).

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
