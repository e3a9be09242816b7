"""A folder of .txt files: an item a file, in the order of their names, `custom_id` the path inside the folder."""

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import orjson

from jobs.corpus.base import ID, Fields, Format, Place, Read, check_text
from jobs.corpus.mapping import Mapper
from jobs.corpus.paths import is_hidden
from jobs.errors import InvalidInput, Problem

SUFFIX = ".txt"

Found = Path | OSError
"""A file, or why a folder inside cannot be read."""


def read(place: Place, fields: Fields, max_bytes: int) -> Iterator[Read]:
    """An item a file; folders inside are read too. What cannot be read is a problem of its own."""
    check_text(place, fields, "a folder of texts", (ID, fields.main))
    mapper = Mapper(fields)
    number = 0
    for number, found in enumerate(_files(place.path), start=1):
        yield number, _item(number, found, place.path, fields.main, mapper, max_bytes)
    if number == 0:
        raise InvalidInput(f"{place.name}: the folder has no {SUFFIX} files")


def fingerprint(place: Place) -> bytes:
    """Of every file's name and content. A file that cannot be read counts as such: `read` says which one it is."""
    digest = hashlib.sha256()
    for found in _files(place.path):
        digest.update(os.fsencode(_inside(place.path, found)) + b"\0" + _content(found))
    return digest.digest()


def version(place: Place) -> bytes:
    """Of every file's name, size and time: whether anything changed, without reading it all again."""
    digest = hashlib.sha256()
    for found in _files(place.path):
        digest.update(os.fsencode(_inside(place.path, found)) + b"\0" + _size_and_time(found))
    return digest.digest()


def _files(folder: Path) -> Iterator[Found]:
    """Sorted folder by folder, so that no more than one folder's names are held."""
    unreadable: list[OSError] = []
    for root, folders, names in os.walk(folder, onerror=unreadable.append):
        yield from _drained(unreadable)
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        for name in sorted(names):
            if name.lower().endswith(SUFFIX) and not is_hidden(name):
                yield Path(root, name)
    yield from _drained(unreadable)


def _drained(errors: list[OSError]) -> Iterator[OSError]:
    while errors:
        yield errors.pop(0)


def _inside(folder: Path, found: Found) -> Path:
    """Where in the folder it is."""
    return Path(found.filename if isinstance(found, OSError) else found).relative_to(folder)


def _content(found: Found) -> bytes:
    try:
        with _regular(found).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError as error:
        return b"unreadable: " + str(error.strerror).encode()


def _size_and_time(found: Found) -> bytes:
    try:
        status = _regular(found).stat()
        return f"{status.st_size} {status.st_mtime_ns}".encode()
    except OSError as error:
        return b"unreadable: " + str(error.strerror).encode()


def _regular(found: Found) -> Path:
    """The file. Raises OSError for what cannot be read, and for a pipe or device, which opening would wait for."""
    if isinstance(found, OSError):
        raise found
    if not stat.S_ISREG(found.stat().st_mode):
        raise OSError(None, "not a regular file", str(found))
    return found


def _item(number: int, found: Found, folder: Path, main: str, mapper: Mapper, max_bytes: int) -> bytes | Problem | None:
    name = _inside(folder, found).as_posix()
    try:
        with _regular(found).open("rb") as stream:
            data = stream.read(max_bytes + 1)
        if len(data) > max_bytes:
            return Problem(number, "line_too_long", f"{name}: longer than {max_bytes:,} bytes (setting max_line_bytes)")
        item = mapper.item(number, {ID: name, main: data.decode("utf-8-sig")})
        return orjson.dumps(item) if isinstance(item, dict) else item
    except UnicodeDecodeError as error:
        return Problem(number, "not_utf8", f"{name}: not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}")
    except TypeError:
        return Problem(number, "invalid_text", f"{name!r}: the file's name is not UTF-8")
    except OSError as error:
        return Problem(number, "unreadable", f"{name}: {error.strerror}")


FORMAT = Format("folder", (), read, folders=True, fingerprint=fingerprint, version=version)
