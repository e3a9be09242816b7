"""Labels of texts, and of spans in them."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy

from jobs.errors import InvalidInput
from jobs.evaluate.cases import Case
from jobs.evaluate.chance import Array
from jobs.evaluate.measured import Measured, share

MOST_LABELS = 1000
MOST_CELLS = 100_000_000
"""Items times labels: 0.8 GB for each of the few tables of them that are held."""


def labelled(some: Sequence[Case], name: str, threshold: float) -> Measured:
    if any(isinstance(case.gold, list) for case in some):
        return _several(some, name, threshold)
    golds = [str(case.gold) for case in some]
    found = [_best(case.output, name) for case in some]
    labels = _known(golds, found)
    _check_size(some, labels)
    at = {label: number for number, label in enumerate(labels)}
    none = len(labels)
    gold_at = numpy.array([at[gold] for gold in golds])
    found_at = numpy.array([none if each is None else at[each] for each in found])
    right = (gold_at == found_at).astype(float)
    confusion = numpy.zeros((none + 1, none + 1), dtype=int)
    numpy.add.at(confusion, (gold_at, found_at), 1)
    return Measured(
        numpy.column_stack([right, *_tallies(_one_hot(gold_at, none), _one_hot(found_at, none))]),
        lambda sums: {"accuracy": float(sums[0] / (sums[1 + none : 1 + 2 * none].sum() or 1)), **_f1s(sums[1:], none)},
        "accuracy",
        right,
        labels,
        lambda sums: _per_label(sums[1:], labels),
        confusion,
    )


def _several(some: Sequence[Case], name: str, threshold: float) -> Measured:
    """Items that may have several labels, or none."""
    golds = [[str(each) for each in (case.gold if isinstance(case.gold, list) else [case.gold])] for case in some]
    found = [
        [str(each["label"]) for each in (case.output or {}).get(name, ()) if each["score"] >= threshold]
        for case in some
    ]
    labels = _known([each for row in golds for each in row], [each for row in found for each in row])
    _check_size(some, labels)
    at = {label: number for number, label in enumerate(labels)}
    wanted, given = numpy.zeros((2, len(some), len(labels)))
    for row, (ours, theirs) in enumerate(zip(golds, found, strict=True)):
        wanted[row, [at[each] for each in ours]] = 1
        given[row, [at[each] for each in theirs]] = 1
    right = (wanted == given).all(1).astype(float)
    return Measured(
        numpy.column_stack([right, numpy.ones(len(some)), *_tallies(wanted, given)]),
        lambda sums: {"subset_accuracy": float(sums[0] / sums[1]), **_f1s(sums[2:], len(labels))},
        "micro_f1",
        right,
        labels,
        lambda sums: _per_label(sums[2:], labels),
    )


def _best(output: dict[str, Any] | None, name: str) -> str | None:
    ranking = (output or {}).get(name) or [{}]
    best = ranking[0].get("label", ranking[0].get("language"))
    return None if best is None else str(best)


def _known(golds: Iterable[str], found: Iterable[str | None]) -> tuple[str, ...]:
    """All labels. Raises InvalidInput where the two sides have not one in common, or there are too many for labels."""
    ours, theirs = set(golds), {each for each in found if each is not None}
    if theirs and not ours & theirs:
        raise InvalidInput(
            f"not one gold value is a label that was given: gold has {_some(ours)}; the results have {_some(theirs)}"
        )
    if len(ours | theirs) > MOST_LABELS:
        raise InvalidInput(f"{len(ours | theirs):,} different gold values are too many for labels ({_some(ours)})")
    return tuple(sorted(ours | theirs))


def _check_size(some: Sequence[Case], labels: Sequence[str]) -> None:
    if len(some) * len(labels) > MOST_CELLS:
        counted = f"{len(some):,} items and {len(labels):,} labels"
        raise InvalidInput(f"{counted} are too many to be counted: items times labels may be {MOST_CELLS:,} at most")


def _some(values: Iterable[str]) -> str:
    ordered = sorted(values)
    return ", ".join(map(repr, ordered[:5])) + (f" and {len(ordered) - 5} more" if len(ordered) > 5 else "")


def _one_hot(at: Array, count: int) -> Array:
    found: Array = (at[:, None] == numpy.arange(count)).astype(float)
    return found


def _tallies(wanted: Array, given: Array) -> tuple[Array, Array, Array]:
    """True positives, golds and findings of each label, [items, labels]."""
    return wanted * given, wanted, given


def _f1s(sums: Array, labels: int) -> dict[str, float]:
    hits, wanted, given = sums[:labels], sums[labels : 2 * labels], sums[2 * labels : 3 * labels]
    in_use = (wanted + given) > 0
    each = 2 * hits[in_use] / (wanted + given)[in_use]
    whole = wanted.sum() + given.sum()
    return {
        "macro_f1": float(each.mean()) if each.size else 0.0,
        "micro_f1": float(2 * hits.sum() / whole) if whole else 0.0,
    }


def _per_label(sums: Array, labels: Sequence[str]) -> dict[str, dict[str, float]]:
    count = len(labels)
    hits, wanted, given = sums[:count], sums[count : 2 * count], sums[2 * count : 3 * count]
    return {
        label: {
            "precision": share(hits[at], given[at]),
            "recall": share(hits[at], wanted[at]),
            "f1": share(2 * hits[at], wanted[at] + given[at]),
            "support": int(wanted[at]),
        }
        for at, label in enumerate(labels)
    }


def entities(some: Sequence[Case]) -> Measured:
    """Entities count where start, end and group are the gold ones, as in CoNLL 2003."""
    golds = [{_span(entity, case) for entity in _list(case)} for case in some]
    found = [{_span(entity, case) for entity in (case.output or {}).get("entities", ())} for case in some]
    labels = tuple(sorted({group for row in (*golds, *found) for *_, group in row}))
    _check_size(some, labels)
    tallies = [_counted([ours & theirs, ours, theirs], labels) for ours, theirs in zip(golds, found, strict=True)]
    right = numpy.array([float(ours == theirs) for ours, theirs in zip(golds, found, strict=True)])
    count = len(labels)

    def scores(sums: Array) -> dict[str, float]:
        hits, wanted, given = (sums[at * count : (at + 1) * count].sum() for at in range(3))
        return {
            "entity_f1": share(2 * hits, wanted + given),
            "precision": share(hits, given),
            "recall": share(hits, wanted),
        }

    return Measured(numpy.array(tallies), scores, "entity_f1", right, labels, lambda sums: _per_label(sums, labels))


def _list(case: Case) -> list[Any]:
    if not isinstance(case.gold, list):
        raise InvalidInput(f"item {case.custom_id}: gold of ner is a list of entities, not {case.gold!r}")
    return case.gold


def _span(entity: Any, case: Case) -> tuple[int, int, str]:
    try:
        group = next(entity[name] for name in ("entity_group", "entity", "label") if name in entity)
        return int(entity["start"]), int(entity["end"]), str(group)
    except (KeyError, TypeError, ValueError, OverflowError, StopIteration):
        text = f"item {case.custom_id}: an entity is {{start, end, entity_group}}, not {entity!r}"
        raise InvalidInput(text) from None


def _counted(sets: Sequence[set[tuple[int, int, str]]], labels: Sequence[str]) -> list[int]:
    return [sum(group == label for *_, group in each) for each in sets for label in labels]
