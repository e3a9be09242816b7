"""Per-row steps inside `generate()`: seeded draws that no neighbour influences, stop strings, a watch for NaN."""

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any

import torch
import transformers
from transformers.generation import logits_process as warpers

TOP_K = 50
"""What Transformers takes when sampling and nobody names a `top_k` (5.23)."""


def uniform(seed: int | None, seq: int, sample: int, position: int) -> float:
    """A number in [0, 1) that depends on its arguments only. No seed is the same as seed 0: a chunk that is run
    again after a crash gives what it gave before."""
    name = f"{seed or 0}/{seq}/{sample}/{position}".encode()
    return (int.from_bytes(blake2b(name, digest_size=8).digest(), "big") >> 11) / 2**53


class Draw(transformers.LogitsProcessor):  # type: ignore[misc]
    """Leaves exactly one token possible in each row: the one drawn from what the warpers left.

    Greedy search then takes it, so that the random numbers are ours: Transformers draws for all rows from one
    global generator, where a row's tokens depend on its neighbours.
    """

    def __init__(self, config: Any, rows: Sequence[tuple[int | None, int, int]], start: int) -> None:
        """`rows`: seed, seq and sample of each; `start`: columns before the first generated one."""
        self._warpers, self._rows, self._start = _warpers(config), rows, start

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        for warper in self._warpers:
            scores = warper(input_ids, scores)
        position = input_ids.shape[1] - self._start
        numbers = [uniform(seed, seq, sample, position) for seed, seq, sample in self._rows]
        precise = torch.float32 if scores.device.type == "mps" else torch.float64
        shares = scores.to(precise).softmax(-1).cumsum(-1)
        wanted = torch.tensor(numbers, dtype=precise, device=scores.device)[:, None] * shares[:, -1:]
        chosen = torch.searchsorted(shares, wanted, right=True).clamp(max=scores.shape[1] - 1)
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen, 0.0)


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

    def __init__(self, decode: Callable[[list[int]], str], stop: tuple[str, ...], start: int) -> None:
        self._decode, self._stop, self._start = decode, stop, start
        # A token is at least a byte of the text; a few more, for a string that begins inside a token.
        self._columns = max(len(each.encode()) for each in stop) + 8

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        tails = input_ids[:, max(self._start, input_ids.shape[1] - self._columns) :].tolist()
        ended = [any(stop in text for stop in self._stop) for text in map(self._decode, tails)]
        return torch.tensor(ended, device=input_ids.device)


def _warpers(config: Any) -> list[Any]:
    """Transformers' own, in its order (`GenerationMixin._get_logits_processor`, 5.23)."""
    made: list[Any] = []
    if config.temperature not in (None, 1.0):
        made.append(warpers.TemperatureLogitsWarper(config.temperature))
    if getattr(config, "top_h", None) is not None:
        made.append(warpers.TopHLogitsWarper(top_h=config.top_h))
    if top_k := TOP_K if config.top_k is None else config.top_k:
        made.append(warpers.TopKLogitsWarper(top_k))
    if config.top_p is not None and config.top_p < 1.0:
        made.append(warpers.TopPLogitsWarper(config.top_p))
    if config.min_p is not None:
        made.append(warpers.MinPLogitsWarper(config.min_p))
    if config.typical_p is not None and config.typical_p < 1.0:
        made.append(warpers.TypicalLogitsWarper(config.typical_p))
    if config.epsilon_cutoff and 0.0 < config.epsilon_cutoff < 1.0:
        made.append(warpers.EpsilonLogitsWarper(config.epsilon_cutoff))
    if config.eta_cutoff and 0.0 < config.eta_cutoff < 1.0:
        made.append(warpers.EtaLogitsWarper(config.eta_cutoff))
    return made
