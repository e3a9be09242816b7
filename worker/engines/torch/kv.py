"""Keys and values of the tokens that rows have read, on shelves: rows of like length side by side, so that one call
attends for all of them."""

from typing import Any, NamedTuple

import torch

from worker.engines.torch.prefixes import Piece

STEP = 64
"""Shelves are made for multiples of so many tokens."""
PARTS = 4
"""Long shelves are further apart: a quarter of the power of two below."""


class Shape(NamedTuple):
    """What one token takes: [layers, heads, width] of keys, and the width of values."""

    layers: int
    heads: int
    keys: int
    values: int
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        return self.layers * self.heads * (self.keys + self.values) * self.dtype.itemsize


def capacity(tokens: int) -> int:
    """The length of the shelf for a row of so many tokens: of its own length only, never of its neighbours'."""
    step = max(STEP, 1 << max(0, tokens.bit_length() - 1) >> (PARTS.bit_length() - 1))
    return -(-tokens // step) * step


class Shelf:
    """Room for rows of one length, without gaps: the last row takes the place of one that leaves."""

    def __init__(self, shape: Shape, length: int) -> None:
        self.length, self._shape = length, shape
        self.rows: list[Place] = []
        self.keys, self.values = self._tensors(0)

    def add(self, place: "Place") -> int:
        """Its number on the shelf."""
        if len(self.rows) == self.keys.shape[1]:
            self._grow()
        self.rows.append(place)
        return len(self.rows) - 1

    def remove(self, place: "Place") -> None:
        last = self.rows.pop()
        if last is not place:
            self.keys[:, place.slot] = self.keys[:, last.slot]
            self.values[:, place.slot] = self.values[:, last.slot]
            self.rows[place.slot], last.slot = last, place.slot

    def _grow(self) -> None:
        many = self.keys.shape[1]
        keys, values = self._tensors(max(4, 2 * many))
        keys[:, :many], values[:, :many] = self.keys, self.values
        self.keys, self.values = keys, values

    def _tensors(self, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Numbers from the start, because what a row does not attend to counts zero times, which NaN survives."""
        layers, heads, keys, values, dtype = self._shape
        shapes = ((layers, rows, heads, self.length, width) for width in (keys, values))
        return tuple(torch.zeros(shape, dtype=dtype) for shape in shapes)  # type: ignore[return-value]


class Place:
    """Where one row's keys and values lie."""

    def __init__(self, cabinet: "Cabinet", tokens: int) -> None:
        self._cabinet = cabinet
        self.shelf = cabinet.shelf(tokens)
        self.slot = self.shelf.add(self)

    @property
    def order(self) -> tuple[int, int]:
        """Rows in this order lie side by side."""
        return self.shelf.length, self.slot

    def reach(self, tokens: int) -> None:
        """Have room for so many tokens; moves to a longer shelf where needed."""
        if tokens <= self.shelf.length:
            return
        old, slot = self.shelf, self.slot
        self.shelf = self._cabinet.shelf(tokens)
        number = self.shelf.add(self)
        for mine, its in ((self.shelf.keys, old.keys), (self.shelf.values, old.values)):
            mine[:, number, :, : old.length] = its[:, slot]
        old.remove(self)
        self.slot = number

    def copy(self, other: "Place", tokens: int) -> None:
        """Take over the first tokens of another row."""
        self.put(0, other.piece(0, tokens))

    def piece(self, start: int, end: int) -> Piece:
        """A view of these tokens."""
        return Piece(self.shelf.keys[:, self.slot, :, start:end], self.shelf.values[:, self.slot, :, start:end])

    def put(self, start: int, piece: Piece) -> None:
        end = start + piece.keys.shape[2]
        self.shelf.keys[:, self.slot, :, start:end] = piece.keys
        self.shelf.values[:, self.slot, :, start:end] = piece.values

    def leave(self) -> None:
        """Free the place."""
        self.shelf.remove(self)

    def wipe(self) -> None:
        """Leave nothing behind: what was written here may be NaN."""
        self.shelf.keys[:, self.slot] = 0
        self.shelf.values[:, self.slot] = 0


class Cabinet:
    """All shelves of a model."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self._shelves: dict[int, Shelf] = {}

    def shelf(self, tokens: int) -> Shelf:
        length = capacity(tokens)
        if length not in self._shelves:
            self._shelves[length] = Shelf(self.shape, length)
        return self._shelves[length]

    def shelves(self) -> list[Shelf]:
        """Those in use."""
        return [shelf for shelf in self._shelves.values() if shelf.rows]

    def trim(self) -> None:
        """Give back the memory of shelves that stand empty."""
        self._shelves = {length: shelf for length, shelf in self._shelves.items() if shelf.rows}

    def bytes(self) -> int:
        tensors: list[Any] = [each for shelf in self._shelves.values() for each in (shelf.keys, shelf.values)]
        return sum(each.numel() * each.element_size() for each in tensors)
