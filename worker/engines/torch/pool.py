"""Keys and values of many sequences in one flat store, each in a run of its own, so that one call attends for all."""

from bisect import insort
from collections.abc import Sequence
from typing import Any

import torch

from worker.engines.base import OutOfMemory
from worker.engines.torch.prefixes import Piece
from worker.engines.torch.shelves import Kind, Shape

SCRATCH = 64
"""Tokens at the start that belong to nobody: rows that only fill a pass up write there."""
SPARE = 5
"""One in so many tokens is not promised to anybody: what lies between runs cannot be used, and who grows is there twice
for a moment."""


class Pool:
    """Room for so many bytes of keys and values, all taken at once."""

    def __init__(self, shape: Shape, most_bytes: int) -> None:
        layers, heads, keys, values, dtype, device = shape
        self.shape, tokens = shape, max(SPARE, most_bytes // shape.bytes)
        self.capacity = tokens - tokens // SPARE
        """Tokens that may be promised."""
        self.keys = torch.zeros(layers, SCRATCH + tokens, heads, keys, dtype=dtype, device=device)
        self.values = torch.zeros(layers, SCRATCH + tokens, heads, values, dtype=dtype, device=device)
        self.steps: dict[int, Any] = {}
        """Recorded steps over it, by their rows."""
        self._free = [(SCRATCH, SCRATCH + tokens)]

    def place(self) -> "Run":
        """A sequence, which lies nowhere at first."""
        return Run(self)

    def take(self, tokens: int) -> int:
        """Where a run of so many tokens begins: the first gap that holds it. Raises OutOfMemory."""
        for at, (start, end) in enumerate(self._free):
            if end - start >= tokens:
                self._free[at : at + 1] = [(start + tokens, end)] if end - start > tokens else []
                return start
        raise OutOfMemory(f"no run of {tokens} tokens is left among {self.capacity} of keys and values")

    def give(self, start: int, tokens: int) -> None:
        """Take a run back."""
        gap = (start, start + tokens)
        insort(self._free, gap)
        at = self._free.index(gap)
        for left in (at, at - 1):  # what lies behind it first, so that numbers before it stay
            if 0 <= left < len(self._free) - 1 and self._free[left][1] == self._free[left + 1][0]:
                self._free[left : left + 2] = [(self._free[left][0], self._free[left + 1][1])]

    def put(self, pieces: Sequence[tuple["Run", int, Piece]]) -> None:
        """Have these pieces lie in sequences: for each, its place, and where it begins there. All in one call."""
        if not pieces:
            return
        starts = [run.start + start for run, start, _ in pieces]
        lengths = [piece.keys.shape[1] for _, _, piece in pieces]
        spots = [spot for start, length in zip(starts, lengths, strict=True) for spot in range(start, start + length)]
        where = torch.tensor(spots, device=self.keys.device)
        self.keys.index_copy_(1, where, torch.cat([piece.keys for _, _, piece in pieces], 1))
        self.values.index_copy_(1, where, torch.cat([piece.values for _, _, piece in pieces], 1))

    def trim(self) -> None:
        """Nothing to give back: all was taken at once."""

    def clear(self) -> None:
        """The memory is given back; nothing may be put there any more."""
        self._free = []
        self.steps.clear()
        self.keys = self.values = self.keys[:, :0]


class Run:
    """Where one sequence lies."""

    __slots__ = ("length", "pool", "start")

    def __init__(self, pool: Pool) -> None:
        self.pool, self.start, self.length = pool, 0, 0

    @property
    def order(self) -> int:
        """Any order will do."""
        return self.start

    def reach(self, kind: Kind) -> bool:
        """Have room for so many tokens; whether it moved. Where memory is short, it lies where it lay."""
        if kind.length <= self.length:
            return False
        start = self.pool.take(kind.length)  # before anything is changed: it may raise
        if self.length:
            held = self.piece(0, self.length)
            self.pool.give(self.start, self.length)
            self.start, self.length = start, kind.length
            self.put(0, held)
        self.start, self.length = start, kind.length
        return True

    def leave(self) -> None:
        """Lie nowhere any longer."""
        if self.length:
            self.pool.give(self.start, self.length)
            self.start = self.length = 0

    def copy(self, other: "Run", tokens: int) -> None:
        """Take over the first tokens of another sequence."""
        self.put(0, other.piece(0, tokens))

    def piece(self, start: int, end: int) -> Piece:
        """A view of these tokens, [layers, tokens, heads, width]."""
        where = slice(self.start + start, self.start + end)
        return Piece(self.pool.keys[:, where], self.pool.values[:, where])

    def put(self, start: int, piece: Piece) -> None:
        where = slice(self.start + start, self.start + start + piece.keys.shape[1])
        self.pool.keys[:, where] = piece.keys
        self.pool.values[:, where] = piece.values
