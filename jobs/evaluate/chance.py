"""What chance may have done: confidence intervals and tests by resampling items, and McNemar's test."""

import math
from collections.abc import Callable
from typing import Any

import numpy

Array = numpy.ndarray[Any, Any]
Scores = Callable[[Array], dict[str, float]]
"""Figures from the sums [columns] of what was counted for each item."""

RESAMPLES = 1000
CONFIDENCE = 0.95
MOST_COUNTS = 200_000_000
"""Numbers that resampling may read in all: beyond, samples are fewer, as large ones need."""
EXACT_UP_TO = 1000
"""Discordant pairs up to which McNemar's test is exact."""


def resampled(counts: Array, scores: Scores, *, seed: int, resamples: int = RESAMPLES) -> dict[str, Array]:
    """Each figure [resamples] over items drawn with replacement (Efron's bootstrap). `counts` [items, columns]."""
    draw = numpy.random.default_rng(seed)
    items = len(counts)
    times = max(100, min(resamples, MOST_COUNTS // max(1, counts.size)))
    found = [scores(numpy.bincount(draw.integers(items, size=items), minlength=items) @ counts) for _ in range(times)]
    return {name: numpy.array([each[name] for each in found]) for name in found[0]}


def interval(values: Array) -> tuple[float, float]:
    """Between which the middle 95 % of resampled figures lie."""
    tail = (1 - CONFIDENCE) / 2
    low, high = numpy.nanquantile(values, [tail, 1 - tail])
    return float(low), float(high)


def two_sided(differences: Array) -> float:
    """How likely a difference at least as far from zero is where there is none: from its resampled values."""
    count = len(differences)
    below, above = int((differences <= 0).sum()), int((differences >= 0).sum())
    return min(1.0, 2 * (min(below, above) + 1) / (count + 1))


def mcnemar(only_first: int, only_second: int) -> float:
    """p of McNemar's test: items that only one of two answered rightly. Exact (binomial), by chi-square with Edwards's
    correction beyond a thousand such items."""
    count = only_first + only_second
    if count == 0:
        return 1.0
    if count > EXACT_UP_TO:
        return math.erfc(max(0, abs(only_first - only_second) - 1) / math.sqrt(2 * count))
    fewer = min(only_first, only_second)
    tail = sum(math.comb(count, at) for at in range(fewer + 1))
    return float(min(1.0, 2 * tail / 2**count))
