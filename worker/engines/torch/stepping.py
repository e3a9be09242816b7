"""Attention for rows packed into one pass: each token sees its own row only, through the keys and values kept for it.

Registered in Transformers under a name of its own; a plain model runs unchanged while `stepping` is entered. An item's
attention is a call of its own length; rows of one shelf share a call, in which each is computed by itself.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, Protocol

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from worker.engines.torch.shelves import Place, Shelf

NAME = "textmill_stepping"
"""What the attention is registered as."""
ALIGNED = 8 if "AVX512" in torch.backends.cpu.get_cpu_capability() else 4
"""Queries of a call for several rows, a multiple: torch (2.13) gives each thread a piece of one buffer, and where those
pieces are not aligned alike, a row's result depends on the thread that computes it."""
Mask = Callable[[int | None], torch.Tensor]
"""What may be seen, as something to add to scores; by the layer's window."""


class Unstepped(Exception):
    """Raised for a layer that asks for what this attention does not have."""


class Write(NamedTuple):
    """Where tokens of the pass go on a shelf."""

    shelf: Shelf
    slots: torch.Tensor
    spots: torch.Tensor
    tokens: torch.Tensor


class Group(NamedTuple):
    """Rows of one shelf that each read one token, which lie together in the pass."""

    shelf: Shelf
    first: int
    slots: torch.Tensor | slice
    """Which of the shelf's rows they are."""
    many: int
    mask: Mask


class Chunk(NamedTuple):
    """Tokens of one row, which lie together in the pass and see `length` tokens of it."""

    place: Place
    first: int
    many: int
    length: int
    mask: Mask


class Call(NamedTuple):
    """How a layer wants its scores."""

    scale: float | None
    window: int | None
    softcap: float | None
    sinks: torch.Tensor | None


class Attention(Protocol):
    """What one forward pass knows about its rows."""

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, call: Call
    ) -> torch.Tensor:
        """`query` [tokens, heads, width] answered, after keys and values [tokens, key heads, width] of the same tokens
        were kept. Raises Unstepped."""
        ...


class Pass(NamedTuple):
    """A pass over shelves."""

    writes: list[Write]
    groups: list[Group]
    chunks: list[Chunk]

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, call: Call
    ) -> torch.Tensor:
        _write(self, layer, key, value)
        tokens, heads, width = query.shape
        # Query heads that share a key head are rows of one product: [tokens, key heads, sharing, width].
        rows = query.reshape(tokens, key.shape[1], -1, width)
        out = query.new_empty(tokens, heads, value.shape[-1])
        for group in self.groups:
            _together(group, layer, rows, out, call)
        for chunk in self.chunks:
            _apart(chunk, layer, rows, out, call)
        return out


class Seen:
    """A pass that runs, and what its layers asked for."""

    def __init__(self, this: Attention) -> None:
        self.this = this
        self.windows: list[int | None] = []
        """One for each call, so for each layer."""


_now: ContextVar[Seen] = ContextVar("pass")


@contextmanager
def stepping(configs: list[Any], this: Attention) -> Iterator[Seen]:
    """Within it, a model with these configurations attends by this pass."""
    before = [config._attn_implementation for config in configs]
    seen = Seen(this)
    token = _now.set(seen)
    try:
        for config in configs:
            config._attn_implementation = NAME
        yield seen
    finally:
        for config, name in zip(configs, before, strict=True):
            config._attn_implementation = name
        _now.reset(token)


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    is_causal: bool | None = None,
    position_bias: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Transformers' attention interface: query [1, heads, tokens, width] to [1, tokens, heads, width]."""
    if attention_mask is not None or position_bias is not None or is_causal is False:
        raise Unstepped("a mask or bias of the model's own")
    seen = _now.get()
    seen.windows.append(sliding_window)
    queries, keys, values = (each[0].transpose(0, 1) for each in (query, key, value))
    call = Call(scaling, sliding_window, softcap, s_aux)
    return seen.this.attend(module.layer_idx, queries, keys, values, call)[None], None


ALL_ATTENTION_FUNCTIONS.register(NAME, attend)


def _write(this: Pass, layer: int, keys: torch.Tensor, values: torch.Tensor) -> None:
    for shelf, slots, spots, tokens in this.writes:
        shelf.keys[layer][slots, :, spots] = keys[tokens]
        shelf.values[layer][slots, :, spots] = values[tokens]


def _together(group: Group, layer: int, rows: torch.Tensor, out: torch.Tensor, call: Call) -> None:
    shelf, first, slots, count, mask = group
    many = len(shelf.places)
    _, heads, sharing, width = rows.shape
    given = rows.new_zeros(many, heads, -(-sharing // ALIGNED) * ALIGNED, width)
    given[slots, :, :sharing] = rows[first : first + count]
    made = _attended(given, shelf.keys[layer, :many], shelf.values[layer, :many], mask(call.window), call)
    out[first : first + count] = made[slots, :, :sharing].reshape(count, *out.shape[1:])


def _apart(chunk: Chunk, layer: int, rows: torch.Tensor, out: torch.Tensor, call: Call) -> None:
    place, first, count, length, mask = chunk
    _, heads, sharing, width = rows.shape
    given = rows[first : first + count].permute(1, 2, 0, 3).reshape(1, heads, sharing * count, width)
    keys, values = (each[layer, place.slot, :, :length][None] for each in (place.shelf.keys, place.shelf.values))
    made = _attended(given, keys, values, mask(call.window).repeat(sharing, 1), call)
    back = made.view(heads, sharing, count, -1).permute(2, 0, 1, 3)
    out[first : first + count] = back.reshape(count, *out.shape[1:])


def _attended(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, call: Call
) -> torch.Tensor:
    """[rows, key heads, queries, width]; `mask` [rows, 1, 1, length] or [queries, length]."""
    if call.softcap is None and call.sinks is None:
        made: torch.Tensor = scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=call.scale)
        return made
    scores = queries @ keys.transpose(-1, -2) * (queries.shape[-1] ** -0.5 if call.scale is None else call.scale)
    if call.softcap is not None:
        scores = torch.tanh(scores / call.softcap) * call.softcap
    scores = scores + mask
    if call.sinks is not None:
        scores = torch.cat([scores, _columns(call.sinks, scores)], -1)
    shares = scores.float().softmax(-1).to(values.dtype)
    return shares[..., : keys.shape[2]] @ values


def _columns(sinks: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """One more score for each query, which takes its share and gives nothing: [query heads] to [rows, key heads,
    queries, 1]."""
    rows, heads, queries, _ = scores.shape
    sharing = sinks.numel() // heads
    return sinks.view(1, heads, sharing, 1).repeat_interleave(queries // sharing, 2).expand(rows, -1, -1, -1)
