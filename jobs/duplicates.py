"""Which custom_id was there before: exact, in bounded memory at any number of items."""

import json
import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

RECENT_IDS = 200_000
"""Ids held in memory before they go to the file; about 40 MB with short ids."""
RECENT_CHARS = 16_000_000
SIEVE_BITS = 2**28
"""32 MB that spare the file nearly every look: at 20 million ids 7 in 100 new ones are still looked up."""
LOOKUP = "SELECT ids.name, ids.line FROM json_each(?) AS asked CROSS JOIN ids ON ids.name = asked.value"
"""CROSS JOIN is how SQLite is told to go through the few names asked for, and not through the table."""


class Clash(NamedTuple):
    """An item whose id is taken. `line` 0: by the default id of an item that brought none."""

    at: int
    name: str
    line: int


class CustomIds:
    """Remembers every id of a job. Items without one are called by their `seq`, which counts as an id too."""

    def __init__(self) -> None:
        self._recent: dict[str, int] = {}
        self._chars = 0
        self._unnamed = 0
        """Items before the first that brought an id: their defaults are known without being stored."""
        self._file: sqlite3.Connection | None = None
        self._sieve = bytearray()
        """A bit for each hash value of a name in the file."""

    def take(self, seq: int, ids: Sequence[str | None], lines: Sequence[int]) -> list[Clash]:
        """Remember the ids that items bring, of which the first unclashed one will be item `seq`.

        Clashing items are taken to be left out: those behind them move up.
        """
        if not self._recent and self._file is None and not any(ids):
            self._unnamed += len(ids)
            return []
        older = self._older(seq, ids)
        clashes = [] if self._all_new(ids, lines, older) else self._one_by_one(seq, ids, lines, older)
        if len(self._recent) > RECENT_IDS or self._chars > RECENT_CHARS:
            self._spill()
        return clashes

    def close(self) -> None:
        """Forget all and delete the file."""
        self._recent.clear()
        if self._file is not None:
            self._file.close()

    def _all_new(self, ids: Sequence[str | None], lines: Sequence[int], older: dict[str, int]) -> bool:
        """Remember ids that clash neither with each other nor with any before, all at once; whether they are such."""
        if older or self._unnamed or not all(ids):
            return False
        fresh: dict[str, int] = dict(zip(ids, lines, strict=True))  # type: ignore[arg-type]
        if len(fresh) < len(ids) or not self._recent.keys().isdisjoint(fresh):
            return False
        self._recent |= fresh
        self._chars += sum(map(len, fresh))
        return True

    def _one_by_one(
        self, seq: int, ids: Sequence[str | None], lines: Sequence[int], older: dict[str, int]
    ) -> list[Clash]:
        clashes: list[Clash] = []
        for at, (given, line) in enumerate(zip(ids, lines, strict=True)):
            name = given or str(seq + at - len(clashes))
            first = self._first(name, older)
            if first is None:
                self._recent[name] = line
                self._chars += len(name)
            else:
                clashes.append(Clash(at, name, first))
        return clashes

    def _first(self, name: str, older: dict[str, int]) -> int | None:
        """The line that had the name first, 0 for a default before any id was brought, None when it is new."""
        if name.isdecimal() and len(name) < 20 and int(name) < self._unnamed and str(int(name)) == name:
            return 0
        return self._recent.get(name) or older.get(name)

    def _older(self, seq: int, ids: Sequence[str | None]) -> dict[str, int]:
        """Those of the names that are in the file, with their lines."""
        if self._file is None:
            return {}
        names = [given or str(seq + at) for at, given in enumerate(ids)]
        # After a clash the defaults behind it are lower; the file knows a default only by the same name.
        if not all(ids):
            names += [str(seq + at) for at, given in enumerate(ids) if given]
        names = [name for name in names if self._perhaps_in_file(name)]
        found = self._file.execute(LOOKUP, [json.dumps(names, ensure_ascii=False)])
        return dict(found.fetchall())

    def _perhaps_in_file(self, name: str) -> int:
        bit = hash(name) % SIEVE_BITS
        return self._sieve[bit >> 3] & (1 << (bit & 7))

    def _spill(self) -> None:
        """Move what is in memory to the file, in its order there, which is what makes it quick."""
        if self._file is None:
            self._file = _open_file()
            self._sieve = bytearray(SIEVE_BITS // 8)
        for name in self._recent:
            bit = hash(name) % SIEVE_BITS
            self._sieve[bit >> 3] |= 1 << (bit & 7)
        self._file.execute("BEGIN")
        self._file.executemany("INSERT INTO ids VALUES (?, ?)", sorted(self._recent.items()))
        self._file.execute("COMMIT")
        self._recent.clear()
        self._chars = 0


def _open_file() -> sqlite3.Connection:
    """A table on disk that is gone with the connection; SQLite deletes a nameless database by itself."""
    file = sqlite3.connect("", isolation_level=None)
    file.executescript(
        "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -32768; PRAGMA temp_store = FILE;"
        "CREATE TABLE ids (name TEXT PRIMARY KEY, line INTEGER NOT NULL) WITHOUT ROWID;"
    )
    return file
