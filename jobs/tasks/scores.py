"""Logits to scores, in plain Python: quicker than arrays for the handful of labels a text has."""

from collections.abc import Sequence
from math import exp, fsum
from typing import Literal

Function = Literal["softmax", "sigmoid", "none"]


def apply(function: Function, logits: Sequence[float]) -> list[float]:
    """The scores of one text's logits. NaN stays NaN; nothing overflows."""
    if function == "softmax":
        top = max(logits)
        powers = [exp(logit - top) for logit in logits]
        total = sum(powers)
        return [power / total for power in powers]
    return [sigmoid(logit) for logit in logits] if function == "sigmoid" else list(logits)


def sigmoid(logit: float) -> float:
    """1 / (1 + e^-x), in the form that does not overflow."""
    if logit >= 0:
        return 1 / (1 + exp(-logit))
    power = exp(logit)
    return power / (1 + power)


def weighted_mean(rows: Sequence[Sequence[float]], weights: Sequence[int]) -> list[float]:
    """The mean of each column, each row as heavy as its weight."""
    total = sum(weights)
    return [
        fsum(w * value for w, value in zip(weights, column, strict=True)) / total for column in zip(*rows, strict=True)
    ]
