"""Encoders without padding: texts stand end to end in one row, and attention is kept apart between them.

Works for every architecture whose attention goes through Transformers' registry (5.23) and that takes positions as an
argument; what does not is found out at load by comparing with the padded way.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from inspect import signature
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch.nn import functional
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from jobs.errors import ModelFailed
from worker.engines.torch.padded import Ids, per_token

NAME = "textmill_packed"
"""What the attention is registered as."""
STACKS = ("encoder", "transformer")
"""What base models call their layers, behind which a head reads one hidden state per text."""
SHORT = 128
"""Tokens of a text up to which two plain products are a third faster on a CPU than the fused attention."""


@dataclass(slots=True)
class _Row:
    """Where the texts of the row that is just being read begin and end."""

    lengths: Sequence[int]
    calls: int = 0
    """How often attention was asked: once a layer, if the model uses the registry at all."""
    starts: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.starts = [0, *accumulate(self.lengths)]

    def spans(self) -> Iterator[tuple[int, int]]:
        """[start, end) of each text."""
        return pairwise(self.starts)


_row: _Row | None = None
"""Of the forward pass that runs: a process runs one at a time, and attention functions are handed nothing else."""


class PackedReader:
    """Reads texts end to end. Raises ModelFailed for an architecture that cannot be asked this way."""

    def __init__(self, model: Any, *, first_position: int, has_types: bool, device: torch.device) -> None:
        self._model, self._device, self._has_types = model, device, has_types
        self._first = first_position
        self.calls = 0
        """Attention calls of the last pass."""
        accepted = signature(model.forward).parameters
        self._positions = "position_ids" in accepted
        if not self._positions and not hasattr(model.config, "relative_attention_num_buckets"):
            raise ModelFailed("it takes no positions")
        self._before = model.config._attn_implementation
        try:
            model.set_attn_implementation(NAME)
        except (ValueError, KeyError, AttributeError) as error:
            raise ModelFailed(f"its attention cannot be chosen: {error}") from error
        self._stack = _stack(model)

    def close(self) -> None:
        """Give the model back as it was."""
        self._model.set_attn_implementation(self._before)

    def hidden(self, texts: Sequence[Ids]) -> list[torch.Tensor]:
        """Token vectors [tokens, width] of each text."""
        with self._reading(texts) as row:
            whole = self._model(**self._given(texts)).last_hidden_state[0]
        return [whole[low:high] for low, high in row.spans()]

    def logits(self, texts: Sequence[Ids]) -> torch.Tensor:
        """What the model's head says of each text: [texts, labels]."""
        with self._reading(texts) as row:
            hook = self._stack.register_forward_hook(lambda module, given, made: _apart(made, row))
            try:
                logits: torch.Tensor = self._model(**self._given(texts)).logits
            finally:
                hook.remove()
        if logits.shape[0] != len(texts):
            raise ModelFailed("its head cannot be reached")
        return logits

    def logits_of_tokens(self, texts: Sequence[Ids]) -> list[torch.Tensor]:
        """What the model's head says of each token: [tokens, labels] of each text."""
        with self._reading(texts) as row:
            whole = per_token(self._model(**self._given(texts)))[0]
        return [whole[low:high] for low, high in row.spans()]

    def logits_at(self, texts: Sequence[Ids], places: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """What the model's head says at some places of each text: [places, words]. It reads those alone, since a
        vocabulary is wide."""
        with self._reading(texts) as row:
            chosen = [start + place for (start, _), some in zip(row.spans(), places, strict=True) for place in some]
            hook = self._stack.register_forward_hook(lambda module, given, made: _chosen(made, chosen))
            try:
                whole = self._model(**self._given(texts)).logits[0]
            finally:
                hook.remove()
        if whole.shape[0] != len(chosen):
            raise ModelFailed("its head cannot be reached")
        return list(whole.split([len(some) for some in places]))

    @contextmanager
    def _reading(self, texts: Sequence[Ids]) -> Iterator[_Row]:
        global _row
        _row = row = _Row([len(text.ids) for text in texts])
        try:
            yield row
        finally:
            _row, self.calls = None, row.calls

    def _given(self, texts: Sequence[Ids]) -> dict[str, torch.Tensor]:
        given = {"input_ids": self._tensor(number for text in texts for number in text.ids)}
        if self._positions:
            first = self._first
            given["position_ids"] = self._tensor(
                position for text in texts for position in range(first, first + len(text.ids))
            )
        if self._has_types:
            given["token_type_ids"] = self._tensor(number for text in texts for number in text.types)
        return given

    def _tensor(self, numbers: Iterator[int]) -> torch.Tensor:
        return torch.tensor([list(numbers)], device=self._device)


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    position_bias: torch.Tensor | None = None,
    **unused: Any,
) -> tuple[torch.Tensor, None]:
    """Attention inside each text of the row. `query`, `key`, `value`: [1, heads, tokens, dim]; gives [1, tokens, heads,
    dim]. Of `position_bias` [1, heads, tokens, tokens] (T5) each text has its own part.

    A call for each text: one for several of equal length would give a text other bits with the thread that computes it.
    """
    row = _row
    if row is None or attention_mask is not None:
        raise RuntimeError("packed attention outside of a packed pass, or with a mask of the model's own")
    row.calls += 1
    made = [
        _attended(
            query[:, :, low:high],
            key[:, :, low:high],
            value[:, :, low:high],
            _mask(position_bias, low, high - low, sliding_window),
            scaling,
        )
        for low, high in row.spans()
    ]
    return torch.cat(made, 2).transpose(1, 2), None


def _attended(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scaling: float | None
) -> torch.Tensor:
    """Attention of one text, all [1, heads, tokens, dim]. Which kernel it is depends on the text alone."""
    heads, tokens, dim = query.shape[1:]
    if mask is not None or tokens > SHORT or key.shape[1] != heads:
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=scaling, enable_gqa=key.shape[1] != heads
        )
    scale = dim**-0.5 if scaling is None else scaling
    scores = torch.baddbmm(query.new_empty(1), query[0], key[0].transpose(1, 2), beta=0, alpha=scale)
    return torch.bmm(scores.softmax(-1), value[0])[None]


def _mask(bias: torch.Tensor | None, start: int, length: int, window: int | None) -> torch.Tensor | None:
    """What is added to the scores of a text: its part of the bias, and the window of layers that look no further."""
    own = None if bias is None else bias[..., start : start + length, start : start + length]
    if window is None or length <= window:
        return own
    at = torch.arange(length)
    seen = (at[:, None] - at[None, :]).abs() < window
    return seen if own is None else own.masked_fill(~seen, -torch.inf)


def _no_mask(**unused: Any) -> None:
    """The mask of a packed pass: attention knows by itself who sees whom."""


def _stack(model: Any) -> Any:
    base = model.base_model
    return next((getattr(base, name) for name in STACKS if hasattr(base, name)), base)


def _apart(made: Any, row: _Row) -> Any:
    """The layers' output with each text in a row of its own, as heads expect it: [texts, longest, width]."""
    whole = made.last_hidden_state[0]
    padded = whole.new_zeros(len(row.lengths), max(row.lengths), whole.shape[-1])
    for at, (low, high) in enumerate(row.spans()):
        padded[at, : high - low] = whole[low:high]
    made.last_hidden_state = padded
    return made


def _chosen(made: Any, places: Sequence[int]) -> Any:
    """The layers' output at these places of the row alone."""
    made.last_hidden_state = made.last_hidden_state[:, list(places)]
    return made


ALL_ATTENTION_FUNCTIONS.register(NAME, attend)
ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, _no_mask)
