"""How far one engine's answers are from another's."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy

from jobs.tasks.base import Classified, Embedded, Generated, Outcome
from jobs.tasks.scores import apply

NEAR = 0.999
"""Cosine of two vectors that count as equal, where there are too few texts to have different neighbours."""
FEWEST = 3
"""Texts of which one has more than one possible neighbour."""


class Agreement(NamedTuple):
    """Two lists of answers compared."""

    equal: float
    """Share of equal answers: top labels, nearest neighbours among the texts, or generated texts. Of fewer than three
    texts, whose neighbours are always the same, the share of vectors that are nearly equal."""
    closeness: str
    """The rest in words: the largest difference of scores, the smallest cosine, or the share of equal words."""


def compared(reference: Sequence[Outcome], found: Sequence[Outcome]) -> Agreement:
    """How the answers `found` agree with the reference's, which are as many."""
    pairs: list[tuple[Any, Any]] = list(zip(reference, found, strict=True))
    alike = [(one, other) for one, other in pairs if type(one) is type(other)]
    kind = type(alike[0][0]) if alike else None
    share = len(alike) / len(pairs)
    if kind is Classified:
        return _classified(alike, share)
    if kind is Embedded:
        return _embedded(alike, share)
    return _generated(alike, share) if kind is Generated else Agreement(0.0, "no answers to compare")


def _classified(pairs: Sequence[tuple[Any, Any]], share: float) -> Agreement:
    scores = [(_scores(one), _scores(other)) for one, other in pairs]
    same = _mean([_top(one) == _top(other) for one, other in scores])
    apart = max(float(numpy.abs(one - other).max()) for one, other in scores)
    return Agreement(same * share, f"scores within {apart:.2g}")


def _scores(outcome: Classified) -> Any:
    sigmoid = outcome.multi_label or len(outcome.logits) == 1
    return numpy.array(apply("sigmoid" if sigmoid else "softmax", outcome.logits))


def _top(scores: Any) -> int:
    """The label that is chosen; of a single one, whether it is."""
    return int(scores[0] >= 0.5) if len(scores) == 1 else int(numpy.argmax(scores))


def _embedded(pairs: Sequence[tuple[Any, Any]], share: float) -> Agreement:
    first, second = (_unit([pair[at] for pair in pairs]) for at in (0, 1))
    cosines = (first * second).sum(1)
    words = f"cosine {float(cosines.min()):.5f} or more"
    if len(pairs) < FEWEST:
        return Agreement(_mean(cosines >= NEAR) * share, f"{words}; too few texts to compare neighbours")
    return Agreement(_mean(_neighbours(first) == _neighbours(second)) * share, words)


def _unit(outcomes: Sequence[Embedded]) -> Any:
    vectors = numpy.array([numpy.frombuffer(outcome.vector, "<f4") for outcome in outcomes])
    return vectors / numpy.maximum(numpy.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _neighbours(vectors: Any) -> Any:
    cosines = vectors @ vectors.T
    numpy.fill_diagonal(cosines, -2.0)
    return cosines.argmax(1)


def _generated(pairs: Sequence[tuple[Any, Any]], share: float) -> Agreement:
    texts = [(one.samples[0].text, other.samples[0].text) for one, other in pairs]
    words = _mean([_equal_words(one.split(), other.split()) for one, other in texts])
    return Agreement(_mean([one == other for one, other in texts]) * share, f"{words:.1%} of the words")


def _equal_words(one: Sequence[str], other: Sequence[str]) -> float:
    longest = max(len(one), len(other))
    return sum(left == right for left, right in zip(one, other, strict=False)) / longest if longest else 1.0


def _mean(values: Any) -> float:
    return float(numpy.mean(values))
