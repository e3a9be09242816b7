"""What the causal loop asks of a place for keys and values: shelves on a CPU, a pool on a GPU."""

from collections.abc import Sequence
from typing import Any, Protocol

from worker.engines.torch.prefixes import Piece
from worker.engines.torch.shelves import Kind


class Spot(Protocol):
    """Where one sequence lies: nowhere at first."""

    @property
    def length(self) -> int:
        """Tokens that it has room for."""
        ...

    @property
    def order(self) -> Any:
        """Those in this order lie side by side."""
        ...

    def reach(self, kind: Kind) -> bool:
        """Have room for so many tokens; whether it moved. Raises OutOfMemory, and then lies where it lay."""
        ...

    def leave(self) -> None:
        """Lie nowhere any longer."""
        ...

    def copy(self, other: Any, tokens: int) -> None:
        """Take over the first tokens of another sequence."""
        ...

    def piece(self, start: int, end: int) -> Piece:
        """A view of these tokens."""
        ...

    def put(self, start: int, piece: Piece) -> None:
        """Have this piece, of any of the store's sequences, from `start` on."""
        ...


class Store(Protocol):
    """Keys and values of many sequences."""

    capacity: int
    """Tokens that may be promised."""

    def place(self) -> Any:
        """A sequence's `Spot`."""
        ...

    def put(self, pieces: Sequence[tuple[Any, int, Piece]]) -> None:
        """Have these pieces lie in sequences: for each, its place, and where it begins there."""
        ...

    def trim(self) -> None:
        """Give back the memory that no sequence needs, where that can be done."""
        ...

    def clear(self) -> None:
        """Give back all of it."""
        ...
