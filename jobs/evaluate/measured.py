"""What was counted for each item, and the figures that sums of it give."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy

from jobs.evaluate.cases import Case
from jobs.evaluate.chance import Array, Scores


@dataclass(frozen=True)
class Measured:
    """Counts [items, columns] and what they mean."""

    counts: Array
    scores: Scores
    main: str
    """The figure that one would name alone."""
    right: Array
    """Of each item: 1 for a right answer, 0 for a wrong one, or a share between."""
    labels: tuple[str, ...] = ()
    by_label: Callable[[Array], dict[str, dict[str, float]]] = lambda sums: {}
    confusion: Array | None = None
    """[gold labels, found labels]; the last row and column are for none."""
    whole: dict[str, float] = field(default_factory=dict)
    """Figures of all items together that are not sums over them."""


Measure = Callable[[Sequence[Case]], Measured]


def means(figures: Mapping[str, Sequence[float]], main: str) -> Measured:
    """Figures that are means over items."""
    names = tuple(figures)
    counts = numpy.column_stack([*(figures[name] for name in names), numpy.ones(len(figures[main]))])
    return Measured(
        counts,
        lambda sums: {name: float(sums[at] / sums[-1]) for at, name in enumerate(names)},
        main,
        numpy.array(figures[main], dtype=float),
    )


def share(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0
