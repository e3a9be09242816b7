"""A causal model over a pool of keys and values: one attention call a layer for all rows of a pass, and steps in which
every row reads one token recorded once for each number of rows. For GPUs, which wait for each call they are given."""

import logging
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch

from worker.engines.torch.device import Runs, attend_runs, errors_mapped, recorded
from worker.engines.torch.passes import Packed, Reading, room_for
from worker.engines.torch.pool import Pool
from worker.engines.torch.stepped import Stepped
from worker.engines.torch.stepping import Call, Unstepped
from worker.engines.torch.unfit import Unfit

log = logging.getLogger("textmill.worker")

ROWS = (8, 32, 64, 128, 256, 512)
"""Rows of recorded steps; a step of fewer is filled up."""
WIDTH, ALIGNED = 256, 8
"""The widest heads that FlashAttention 2 knows, and what their width is a multiple of."""


class PoolPass(NamedTuple):
    """What the attention of a pass over a pool has to know."""

    pool: Pool
    spots: torch.Tensor
    """Where each token's keys and values go, [tokens]."""
    runs: Runs
    alone: bool
    """Whether every row reads one token."""

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, call: Call
    ) -> torch.Tensor:
        if call.softcap is not None or call.sinks is not None:
            raise Unstepped("scores with a cap, or with sinks")
        keys, values = self.pool.keys[layer], self.pool.values[layer]
        keys.index_copy_(0, self.spots, key)
        values.index_copy_(0, self.spots, value)
        return attend_runs(query, keys, values, self.runs, causal=True, scale=call.scale, window=call.window)


class _Step(NamedTuple):
    """A recorded step: what it reads, which is written anew each time, how to ask for it, and where its logits lie."""

    made: Packed
    ask: Callable[[], Any]
    logits: torch.Tensor

    def __call__(self, made: Packed) -> torch.Tensor:
        """The logits of a pass of as many rows or fewer: those that fill it up read nobody's tokens, for nobody."""
        rows = made.tokens
        ours: Any = self.made.attention
        theirs: Any = made.attention
        self.made.ids[:, :rows] = made.ids
        self.made.positions[:, :rows] = made.positions
        for kept, new, filling in (
            (ours.spots, theirs.spots, 0),
            (ours.runs.keys, theirs.runs.keys, 0),
            (ours.runs.used, theirs.runs.used, 1),
        ):
            kept[rows:] = filling
            kept[:rows] = new[:rows]
        self.ask()
        return self.logits[:rows].clone()


class Pooled(Stepped):
    """Runs passes over a pool."""

    takes_branches = False

    def __init__(self, model: Any, *, limit: int) -> None:
        """`limit`: tokens of the longest row."""
        super().__init__(model)
        self._longest, self._records = room_for(limit + 1).length, True
        width = self.shape.keys
        if width != self.shape.values or width > WIDTH or width % ALIGNED:
            raise Unfit(f"heads of {width} and {self.shape.values}")

    def store(self, most_bytes: int) -> Pool:
        return Pool(self.shape, most_bytes)

    def packed(self, singles: Sequence[Reading], chunks: Sequence[Reading], pad: int) -> Packed:
        ordered = [*singles, *chunks]
        firsts = [0, *accumulate(len(each.ids) for each in ordered)]
        runs = Runs(
            self._ints(firsts),
            self._ints([*(each.place.start for each in ordered), 0]),
            self._ints([each.length for each in ordered]),
            max(len(each.ids) for each in ordered),
            max(each.length for each in ordered),
        )
        spots = [each.place.start + at for each in ordered for at in range(each.start, each.length)]
        keep = [first + at for first, each in zip(firsts, ordered, strict=False) for at in each.wanted]
        return Packed(
            self._longs([[number for each in ordered for number in each.ids]]),
            self._longs([[number for each in ordered for number in range(each.start, each.length)]]),
            self._longs(keep),
            PoolPass(ordered[0].place.pool, self._longs(spots), runs, alone=not chunks),
            firsts[-1],
        )

    def __call__(self, made: Packed) -> torch.Tensor:
        attention: Any = made.attention
        rows = next((rows for rows in ROWS if rows >= made.tokens), None) if attention.alone else None
        step = self._step(attention.pool, rows) if rows is not None and self._records else None
        if step is None:
            return super().__call__(made)
        with torch.inference_mode(), errors_mapped():
            return step(made)

    def _step(self, pool: Pool, rows: int) -> _Step | None:
        """The recorded step of so many rows; None where it cannot be recorded."""
        if rows not in pool.steps:
            try:
                pool.steps[rows] = self._recorded(pool, rows)
            except RuntimeError as error:  # a model that asks its device for numbers while it runs, say
                log.warning("a %s runs without recorded steps: %s", type(self._model).__name__, error)
                self._records = False
        return pool.steps.get(rows)

    def _recorded(self, pool: Pool, rows: int) -> _Step:
        runs = Runs(self._ints(range(rows + 1)), self._ints([0] * (rows + 1)), self._ints([1] * rows), 1, self._longest)
        attention = PoolPass(pool, self._longs([0] * rows), runs, alone=True)
        nothing, keep = self._longs([[0] * rows]), self._longs(range(rows))
        made = Packed(nothing, nothing.clone(), keep, attention, rows)
        run = super().__call__
        with torch.inference_mode():
            ask, logits = recorded(lambda: run(made), self._device)
        return _Step(made, ask, logits)

    def _ints(self, numbers: Sequence[int]) -> torch.Tensor:
        return torch.tensor(numbers, dtype=torch.int32, device=self._device)

    def _longs(self, numbers: Sequence[Any]) -> torch.Tensor:
        return torch.tensor(numbers, dtype=torch.long, device=self._device)
