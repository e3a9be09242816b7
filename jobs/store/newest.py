"""Which result of an item counts among those of several jobs: on disk, in bounded memory at any number of items."""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Self

FIND = "SELECT n.name, n.job, n.seq, n.ok FROM json_each(?) AS asked CROSS JOIN newest AS n ON n.name = asked.value"
"""CROSS JOIN is how SQLite is told to go through the few names asked for, and not through the table."""
ADD = """
    INSERT INTO newest VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET job = excluded.job, seq = excluded.seq,
        ok = excluded.ok WHERE excluded.ok >= newest.ok
"""


class Mark(NamedTuple):
    """A result, without its content."""

    seq: int
    custom_id: str
    ok: bool


class Place(NamedTuple):
    """Where an item's result lies: in the `job`th of the jobs that were added, at its item `seq` there."""

    job: int
    seq: int
    ok: bool


class Newest:
    """The result that counts of each `custom_id`: an ok one before an error, among equals the one added last.

    As a context manager it deletes its file at the end.
    """

    def __init__(self) -> None:
        # SQLite deletes a nameless database by itself. Whoever reads on may be another thread than who began.
        self._file = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._file.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -32768; PRAGMA temp_store = FILE;"
            "CREATE TABLE newest (name TEXT PRIMARY KEY, job INTEGER NOT NULL, seq INTEGER NOT NULL, "
            "ok INTEGER NOT NULL) WITHOUT ROWID;"
        )

    def add(self, job: int, marks: Iterable[Mark]) -> None:
        """Take in results of one job; jobs are added oldest first."""
        self._file.execute("BEGIN")
        self._file.executemany(ADD, ((mark.custom_id, job, mark.seq, mark.ok) for mark in marks))
        self._file.execute("COMMIT")

    def find(self, names: Sequence[str]) -> dict[str, Place]:
        """Those of these ids that have a result."""
        found = self._file.execute(FIND, [json.dumps(names, ensure_ascii=False)])
        return {name: Place(job, seq, bool(ok)) for name, job, seq, ok in found}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
