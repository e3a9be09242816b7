"""A model asked a few tokens, so that hooks see which of its modules read what."""

from inspect import signature
from typing import Any

import torch
from torch import nn

TOLERANCE = {torch.float32: 1e-4}
OTHERWISE = 3e-2
"""Largest difference of a model's output after it was rearranged, for outputs of about 1; in other precisions."""


def answered(model: nn.Module) -> torch.Tensor | None:
    """Logits or token vectors for a few tokens; None for a model that cannot be asked like this."""
    device = next((each.device for each in model.parameters()), None)
    given = {"input_ids": torch.tensor([[0, 1, 2]], device=device)}
    if "decoder_input_ids" in signature(model.forward).parameters:
        given["decoder_input_ids"] = torch.tensor([[0, 1]], device=device)
    try:
        with torch.inference_mode():
            found: Any = model(**given)[0]
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError):
        return None
    return found if isinstance(found, torch.Tensor) else None


def alike(before: torch.Tensor | None, after: torch.Tensor | None) -> bool:
    """Whether two answers differ by rounding only; False when there is none."""
    if before is None or after is None:
        return False
    largest = max(1.0, float(before.float().abs().max()))
    return bool((before - after).float().abs().max() <= TOLERANCE.get(before.dtype, OTHERWISE) * largest)
