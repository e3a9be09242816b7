"""An encoder-decoder model behind the port: the loop for what it can do, `generate()` for the rest.

On a CPU only: the loop is device-agnostic torch, but no GPU was at hand to try it on.
"""

import copy
import logging
from collections.abc import Callable, Sequence
from typing import Any

from worker.engines.base import Encoded, Model, Room, Work
from worker.engines.loop import LoopModel
from worker.engines.routes import RoutedModel
from worker.engines.torch.linear import Quickened
from worker.engines.torch.rules import supported
from worker.engines.torch.seq2seq import Seq2SeqCodec
from worker.engines.torch.seq2seq_loop import ROWS, Seq2SeqLoop
from worker.engines.torch.seq2seq_proof import prove
from worker.engines.torch.strands import SOURCE_TOKENS, bytes_of, shape_of
from worker.engines.torch.unfit import Unfit
from worker.engines.torch.wiring import Wiring

log = logging.getLogger("textmill.worker")

SPARE = 2
"""Keys and values take one in so many of the bytes that weights leave: a growing shelf is there twice for a while."""
WIDE_ROWS = 1024
"""The same as `ROWS` on a GPU, where few rows take as long as many."""
MOST_ROWS, WRITTEN = 128, 512
"""Rows of the largest item, and tokens that they write: there are never more keys and values than they need."""
LOGITS = 3
"""Copies of the logits of a pass that may exist at a time."""


def with_strands(
    model: Any, codec: Seq2SeqCodec, room: Room, *, plain: Model, cost: Callable[[Encoded], int], quick: Quickened
) -> Model:
    """The model with its loop, or `plain` alone where the loop does not give the same."""
    try:
        loop = _loop(model, codec, room, int(plain.stats()["memory_bytes"]) + quick.extra_bytes, exact=quick.exact)
    except Unfit as reason:
        log.warning("a %s generates in plain batches: %s", type(model).__name__, reason)
        return plain
    looped = LongestFirst(loop, max_batch_tokens=room.max_batch_tokens, cost=cost)
    return RoutedModel(looped, plain, takes=loop.takes)


class LongestFirst(LoopModel):
    """Starts the longest of what came together first: they take the most steps, and late ones would end alone."""

    def add(self, work: Sequence[Work]) -> None:
        super().add(sorted(work, key=lambda item: -item.encoded.length))


def _loop(model: Any, codec: Seq2SeqCodec, room: Room, weights: int, *, exact: bool) -> Seq2SeqLoop:
    own = copy.copy(codec.generation)
    own.num_beams = 1  # beams that draw are asked for by request
    if reason := supported(own):
        raise Unfit(f"its configuration has {reason}")
    words = model.get_output_embeddings().out_features
    wiring = Wiring(model)
    rows = ROWS if wiring.device.type == "cpu" else WIDE_ROWS
    free = (room.memory_bytes - weights - LOGITS * rows * words * 4) // SPARE
    memory = min(free, bytes_of(shape_of(wiring), max(rows, MOST_ROWS), codec.limit, WRITTEN))
    try:
        if memory < bytes_of(shape_of(wiring), 1, codec.limit, 1):
            raise Unfit(f"{room.memory_bytes} bytes leave no room for rows beside the weights")
        same = prove(wiring, words=words, limit=codec.limit, pad=codec.pad)
    except BaseException:
        wiring.release()
        raise
    return Seq2SeqLoop(
        wiring,
        codec.generation,
        codec.tokens.decode,
        target_as=codec.target_as,
        source_tokens=max(SOURCE_TOKENS, room.max_batch_tokens),
        memory=memory,
        rows=rows,
        known={"memory_bytes": weights, "cache_bytes": memory, "mode": "exact" if exact and same else "close"},
    )
