"""Per-row steps inside `generate()`: seeded draws that no neighbour influences, stop strings, a watch for NaN."""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import torch
import transformers
from transformers.generation import logits_process as warpers

from worker.engines.torch.answers import TAIL, Decode, has_stopped

TOP_K = 50
"""What Transformers takes when sampling and nobody names a `top_k` (5.23)."""


def uniform(seed: int | None, seq: int, sample: int, position: int) -> float:
    """A number in [0, 1) that depends on its arguments only. No seed is the same as seed 0: a chunk that is run
    again after a crash gives what it gave before."""
    name = f"{seed or 0}/{seq}/{sample}/{position}".encode()
    return (int.from_bytes(blake2b(name, digest_size=8).digest(), "big") >> 11) / 2**53


def warped(warpers: Sequence[Any], scores: torch.Tensor) -> torch.Tensor:
    """The scores [rows, words] after each warper in turn; none of ours looks at the ids before."""
    nothing = torch.empty(scores.shape[0], 0, dtype=torch.long, device=scores.device)
    for warper in warpers:
        scores = warper(nothing, scores)
    return scores


def drawn(scores: torch.Tensor, numbers: Sequence[float]) -> torch.Tensor:
    """One token for each row of scores [rows, words], by that row's number in [0, 1)."""
    precise = torch.float32 if scores.device.type == "mps" else torch.float64
    shares = scores.to(precise).softmax(-1).cumsum(-1)
    wanted = torch.tensor(numbers, dtype=precise, device=scores.device)[:, None] * shares[:, -1:]
    return torch.searchsorted(shares, wanted, right=True).clamp(max=scores.shape[1] - 1)[:, 0]


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


def warpers_of(config: Any) -> list[Any]:
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
