"""Leaves out of an input what an earlier job of the same corpus has done, and finds what has gone from it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from jobs.checking import Checked
from jobs.errors import InvalidParams, NothingNew
from jobs.fingerprints import Fingerprints
from jobs.retries import named
from jobs.store.seen import Known, Mark
from jobs.store.values import Sighting, Sightings

LONGEST_NAME = 256


class Seen(Protocol):
    """What is asked of `store.seen`."""

    def known(self, tenant: str, name: str, keys: Sequence[bytes]) -> Mapping[bytes, Known]: ...

    def last_id(self) -> int: ...

    def marks(self, tenant: str, name: str) -> Iterator[list[Mark]]: ...

    def mark(self, gone: Sequence[int], back: Sequence[int]) -> None: ...


class Unseen:
    """One look at the whole input of a corpus. `name` is the corpus; each tenant has its own of that name."""

    def __init__(self, seen: Seen, tenant: str, name: str, fingerprints: Fingerprints) -> None:
        """Raises InvalidParams for a name that cannot be one."""
        if not 0 < len(name) <= LONGEST_NAME or "\0" in name:
            raise InvalidParams(f"incremental is {name[:80]!r}; a name has 1 to {LONGEST_NAME} characters, NUL none")
        self._seen, self._tenant, self.name, self.fingerprints = seen, tenant, name, fingerprints
        self._last_id = seen.last_id()
        self._there = _Numbers()
        """Rows whose item is in the input."""
        self.unchanged = 0

    def new(self, place: int, items: Checked) -> Checked:
        """The items that are new, or changed, or have no ok result yet. The first of `items` is the input's `place`th.

        One without a `custom_id` is called by its place, whatever stays of the input.
        """
        known = self._seen.known(self._tenant, self.name, list({each.key for each in items.prints}))
        self._there.add(row.id for row in known.values())
        rows = [known.get(each.key) for each in items.prints]
        done = {
            at
            for at, (row, each) in enumerate(zip(rows, items.prints, strict=True))
            if row is not None and row.ok and row.fingerprint == each.fingerprint
        }
        self.unchanged += len(done)
        lines = [
            line if items.ids[at] is not None or at in done else named(place + at, line)
            for at, line in enumerate(items.lines)
        ]
        return items._replace(lines=lines).without(done)

    def sightings(self, seq_lo: int, items: Checked) -> Sightings:
        """What is written down of the items of one block."""
        rows = zip(items.prints, items.ids, strict=True)
        return Sightings(self.name, [Sighting(*each, name, seq) for seq, (each, name) in enumerate(rows, seq_lo)])

    def finish(self) -> int:
        """How many items of the corpus were not in the input, which has been read to its end; they are marked so."""
        count, gone, back = 0, list[int](), list[int]()
        for page in self._seen.marks(self._tenant, self.name):
            for row in page:
                there = row.id > self._last_id or row.id in self._there
                count += not there
                if there == row.vanished:
                    (back if there else gone).append(row.id)
        self._seen.mark(gone, back)
        return count

    def nothing_new(self) -> NothingNew:
        """To be raised when the input was read to its end and no item is left."""
        return NothingNew(self.name, self.unchanged, self.finish())


class _Numbers:
    """A set of row numbers, a bit for each from the lowest to the highest."""

    def __init__(self) -> None:
        self._first = 0
        self._bits = bytearray()

    def add(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            at = self._at(number)
            self._bits[at >> 3] |= 1 << (at & 7)

    def __contains__(self, number: int) -> bool:
        at = number - self._first
        return 0 <= at < 8 * len(self._bits) and bool(self._bits[at >> 3] & (1 << (at & 7)))

    def _at(self, number: int) -> int:
        """The number's bit, for which room is made."""
        if not self._bits:
            self._first = number & ~7
        if number < self._first:
            lower = min(number, self._first - 8 * len(self._bits)) & ~7
            self._bits[:0] = bytes(self._first - lower >> 3)
            self._first = lower
        at = number - self._first
        if at >= 8 * len(self._bits):
            self._bits.extend(bytes(max((at >> 3) + 1 - len(self._bits), len(self._bits))))
        return at
