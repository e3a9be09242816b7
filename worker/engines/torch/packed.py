"""Encoders without padding: texts stand end to end in one row, and attention is kept apart between them.

Works for every architecture whose attention goes through Transformers' registry (5.23) and that takes positions as an
argument; what does not is found out at load by comparing with the padded way.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from inspect import signature
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch.nn import functional
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from jobs.errors import ModelFailed
from worker.engines.torch.device import Runs, attend_runs, has_runs
from worker.engines.torch.padded import Ids, per_token

NAME = "textmill_packed"
"""What the attention is registered as."""
STACKS = ("encoder", "transformer")
"""What base models call their layers, behind which a head reads one hidden state per text."""
SHORT = 128
"""Tokens of a text up to which two plain products are a third faster on a CPU than the fused attention."""


@dataclass
class _Row:
    """Where the texts of the row that is just being read begin and end."""

    lengths: Sequence[int]
    device: torch.device
    calls: int = 0
    """How often attention was asked: once a layer, if the model uses the registry at all."""
    starts: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.starts = [0, *accumulate(self.lengths)]
        self.longest = max(self.lengths)

    def spans(self) -> Iterator[tuple[int, int]]:
        """[start, end) of each text."""
        return pairwise(self.starts)

    @cached_property
    def ends(self) -> torch.Tensor:
        """`starts` where the model is: int32 [texts + 1]."""
        return torch.tensor(self.starts, dtype=torch.int32, device=self.device)

    @cached_property
    def numbers(self) -> torch.Tensor:
        """Which text each token belongs to, [tokens]."""
        lengths = torch.tensor(self.lengths, device=self.device)
        return torch.arange(len(lengths), device=self.device).repeat_interleave(lengths)

    @cached_property
    def places(self) -> torch.Tensor:
        """Where each token stands in its text, [tokens]."""
        return torch.arange(self.starts[-1], device=self.device) - self.ends[self.numbers]


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
            whole = self._model(**self._given(texts, row)).last_hidden_state[0]
        return list(whole.split_with_sizes(row.lengths))

    def logits(self, texts: Sequence[Ids]) -> torch.Tensor:
        """What the model's head says of each text: [texts, labels]."""
        with self._reading(texts) as row:
            hook = self._stack.register_forward_hook(lambda module, given, made: _apart(made, row))
            try:
                logits: torch.Tensor = self._model(**self._given(texts, row)).logits
            finally:
                hook.remove()
        if logits.shape[0] != len(texts):
            raise ModelFailed("its head cannot be reached")
        return logits

    def logits_of_tokens(self, texts: Sequence[Ids]) -> list[torch.Tensor]:
        """What the model's head says of each token: [tokens, labels] of each text, on the CPU."""
        with self._reading(texts) as row:
            whole = per_token(self._model(**self._given(texts, row)))[0].cpu()
        return list(whole.split_with_sizes(row.lengths))

    def logits_at(self, texts: Sequence[Ids], places: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """What the model's head says at some places of each text: [places, words]. It reads those alone, since a
        vocabulary is wide."""
        with self._reading(texts) as row:
            chosen = [start + place for (start, _), some in zip(row.spans(), places, strict=True) for place in some]
            hook = self._stack.register_forward_hook(lambda module, given, made: _chosen(made, chosen))
            try:
                whole = self._model(**self._given(texts, row)).logits[0]
            finally:
                hook.remove()
        if whole.shape[0] != len(chosen):
            raise ModelFailed("its head cannot be reached")
        return list(whole.split([len(some) for some in places]))

    @contextmanager
    def _reading(self, texts: Sequence[Ids]) -> Iterator[_Row]:
        global _row
        _row = row = _Row([len(text.ids) for text in texts], self._device)
        try:
            yield row
        finally:
            _row, self.calls = None, row.calls

    def _given(self, texts: Sequence[Ids], row: _Row) -> dict[str, torch.Tensor]:
        given = {"input_ids": self._tensor(text.ids for text in texts)}
        if self._positions:
            given["position_ids"] = (row.places + self._first)[None]
        if self._has_types:
            pairs = any(any(text.types) for text in texts)
            types = self._tensor(text.types for text in texts) if pairs else torch.zeros_like(given["input_ids"])
            given["token_type_ids"] = types
        return given

    def _tensor(self, numbers: Iterable[Sequence[int]]) -> torch.Tensor:
        """All of them in one row; an array takes them in a fifth of the time that a tensor does."""
        row = array("q")
        for some in numbers:
            row.extend(some)
        return torch.frombuffer(row, dtype=torch.long)[None].to(self._device)


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

    On a CPU a call for each text: one for several of equal length would give a text other bits with the thread that
    computes it.
    """
    row = _row
    if row is None or attention_mask is not None:
        raise RuntimeError("packed attention outside of a packed pass, or with a mask of the model's own")
    row.calls += 1
    if position_bias is None and has_runs(query.device, query.dtype):
        queries, keys, values = (each[0].transpose(0, 1) for each in (query, key, value))
        runs = Runs(row.ends, row.ends, None, row.longest, row.longest)
        made = attend_runs(queries, keys, values, runs, causal=False, scale=scaling, window=sliding_window)
        return made[None], None
    parts = [
        _attended(
            query[:, :, low:high],
            key[:, :, low:high],
            value[:, :, low:high],
            _mask(position_bias, low, high - low, sliding_window, query.device),
            scaling,
        )
        for low, high in row.spans()
    ]
    return torch.cat(parts, 2).transpose(1, 2), None


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


def _mask(
    bias: torch.Tensor | None, start: int, length: int, window: int | None, device: torch.device
) -> torch.Tensor | None:
    """What is added to the scores of a text: its part of the bias, and the window of layers that look no further."""
    own = None if bias is None else bias[..., start : start + length, start : start + length]
    if window is None or length <= window:
        return own
    at = torch.arange(length, device=device)
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
    padded = whole.new_zeros(len(row.lengths) * row.longest, whole.shape[-1])
    padded.index_copy_(0, row.numbers * row.longest + row.places, whole)
    made.last_hidden_state = padded.view(len(row.lengths), row.longest, -1)
    return made


def _chosen(made: Any, places: Sequence[int]) -> Any:
    """The layers' output at these places of the row alone."""
    made.last_hidden_state = made.last_hidden_state[:, list(places)]
    return made


ALL_ATTENTION_FUNCTIONS.register(NAME, attend)
ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, _no_mask)
