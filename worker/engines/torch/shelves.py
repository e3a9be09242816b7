"""Keys and values of many sequences, kept in stacks of equal width that one product reads without copying."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch

STEP, STEPS = 16, 4
"""Widths: multiples of 16 up to 64; beyond, four of them between each power of two and the next."""
FIRST_ROOM = 4
"""Sequences for which a new stack has room; doubled when it is full."""


def width_of(columns: int) -> int:
    """The width of the stack for that many columns, which depends on nothing else: neither do a sequence's results."""
    step = max(STEP, (1 << (max(columns, 1) - 1).bit_length()) // (2 * STEPS))
    return -(-max(columns, 1) // step) * step


class Kind(NamedTuple):
    """Sequences that may lie in one stack."""

    rows: int
    """Queries of each sequence."""
    width: int
    """Columns of each: `rows` for every step that fits, where the queries write keys too."""


class Place:
    """Where a sequence lies: it moves when it outgrows its stack or when another one leaves."""

    __slots__ = ("at", "owner", "shelf")

    def __init__(self, owner: object) -> None:
        self.owner, self.at = owner, 0
        self.shelf: Shelf | None = None


class Shelf:
    """One stack. The first `len(places)` entries are in use, in the order of `places`."""

    def __init__(self, kind: Kind, *, layers: int, heads: int, size: int, like: torch.Tensor) -> None:
        self.kind, self.places, self._shape = kind, list[Place](), (layers, heads, size)
        self.keys = like.new_zeros(layers, 0, heads, kind.width, size)
        self.values = like.new_zeros(layers, 0, heads, kind.width, size)
        self.mask = like.new_zeros(0, kind.rows, kind.width)
        """0 where a query may look, else minus infinity."""

    def put(self, place: Place) -> None:
        """An empty entry for this one: zeros (what was left there must not be a NaN), nothing to look at."""
        if len(self.places) == self.mask.shape[0]:
            self._grow()
        place.shelf, place.at = self, len(self.places)
        self.places.append(place)
        self.keys[:, place.at] = 0
        self.values[:, place.at] = 0
        self.mask[place.at] = -torch.inf

    def remove(self, place: Place) -> None:
        """Its entry goes to the last one."""
        last = self.places.pop()
        if last is not place:
            for tensor in (self.keys, self.values):
                tensor[:, place.at] = tensor[:, last.at]
            self.mask[place.at] = self.mask[last.at]
            last.at = place.at
            self.places[last.at] = last

    def move(self, place: Place, to: "Shelf") -> None:
        """With all it holds, to a wider stack."""
        at, width = place.at, self.kind.width
        keys, values, mask = self.keys[:, at], self.values[:, at], self.mask[at]
        to.put(place)
        to.keys[:, place.at, :, :width] = keys
        to.values[:, place.at, :, :width] = values
        to.mask[place.at, :, :width] = mask
        moved, place.at, place.shelf = place.at, at, self
        self.remove(place)
        place.at, place.shelf = moved, to

    def _grow(self) -> None:
        room = max(FIRST_ROOM, 2 * self.mask.shape[0])
        layers, heads, size = self._shape
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = old.new_zeros(layers, room, heads, self.kind.width, size)
            new[:, : old.shape[1]] = old
            setattr(self, name, new)
        mask = self.mask.new_full((room, *self.mask.shape[1:]), -torch.inf)
        mask[: len(self.mask)] = self.mask
        self.mask = mask


class Shelves:
    """All stacks of one sort: of what was written so far, or of the sources."""

    def __init__(self, *, layers: int, heads: int, size: int, like: torch.Tensor) -> None:
        self._made = {"layers": layers, "heads": heads, "size": size}
        self._like = like
        self._by_kind: dict[Kind, Shelf] = {}

    def __iter__(self) -> Iterator[Shelf]:
        """Those in use, in an order of their own."""
        return (self._by_kind[kind] for kind in sorted(self._by_kind))

    def put(self, place: Place, kind: Kind) -> Shelf:
        shelf = self._shelf(kind)
        shelf.put(place)
        return shelf

    def widen(self, place: Place, columns: int) -> bool:
        """Room for so many columns; whether the sequence had to move."""
        old = _shelf_of(place)
        if columns <= old.kind.width:
            return False
        old.move(place, self._shelf(Kind(old.kind.rows, old.kind.rows * width_of(columns // old.kind.rows))))
        self._forget(old)
        return True

    @torch.inference_mode()
    def remove(self, places: Iterable[Place]) -> None:
        for place in places:
            if place.shelf is not None:
                place.shelf.remove(place)
                self._forget(place.shelf)
                place.shelf = None

    def clear(self) -> None:
        self._by_kind.clear()

    def _shelf(self, kind: Kind) -> Shelf:
        if kind not in self._by_kind:
            self._by_kind[kind] = Shelf(kind, like=self._like, **self._made)
        return self._by_kind[kind]

    def _forget(self, shelf: Shelf) -> None:
        if not shelf.places:
            del self._by_kind[shelf.kind]


def _shelf_of(place: Place) -> Shelf:
    assert place.shelf is not None, "nothing was put there"
    return place.shelf
