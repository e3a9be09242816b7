"""Rankings of documents."""

import math
from collections.abc import Sequence
from typing import Any

from jobs.errors import InvalidInput
from jobs.evaluate.cases import Case
from jobs.evaluate.measured import Measured, means, share


def rankings(some: Sequence[Case], ranks: int) -> Measured:
    """Gold is the index of the right document, a list of those, or a grade by index (`{"3": 2}`)."""
    recall, gain, reciprocal = [], [], []
    for case in some:
        grades = _grades(case)
        order = [int(each["index"]) for each in (case.output or {}).get("ranking", ())]
        hits = [at for at, index in enumerate(order) if grades.get(index, 0) > 0]
        relevant = sum(grade > 0 for grade in grades.values())
        recall.append(share(sum(at < ranks for at in hits), relevant))
        reciprocal.append(1 / (hits[0] + 1) if hits else 0.0)
        ideal = _discounted(sorted(grades.values(), reverse=True)[:ranks])
        gain.append(share(_discounted([grades.get(index, 0) for index in order[:ranks]]), ideal))
    return means({f"ndcg@{ranks}": gain, f"recall@{ranks}": recall, "mrr": reciprocal}, f"ndcg@{ranks}")


def _grades(case: Case) -> dict[int, float]:
    try:
        if isinstance(case.gold, dict):
            return {int(index): _finite(grade) for index, grade in case.gold.items()}
        return {int(index): 1.0 for index in (case.gold if isinstance(case.gold, list) else [case.gold])}
    except (TypeError, ValueError, OverflowError):
        text = (
            f"item {case.custom_id}: gold of rerank is an index, a list of them or a grade by index, not {case.gold!r}"
        )
        raise InvalidInput(text) from None


def _finite(grade: Any) -> float:
    if not math.isfinite(number := float(grade)):
        raise ValueError("a grade is a finite number")
    return number


def _discounted(grades: Sequence[float]) -> float:
    """Cumulative gain with grades as gains (Jarvelin and Kekalainen 2002)."""
    return sum(grade / math.log2(at + 2) for at, grade in enumerate(grades))
