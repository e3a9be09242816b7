"""Draws by a row's own random numbers, which no neighbour influences, from what Transformers' warpers leave."""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import torch
from transformers.generation import logits_process as warpers

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
