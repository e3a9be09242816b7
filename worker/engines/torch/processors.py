"""What `generate()` is given to obey for each row: seeded draws, stop strings, a watch for NaN."""

from collections.abc import Sequence
from typing import Any

import torch
import transformers

from worker.engines.torch.answers import TAIL, Decode, has_stopped
from worker.engines.torch.drawing import drawn, uniform, warped, warpers_of


class Draw(transformers.LogitsProcessor):  # type: ignore[misc]
    """Leaves exactly one token possible in each row: the one drawn from what the warpers left.

    Greedy search then takes it, so that the random numbers are ours: Transformers draws for all rows from one
    global generator, where a row's tokens depend on its neighbours.
    """

    def __init__(self, config: Any, rows: Sequence[tuple[int | None, int, int]], start: int) -> None:
        """`rows`: seed, seq and sample of each; `start`: columns before the first generated one."""
        self._warpers, self._rows, self._start = warpers_of(config), rows, start

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        position = input_ids.shape[1] - self._start
        numbers = [uniform(seed, seq, sample, position) for seed, seq, sample in self._rows]
        chosen = drawn(warped(self._warpers, scores), numbers)
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen[:, None], 0.0)


class NanWatch(transformers.LogitsProcessor):  # type: ignore[misc]
    """Remembers the rows whose logits were no numbers."""

    def __init__(self) -> None:
        self._rows: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        found = scores.isnan().any(-1)
        self._rows = found if self._rows is None else self._rows | found
        return scores

    def broken(self, items: int) -> list[bool]:
        """For each of the batch's items, which have equally many rows, whether one of them was no number."""
        if self._rows is None:
            return [False] * items
        found: list[bool] = self._rows.view(items, -1).any(1).tolist()
        return found


class Stops(transformers.StoppingCriteria):  # type: ignore[misc]
    """Ends a row when one of the strings appears in the text generated so far."""

    def __init__(self, decode: Decode, stop: tuple[str, ...], start: int) -> None:
        self._decode, self._stop, self._start = decode, stop, start

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        prompts = input_ids[:, max(0, self._start - TAIL) : self._start].tolist()
        rows = zip(prompts, input_ids[:, self._start :].tolist(), strict=True)
        ended = [has_stopped(self._decode, made, self._stop, prompt=prompt) for prompt, made in rows]
        return torch.tensor(ended, device=input_ids.device)
