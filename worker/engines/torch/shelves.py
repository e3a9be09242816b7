"""Keys and values of many sequences, on shelves: sequences of one length side by side, so that one call attends for all
of them without copying."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from worker.engines.torch.prefixes import Piece

PARTS = 4
"""Lengths of shelves between a power of two and the next; short ones are a step apart."""
FIRST_ROOM = 4
"""Sequences for which a new shelf has room, where memory allows it; doubled when it is full."""


class Shape(NamedTuple):
    """What one token takes: [layers, heads, width] of keys, and the width of values."""

    layers: int
    heads: int
    keys: int
    values: int
    dtype: torch.dtype
    device: torch.device = torch.device("cpu")

    @property
    def bytes(self) -> int:
        return self.layers * self.heads * (self.keys + self.values) * self.dtype.itemsize


class Kind(NamedTuple):
    """Sequences that may lie on one shelf."""

    queries: int
    """Queries of each for which the shelf keeps what they may look at; 0: others know that."""
    length: int
    """Tokens of each."""
    sort: str = ""
    """Sequences of different sorts are kept apart."""


def length_for(tokens: int, *, step: int) -> int:
    """The length of a shelf for a sequence of so many tokens: of its own length only, and so its results are."""
    apart = max(step, (1 << max(1, tokens).bit_length() - 1) // PARTS)
    return -(-max(1, tokens) // apart) * apart


class Shelf:
    """Room for sequences of one kind, without gaps: the last one takes the place of one that leaves."""

    def __init__(self, shape: Shape, kind: Kind) -> None:
        self.kind, self.length, self._shape = kind, kind.length, shape
        self.places: list[Place] = []
        self.keys, self.values, self.mask = self._tensors(0)

    @property
    def room(self) -> int:
        return len(self.mask)

    @property
    def bytes(self) -> int:
        return sum(each.numel() * each.element_size() for each in (self.keys, self.values, self.mask))

    def resize(self, room: int) -> None:
        """Have room for so many. Where memory is short, nothing has changed."""
        keys, values, mask = self._tensors(room)
        used = len(self.places)
        keys[:, :used], values[:, :used], mask[:used] = self.keys[:, :used], self.values[:, :used], self.mask[:used]
        self.keys, self.values, self.mask = keys, values, mask

    def add(self, place: "Place") -> int:
        """Its number, where there was room; all zeros, since a NaN that was left there would outlive a share of zero,
        and nothing to look at."""
        slot = len(self.places)
        self.keys[:, slot], self.values[:, slot], self.mask[slot] = 0, 0, -torch.inf
        self.places.append(place)
        return slot

    def take_over(self, slot: int, other: "Shelf", its: int) -> None:
        """What a shorter shelf holds in its place, into one of this shelf's."""
        self.keys[:, slot, :, : other.length] = other.keys[:, its]
        self.values[:, slot, :, : other.length] = other.values[:, its]
        self.mask[slot, :, : other.length] = other.mask[its]

    def remove(self, slot: int) -> None:
        last = self.places[-1]
        if last.slot != slot:
            self.keys[:, slot], self.values[:, slot] = self.keys[:, last.slot], self.values[:, last.slot]
            self.mask[slot] = self.mask[last.slot]
            self.places[slot], last.slot = last, slot
        self.places.pop()

    def _tensors(self, room: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        layers, heads, keys, values, dtype, device = self._shape
        return (
            torch.empty(layers, room, heads, self.length, keys, dtype=dtype, device=device),
            torch.empty(layers, room, heads, self.length, values, dtype=dtype, device=device),
            torch.empty(room, self.kind.queries, self.length, dtype=dtype, device=device),
        )


class Place:
    """Where one sequence lies: nowhere at first. It moves when it outgrows its shelf, and when another one leaves."""

    __slots__ = ("_shelf", "_shelves", "owner", "slot")

    def __init__(self, shelves: "Shelves", owner: object = None) -> None:
        self._shelves, self.owner = shelves, owner
        self._shelf: Shelf | None = None
        self.slot = 0

    @property
    def shelf(self) -> Shelf:
        assert self._shelf is not None, "nothing was put there"
        return self._shelf

    @property
    def length(self) -> int:
        """Tokens that it has room for."""
        return self.shelf.length

    @property
    def order(self) -> tuple[Kind, int]:
        """Those in this order lie side by side."""
        return self.shelf.kind, self.slot

    def reach(self, kind: Kind) -> bool:
        """Lie on a shelf of this kind, or stay on one that is as long; whether it moved. Where memory is short, it lies
        where it lay."""
        old = self._shelf
        if old is not None and kind.length <= old.length:
            return False
        new = self._shelves.with_room(kind)  # before anything is changed: it may raise
        slot = new.add(self)
        if old is not None:
            new.take_over(slot, old, self.slot)
            old.remove(self.slot)
        self._shelf, self.slot = new, slot
        self._shelves.stay_within()
        return True

    def leave(self) -> None:
        """Lie nowhere any longer."""
        if self._shelf is not None:
            self._shelf.remove(self.slot)
            self._shelf = None

    def copy(self, other: "Place", tokens: int) -> None:
        """Take over the first tokens of another sequence."""
        self.put(0, other.piece(0, tokens))

    def piece(self, start: int, end: int) -> Piece:
        """A view of these tokens, [layers, heads, tokens, width]."""
        return Piece(self.shelf.keys[:, self.slot, :, start:end], self.shelf.values[:, self.slot, :, start:end])

    def put(self, start: int, piece: Piece) -> None:
        end = start + piece.keys.shape[2]
        self.shelf.keys[:, self.slot, :, start:end] = piece.keys
        self.shelf.values[:, self.slot, :, start:end] = piece.values


class Shelves:
    """All shelves of a model: as many as its sequences need, and more only within `most_bytes`."""

    def __init__(self, shape: Shape, most_bytes: int) -> None:
        self.shape, self._most = shape, most_bytes
        self.capacity = most_bytes // shape.bytes
        """Tokens that may be promised."""
        self._by_kind: dict[Kind, Shelf] = {}

    def place(self) -> Place:
        """A sequence, which lies nowhere at first."""
        return Place(self)

    def put(self, pieces: Sequence[tuple[Place, int, Piece]]) -> None:
        """Have these pieces lie in sequences: for each, its place, and where it begins there."""
        for place, start, piece in pieces:
            place.put(start, piece)

    def in_use(self, sort: str = "") -> list[Shelf]:
        """Those of a sort that hold anything, in an order of their own."""
        kinds = sorted(kind for kind, shelf in self._by_kind.items() if kind.sort == sort and shelf.places)
        return [self._by_kind[kind] for kind in kinds]

    def with_room(self, kind: Kind) -> Shelf:
        """The shelf of that kind, with room for one more."""
        shelf = self._by_kind.get(kind) or Shelf(self.shape, kind)
        if len(shelf.places) == shelf.room:
            shelf.resize(self._enough(shelf))
        self._by_kind[kind] = shelf  # only now: one that memory was too short for is not kept
        return shelf

    def stay_within(self) -> None:
        """Give back what a sequence has left behind, where it is too much."""
        if self.bytes() > self._most:
            self.trim()

    def trim(self) -> None:
        """Give back the memory that no sequence needs."""
        self._by_kind = {kind: shelf for kind, shelf in self._by_kind.items() if shelf.places}
        for shelf in self._by_kind.values():
            if len(shelf.places) < shelf.room:
                shelf.resize(len(shelf.places))

    def bytes(self) -> int:
        return sum(shelf.bytes for shelf in self._by_kind.values())

    def clear(self) -> None:
        self._by_kind.clear()

    def _enough(self, shelf: Shelf) -> int:
        """Twice the room of a full shelf; where that would be more than all may take, and still is when the others have
        given back what they can spare, as much as remains, but room for one more."""
        used = len(shelf.places)
        each = self.shape.bytes * shelf.length + shelf.kind.queries * shelf.length * self.shape.dtype.itemsize
        wanted = max(FIRST_ROOM, 2 * used)
        if self.bytes() + (wanted - used) * each > self._most:
            self.trim()
        return min(wanted, used + max(1, (self._most - self.bytes()) // each))
