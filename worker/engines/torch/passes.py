"""One forward pass put together: rows that each read a token, and chunks of rows that read several."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any, NamedTuple

import torch

from worker.engines.torch.linear import FLOOR
from worker.engines.torch.shelves import Kind, Shape, Shelf, length_for
from worker.engines.torch.stepping import Attention, Chunk, Group, Mask, Pass, Write

STEP = 64
"""Shelves are made for multiples of so many tokens."""


class Reading(NamedTuple):
    """Tokens that a row reads next, and for which of them, by number, it wants to know what follows."""

    place: Any
    """Of the store that the pass is made for."""
    ids: Sequence[int]
    start: int
    """Where the first one goes, behind what the row has read."""
    wanted: Sequence[int]
    positions: Sequence[int] | None = None
    """Where each stands in its text; None: one behind the other from `start`."""
    branches: Sequence[int] | None = None
    """Of several texts with the same start that are read at once: which one each token belongs to."""

    @property
    def length(self) -> int:
        return self.start + len(self.ids)


def room_for(tokens: int) -> Kind:
    """Where a row of so many tokens lies."""
    return Kind(0, length_for(tokens, step=STEP))


class Packed(NamedTuple):
    """A forward pass: what the model is given, and what its attention has to know."""

    ids: torch.Tensor
    positions: torch.Tensor
    keep: torch.Tensor
    """The tokens whose logits come back, in this order."""
    attention: Attention
    tokens: int


def packed(singles: Sequence[Reading], chunks: Sequence[Reading], pad: int, shape: Shape) -> Packed:
    """The pass that reads all of these, whose logits come back in this order. Singles are of one token each, and
    sorted by their places' `order`; places are of that shape."""
    ordered = [*singles, *chunks]
    ids = [number for each in ordered for number in each.ids]
    positions = [number for each in ordered for number in each.positions or range(each.start, each.length)]
    firsts = _firsts(ordered)
    keep = [first + number for first, each in zip(firsts, ordered, strict=True) for number in each.wanted]
    fill = max(0, FLOOR - len(ids))
    made = Pass(
        list(_writes(ordered, firsts, shape.device)),
        list(_groups(ordered[: len(singles)], shape)),
        [
            Chunk(each.place, first, len(each.ids), each.length, _chunk_mask(each, shape))
            for first, each in zip(firsts[len(singles) :], chunks, strict=True)
        ],
    )
    return Packed(
        torch.tensor([ids + [pad] * fill], device=shape.device),
        torch.tensor([positions + [0] * fill], device=shape.device),
        torch.tensor(keep, dtype=torch.long, device=shape.device),
        made,
        len(ids),
    )


def _firsts(readings: Sequence[Reading]) -> list[int]:
    """Where each begins in the pass."""
    found, at = [], 0
    for each in readings:
        found.append(at)
        at += len(each.ids)
    return found


def _writes(readings: Sequence[Reading], firsts: Sequence[int], device: torch.device) -> Iterator[Write]:
    numbered = sorted(zip(readings, firsts, strict=True), key=lambda pair: pair[0].place.shelf.length)
    for _, of_shelf in groupby(numbered, key=lambda pair: pair[0].place.shelf.length):
        members = list(of_shelf)
        slots = [each.place.slot for each, _ in members for _ in each.ids]
        spots = [spot for each, _ in members for spot in range(each.start, each.length)]
        tokens = [first + at for each, first in members for at in range(len(each.ids))]
        yield Write(members[0][0].place.shelf, *(torch.tensor(each, device=device) for each in (slots, spots, tokens)))


def _groups(singles: Sequence[Reading], shape: Shape) -> Iterator[Group]:
    first = 0
    for _, of_shelf in groupby(singles, key=lambda each: each.place.shelf.length):
        members = list(of_shelf)
        shelf = members[0].place.shelf
        slots = [each.place.slot for each in members]
        whole = len(slots) == len(shelf.places)
        mask = _group_mask(shelf, slots, [each.length for each in members], shape)
        which = slice(None) if whole else torch.tensor(slots, device=shape.device)
        yield Group(shelf, first, which, len(members), mask)
        first += len(members)


def _group_mask(shelf: Shelf, slots: list[int], lengths: list[int], shape: Shape) -> Mask:
    """Each row sees its own length; a row of the shelf that reads nothing now sees one token, for nobody."""
    ends = torch.ones(len(shelf.places), dtype=torch.long)
    ends[slots] = torch.tensor(lengths)
    keys, last = torch.arange(shelf.length, device=shape.device), ends.to(shape.device)[:, None]

    def mask(window: int | None) -> torch.Tensor:
        seen = (keys < last) if window is None else (keys < last) & (keys >= last - window)
        return _added(seen, shape)[:, None, None, :]

    return _once(mask)


def _chunk_mask(reading: Reading, shape: Shape) -> Mask:
    if reading.branches is None:
        return lambda window: _causal(reading.start, len(reading.ids), window, shape)
    return _once(lambda window: _branched(reading, window, shape))


@lru_cache(maxsize=512)
def _causal(start: int, count: int, window: int | None, shape: Shape) -> torch.Tensor:
    """[count, start + count]: each token sees those before it and itself."""
    keys, own = torch.arange(start + count), torch.arange(start, start + count)[:, None]
    return _added(keys <= own if window is None else (keys <= own) & (keys > own - window), shape)


def _branched(reading: Reading, window: int | None, shape: Shape) -> torch.Tensor:
    """Each token sees the common start, and its own branch up to itself."""
    own = torch.tensor(reading.positions)
    branch = torch.tensor(reading.branches)
    keys = torch.cat([torch.arange(reading.start), own])
    behind = (branch[:, None] == branch[None, :]) & (own[None, :] <= own[:, None])
    seen = torch.cat([torch.ones(len(own), reading.start, dtype=torch.bool), behind], 1)
    return _added(seen if window is None else seen & (keys > own[:, None] - window), shape)


def _added(seen: torch.Tensor, shape: Shape) -> torch.Tensor:
    """What to add to scores, in the precision that they come in."""
    seen = seen.to(shape.device)
    return torch.zeros(seen.shape, dtype=shape.dtype, device=shape.device).masked_fill_(~seen, -torch.inf)


def _once(make: Callable[[int | None], torch.Tensor]) -> Mask:
    """Made once for each window in a pass, not in every layer."""
    return lru_cache(maxsize=None)(make)
