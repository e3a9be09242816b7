"""How often a pre-filter of zero_shot keeps the label that all labels judged would have found best."""

import math
from collections.abc import Iterable
from typing import NamedTuple

Z = 1.96
"""Of the normal distribution, for 95 %."""


class Recall(NamedTuple):
    """Of the texts that were audited, at the job's own number of labels."""

    at: int
    audited: int
    recall: float
    interval_95: tuple[float, float]
    """Wilson's score interval (1927), which holds near 1, too."""


def recall(ranks: Iterable[int], at: int) -> Recall | None:
    """`ranks`: the place that the pre-filter gave each audited text's best label, from 1. None: no text was audited."""
    places = list(ranks)
    n = len(places)
    if not n:
        return None
    share = sum(place <= at for place in places) / n
    middle = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    return Recall(at, n, share, (max(0.0, middle - half), min(1.0, middle + half)))
