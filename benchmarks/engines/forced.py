"""Answers of lengths that are known in advance, alike for every way: random weights do not end by themselves."""

from collections.abc import Sequence
from typing import Any

import torch
import transformers


class Lengths(transformers.StoppingCriteria):  # type: ignore[misc]
    """Ends each item of a `generate()` call after its own number of tokens; a search's beams share their item's."""

    def __init__(self, lengths: Sequence[int], start: int) -> None:
        self._lengths, self._start = torch.tensor(lengths), start

    def __call__(self, input_ids: torch.Tensor, scores: Any, **given: Any) -> torch.Tensor:
        wanted = self._lengths.repeat_interleave(len(input_ids) // len(self._lengths))
        return (wanted <= input_ids.shape[1] - self._start).to(input_ids.device)


class NoEnd(transformers.LogitsProcessor):  # type: ignore[misc]
    """Keeps the end token from being chosen."""

    def __init__(self, end: int) -> None:
        self._end = end

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores.index_fill(1, torch.tensor([self._end], device=scores.device), -torch.inf)


def generated(
    model: Any, given: dict[str, torch.Tensor], lengths: Sequence[int], *, start: int, num_beams: int = 1
) -> list[list[int]]:
    """The new tokens of each item by `generate()`, each as long as it has to be."""
    config = transformers.GenerationConfig(
        max_new_tokens=max(lengths),
        num_beams=num_beams,
        do_sample=False,
        pad_token_id=model.config.pad_token_id,
        eos_token_id=model.config.eos_token_id,
        decoder_start_token_id=model.config.decoder_start_token_id if model.config.is_encoder_decoder else None,
    )
    with torch.inference_mode():
        made = model.generate(
            **given,
            generation_config=config,
            logits_processor=transformers.LogitsProcessorList([NoEnd(model.config.eos_token_id)]),
            stopping_criteria=transformers.StoppingCriteriaList([Lengths(lengths, start)]),
        )
    return [row[start : start + length] for row, length in zip(made.tolist(), lengths, strict=True)]


def equal(some: Sequence[Sequence[int]], others: Sequence[Sequence[int]]) -> float:
    """The share of tokens before the first that differs, of all tokens."""
    same = sum(_common(one, other) for one, other in zip(some, others, strict=True))
    return same / max(1, sum(map(len, others)))


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (left, right) in pairs if left != right), min(len(one), len(other)))
