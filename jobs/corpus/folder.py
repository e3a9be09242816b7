"""A folder of .txt files: an item a file, in the order of their names, `custom_id` the path inside the folder."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import orjson

from jobs.corpus.base import Fields, Format, Line, Place, refuse_fields
from jobs.errors import InvalidInput, Problem

SUFFIX = ".txt"


def read(place: Place, fields: Fields, max_bytes: int) -> Iterator[Line]:
    """An item a file; folders inside are read too."""
    refuse_fields(place, fields, "a folder of texts")
    number = 0
    for number, path in enumerate(_files(place.path), start=1):
        yield number, _item(number, path, place.path, fields.main, max_bytes)
    if number == 0:
        raise InvalidInput(f"{place.name}: the folder has no {SUFFIX} files")


def fingerprint(place: Place) -> bytes:
    """Of every file's name and content."""
    digest = hashlib.sha256()
    for path in _files(place.path):
        with path.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").digest()
        digest.update(os.fsencode(path.relative_to(place.path)) + b"\0" + content)
    return digest.digest()


def _files(folder: Path) -> Iterator[Path]:
    """Sorted folder by folder, so that no more than one folder's names are held."""
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if name.lower().endswith(SUFFIX):
                yield Path(root, name)


def _item(number: int, path: Path, folder: Path, main: str, max_bytes: int) -> bytes | Problem:
    name = path.relative_to(folder).as_posix()
    try:
        with path.open("rb") as stream:
            data = stream.read(max_bytes + 1)
        if len(data) > max_bytes:
            return Problem(number, "line_too_long", f"{name}: longer than {max_bytes:,} bytes (setting max_line_bytes)")
        return orjson.dumps({"custom_id": name, main: data.decode("utf-8-sig")})
    except UnicodeDecodeError as error:
        return Problem(number, "not_utf8", f"{name}: not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}")
    except TypeError:
        return Problem(number, "invalid_text", f"{name!r}: the file's name is not UTF-8")
    except OSError as error:
        return Problem(number, "unreadable", f"{name}: {error.strerror}")


FORMAT = Format("folder", (), read, folders=True, fingerprint=fingerprint)
