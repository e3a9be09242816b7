"""A decoder-only model behind the port: the loop for what it can do, `generate()` for the rest."""

import logging
from collections.abc import Callable
from typing import Any

from worker.engines.base import Encoded, Model, Room
from worker.engines.loop import LoopModel
from worker.engines.routes import RoutedModel
from worker.engines.torch.causal import CausalCodec
from worker.engines.torch.decoder import PASS_TOKENS, SLOTS, CausalLoop
from worker.engines.torch.device import has_runs
from worker.engines.torch.passes import room_for
from worker.engines.torch.pooled import Pooled
from worker.engines.torch.stepped import Stepped, prove
from worker.engines.torch.unfit import Unfit

log = logging.getLogger("textmill.worker")

WIDE_SLOTS, WIDE_PASS = 512, 16_384
"""The same as `SLOTS` and `PASS_TOKENS` on a GPU, where a pass of few rows takes as long as one of many."""
REFILL = 8
"""On a GPU one in so many rows has to be free before others come in: a pass that reads prompts takes several times as
long as a recorded step, however few it reads."""
SLOT_TOKENS = 512
"""Tokens of keys and values for each row, on average: most requests are shorter."""
CACHE_SHARE, PREFIX_SHARE = 2, 16
"""Most that keys and values, and what prompts have in common, take: one in so many of the bytes that weights leave. A
shelf that grows is there twice for a moment."""


def with_loop(
    model: Any, codec: CausalCodec, room: Room, *, plain: Model, cost: Callable[[Encoded], int], exact: bool
) -> Model:
    """The model with its loop, or `plain` alone where the loop does not give the same. `exact`: whether the products
    of its linear layers are the same in every company."""
    try:
        passes, same = _proven(model, codec)
    except Unfit as reason:
        log.warning("a %s generates in plain batches: %s", type(model).__name__, reason)
        return plain
    weights = int(plain.stats()["memory_bytes"])
    free = max(0, room.memory_bytes - weights)
    longest = 2 * room_for(codec.limit).length  # a prompt, and one text at a time from it
    on_cpu = passes.shape.device.type == "cpu"
    slots, pass_tokens = (SLOTS, PASS_TOKENS) if on_cpu else (WIDE_SLOTS, WIDE_PASS)
    enough = max(slots * SLOT_TOKENS, longest) * passes.shape.bytes
    cache, prefixes = min(free // CACHE_SHARE, enough), min(free // PREFIX_SHARE, enough)
    loop = CausalLoop(
        passes,
        codec,
        cache_bytes=cache,
        prefix_bytes=prefixes,
        slots=slots,
        pass_tokens=pass_tokens,
        refill=1 if on_cpu else WIDE_SLOTS // REFILL,
        known={
            "memory_bytes": weights,
            "cache_bytes": cache + prefixes,
            "mode": "exact" if exact and same else "close",
        },
    )
    looped = LoopModel(loop, max_batch_tokens=room.max_batch_tokens, cost=cost)
    return RoutedModel(looped, plain, takes=loop.takes)


def _proven(model: Any, codec: CausalCodec) -> tuple[Stepped, bool]:
    """Passes over a pool where the device has an attention for it, else over shelves; and whether a row's logits have
    the same bits in every company. Raises Unfit."""
    words, weight = codec.config.get_text_config().vocab_size, next(model.parameters())
    if has_runs(weight.device, weight.dtype):
        try:
            pooled = Pooled(model, limit=codec.limit)
            return pooled, prove(pooled, words=words, limit=codec.limit)
        except Unfit as reason:
            log.info("keys and values of a %s lie on shelves: %s", type(model).__name__, reason)
    stepped = Stepped(model)
    return stepped, prove(stepped, words=words, limit=codec.limit)
