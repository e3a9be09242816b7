"""Two jobs over the same items: how often they agree, and whether one is better by more than chance."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy

from jobs.errors import InvalidInput
from jobs.evaluate.cases import Case
from jobs.evaluate.chance import RESAMPLES, interval, mcnemar, resampled, two_sided
from jobs.evaluate.measured import Measure


@dataclass(frozen=True)
class Difference:
    """A figure of the second job less the first's."""

    first: float
    second: float
    difference: float
    interval_95: tuple[float, float]
    p: float
    """How likely a difference as large is by chance alone (paired bootstrap, two-sided)."""


@dataclass(frozen=True)
class Comparison:
    """Two jobs, item by item."""

    items: int
    """Items that both have."""
    agreement: float
    """Share of items with equal outputs, as far as the measure looks at them."""
    only_first_right: int
    only_second_right: int
    mcnemar_p: float | None
    """None: answers are not simply right or wrong."""
    figures: dict[str, Difference]

    def as_json(self) -> dict[str, Any]:
        """Everything, as JSON has it."""
        return asdict(self)


def compared(
    first: Sequence[Case], second: Sequence[Case], measure: Measure, *, seed: int = 0, resamples: int = RESAMPLES
) -> Comparison:
    """The items that both have, by `custom_id`. Raises InvalidInput when there are none."""
    theirs = {case.custom_id: case for case in second}
    ours = [case for case in first if case.custom_id in theirs]
    if not ours:
        raise InvalidInput("the two jobs have no item in common: items are told by custom_id")
    others = [theirs[case.custom_id]._replace(gold=case.gold) for case in ours]
    both = measure([*ours, *others])  # together, so that labels are counted in the same columns
    count = len(ours)
    one, other = both.counts[:count], both.counts[count:]
    width = one.shape[1]
    chance = resampled(
        numpy.hstack([one, other]),
        lambda sums: {
            f"{side}{name}": value
            for side, part in (("1", sums[:width]), ("2", sums[width:]))
            for name, value in both.scores(part).items()
        },
        seed=seed,
        resamples=resamples,
    )
    before, after = both.scores(one.sum(0)), both.scores(other.sum(0))
    right, right_too = both.right[:count], both.right[count:]
    binary = bool(numpy.isin(both.right, (0, 1)).all())
    only_first, only_second = int((right > right_too).sum()), int((right_too > right).sum())
    differences = {name: chance[f"2{name}"] - chance[f"1{name}"] for name in before}
    return Comparison(
        items=count,
        agreement=_agreement(ours, others),
        only_first_right=only_first,
        only_second_right=only_second,
        mcnemar_p=mcnemar(only_first, only_second) if binary else None,
        figures={
            name: Difference(
                before[name],
                after[name],
                after[name] - before[name],
                interval(differences[name]),
                two_sided(differences[name]),
            )
            for name in before
        },
    )


def _agreement(ours: Sequence[Case], others: Sequence[Case]) -> float:
    same = [_said(one.output) == _said(other.output) for one, other in zip(ours, others, strict=True)]
    return same.count(True) / len(same)


def _said(output: Any) -> Any:
    """An output without its scores, which differ a little between any two models; of a ranking of labels the first."""
    if isinstance(output, dict):
        return {
            name: _said(value[:1] if name in ("labels", "languages") else value)
            for name, value in output.items()
            if name != "score"
        }
    return [_said(each) for each in output] if isinstance(output, list) else output
