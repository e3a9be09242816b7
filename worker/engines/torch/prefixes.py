"""What prompts have in common: pieces of a fixed grid, found by themselves, their keys and values kept for the next."""

from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import NamedTuple

import torch

FINE, FINE_UNTIL, COARSE = 16, 128, 64
"""The grid, in tokens from an item's start: fine where instructions mostly end, coarse behind. It is the same for every
item, shared or not: results depend on where a prompt is cut."""
REMEMBERED = 2**16
"""Pieces of which it is known how often they were seen."""


class Piece(NamedTuple):
    """Keys and values of one piece of a prompt, as they lie where they were taken from."""

    keys: torch.Tensor
    values: torch.Tensor

    @property
    def bytes(self) -> int:
        return sum(each.numel() * each.element_size() for each in self)


def next_cut(at: int) -> int:
    """Where the piece ends that begins at, or holds, token `at`."""
    step = FINE if at < FINE_UNTIL else COARSE
    return (at // step + 1) * step


def spans(start: int, end: int) -> Iterator[tuple[int, int]]:
    """The pieces from `start` to `end`, the last of which may be cut short."""
    while start < end:
        cut = min(next_cut(start), end)
        yield start, cut
        start = cut


def names_of(ids: Sequence[int]) -> tuple[bytes, ...]:
    """A name for each whole piece that a prompt may share: of its tokens and of all before them. The prompt's last
    token is never in one, because it has to be read for what follows it."""
    found: list[bytes] = []
    so_far = b""
    for start, end in spans(0, len(ids) - 1):
        if end != next_cut(start):
            break
        so_far = blake2b(so_far + array("q", ids[start:end]).tobytes(), digest_size=16).digest()
        found.append(so_far)
    return tuple(found)


class Prefixes:
    """Pieces that several prompts share, least recently used first to leave."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._bytes = 0
        self._pieces: OrderedDict[bytes, Piece] = OrderedDict()
        self._seen: OrderedDict[bytes, int] = OrderedDict()

    def notice(self, names: Sequence[bytes]) -> None:
        """A prompt with these pieces came into sight."""
        for name in names:
            self._seen[name] = self._seen.pop(name, 0) + 1
        while len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)

    def forget(self, names: Sequence[bytes]) -> None:
        """A prompt with these pieces that was noticed left without having been read."""
        for name in names:
            if name in self._seen:
                self._seen[name] -= 1

    def shared(self, name: bytes) -> bool:
        """Whether several prompts have this piece."""
        return self._most > 0 and self._seen.get(name, 0) > 1

    def get(self, name: bytes) -> Piece | None:
        """The piece, if it is kept."""
        if name in self._pieces:
            self._pieces.move_to_end(name)
        return self._pieces.get(name)

    def keep(self, name: bytes, piece: Piece) -> None:
        """Keep it, as long as there is room for it."""
        if name in self._pieces or piece.bytes > self._most:
            return
        self._pieces[name] = piece
        self._bytes += piece.bytes
        while self._bytes > self._most:
            _, gone = self._pieces.popitem(last=False)
            self._bytes -= gone.bytes

    def clear(self) -> None:
        """Keep nothing."""
        self._pieces.clear()
        self._bytes = 0
