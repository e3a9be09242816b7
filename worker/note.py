"""What a worker process has in flight, written down where its death cannot lose it, for whoever comes after it.

One file a process, locked for as long as the process lives and rewritten in place, without fsync: the kernel keeps what
a killed process wrote, and a power cut is the same as a lost host.
"""

import fcntl
import hashlib
import logging
import os
import struct
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from zlib import crc32

import orjson

from jobs.settings import Settings
from jobs.store.values import InFlight
from worker.held import Held, Key

log = logging.getLogger("textmill.worker")

SUFFIX = ".note"
_HEAD = struct.Struct("<II")
"""Length and checksum of the text behind it; both 0: there is nothing in flight."""
_EMPTY = _HEAD.pack(0, 0)
READER_AT, DEVICE_AT = 0, 4096
"""Where the two threads that work on items write: the reader one chunk, the device loop (last) a batch of any size."""


class Note:
    """This process's note. `running` and `ran` belong to the device loop, `preparing` to the reader.

    A disk that cannot take it costs the worker nothing but the note.
    """

    def __init__(self, folder: Path | None, worker_id: str) -> None:
        """`folder`: where the notes of this deployment's workers lie; None: nothing is noted."""
        self._path = None if folder is None else folder / f"{worker_id}{SUFFIX}"
        self._file: int | None = None

    def open(self) -> None:
        """Be there, and locked, before anyone can look."""
        if self._path is None:
            return
        new = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            new.rename(self._path)
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Nothing is in flight any more, and nobody has to look."""
        if self._file is not None and self._path is not None:
            self._path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = None

    def running(self, keys: Sequence[Key]) -> None:
        """These go through the model now."""
        seqs: defaultdict[Held, list[int]] = defaultdict(list)
        for held, index, _ in keys:
            seqs[held].append(held.seqs[index])
        self._write(DEVICE_AT, [[held.claim.chunk_id, held.claim.token, found] for held, found in seqs.items()])

    def ran(self) -> None:
        """Nothing goes through the model now."""
        self._write(DEVICE_AT, [])

    @contextmanager
    def preparing(self, held: Held, seqs: Sequence[int] | None = None) -> Iterator[None]:
        """While these items of a chunk are read and encoded; None: all of them."""
        self._write(READER_AT, [[held.claim.chunk_id, held.claim.token, seqs]])
        try:
            yield
        finally:
            self._write(READER_AT, [])

    def _write(self, at: int, entries: list[list[Any]]) -> None:
        if self._file is None:
            return
        try:
            os.pwrite(self._file, _framed(entries), at)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """An old text would blame the wrong ones, so that none is left."""
        log.warning("what is in flight cannot be noted (%s); a crash is traced by halving chunks instead", error)
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                os.ftruncate(file, 0)
            os.close(file)
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)


class Left(NamedTuple):
    """What a dead worker's note says."""

    worker_id: str
    in_flight: list[InFlight]


def folder(settings: Settings, boot_id: str) -> Path:
    """Where the workers of this deployment, told by its database, leave their notes.

    Of one boot of one machine: in a home that machines share, locks may not be seen from one to another.
    """
    url = urlsplit(settings.effective_database_url)
    known = f"{url.scheme} {url.username} {url.hostname} {url.port} {url.path} {boot_id}"
    return settings.home / "run" / f"notes-{hashlib.sha256(known.encode()).hexdigest()[:16]}"


@contextmanager
def left(path: Path) -> Iterator[Left | None]:
    """The note of a worker that is dead, locked; it is removed afterwards, unless what is done with it raises.

    None: its worker lives, or another is looking at it.
    """
    try:
        file = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        yield None
        return
    try:
        if not _is_mine(file, path):
            yield None
            return
        yield Left(path.stem, _read(file, path))
        path.unlink(missing_ok=True)
    finally:
        os.close(file)


def paths(folder: Path) -> list[Path]:
    """All notes that there are, of the living and the dead."""
    return sorted(folder.glob(f"*{SUFFIX}"))


def _framed(entries: list[list[Any]]) -> bytes:
    if not entries:
        return _EMPTY
    text = orjson.dumps(entries)
    return _HEAD.pack(len(text), crc32(text)) + text


def _is_mine(file: int, path: Path) -> bool:
    """Whether it could be locked, and is still there: another may have looked at it just before."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(file), path.stat())
    except OSError:
        return False


def _read(file: int, path: Path) -> list[InFlight]:
    size = os.fstat(file).st_size
    found = []
    for at in (READER_AT, DEVICE_AT):
        try:
            found += _entries(os.pread(file, size, at))
        except (ValueError, TypeError) as error:
            log.warning("note %s cannot be read (%s)", path, error)
    return found


def _entries(data: bytes) -> list[InFlight]:
    """Raises ValueError or TypeError for what no worker wrote, or did not write to its end."""
    if len(data) < _HEAD.size or data.startswith(_EMPTY):
        return []
    length, checksum = _HEAD.unpack_from(data)
    text = data[_HEAD.size : _HEAD.size + length]
    if len(text) != length or crc32(text) != checksum:
        raise ValueError("it was not written to its end")
    return [InFlight(int(chunk_id), str(token), seqs) for chunk_id, token, seqs in orjson.loads(text)]
