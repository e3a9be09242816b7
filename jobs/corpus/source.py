"""Files, folders and standard input as one stream of numbered lines."""

import hashlib
import io
import os
import sys
from bisect import bisect_left
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from jobs.corpus import jsonl, text
from jobs.corpus.base import Fields, Format, Line, Place, Read
from jobs.corpus.selection import selected
from jobs.errors import EmptyInput, InvalidInput

STDIN = "-"
BUFFER_BYTES = 1 << 20
SNIFFED_BYTES = 4096


class FileSource:
    """The items of several inputs, one after the other. Lines are numbered on from one to the next; `locate` tells
    which file and line a number means."""

    def __init__(self, inputs: Sequence[tuple[Format, Place]], fields: Fields, max_line_bytes: int) -> None:
        self._inputs, self._fields, self._max_line_bytes = inputs, fields, max_line_bytes
        self._lasts: list[int] = []
        """The number of the last line of each input read so far."""
        self._versions: dict[Path, Hashable] = {}
        """The version of each file or folder when its fingerprint was taken."""
        self.filtered = 0
        """Rows that the filter has left out, as far as was read."""

    def __iter__(self) -> Iterator[Line]:
        """Raises EmptyInput when the filter leaves out every row, InvalidInput for what cannot be read."""
        once = any(isinstance(form, _Piped) for form, _ in self._inputs)
        yield from selected(self._read, self._fields.rows, once=once)
        self._refuse_changed(*self._inputs[len(self._lasts) - 1])  # of which a limit may have left a part unread

    def fingerprint(self) -> str | None:
        """SHA-256 over what decides the items: formats, fields, rows, contents. None with a pipe among the inputs."""
        digest = hashlib.sha256(repr(self._fields).encode() + self._fields.rows.digest)
        for form, place in self._inputs:
            if isinstance(form, _Piped):
                return None
            try:
                self._versions[place.path] = _version(form, place)
                content = form.fingerprint(place) if form.fingerprint else content_digest(place)
            except OSError as error:
                raise InvalidInput(f"{place.name}: cannot be read: {error.strerror}") from error
            digest.update(form.name.encode() + b"\0" + content)
        return digest.hexdigest()

    def locate(self, line: int) -> tuple[str | None, int]:
        """The file, and the line in it, of a line number already given out."""
        at = bisect_left(self._lasts, line)
        return self._inputs[at][1].name, line - (self._lasts[at - 1] if at else 0)

    def _read(self) -> Iterator[Line]:
        """Every row that the filter takes."""
        self._lasts, self.filtered = [], 0
        before, taken = 0, False
        for form, place in self._inputs:
            self._lasts.append(sys.maxsize)
            number = 0
            try:
                for number, line in form.read(place, self._fields, self._max_line_bytes):
                    if line is None:
                        self.filtered += 1
                    else:
                        taken = True
                        yield before + number, line
                self._refuse_changed(form, place)
            except OSError as error:
                raise InvalidInput(f"{place.name}: cannot be read: {error.strerror}") from error
            before += number
            self._lasts[-1] = before
        if self.filtered and not taken:
            raise EmptyInput(f"the filter {self._fields.rows.where!r} leaves out all {self.filtered:,} rows")

    def _refuse_changed(self, form: Format, place: Place) -> None:
        """What was fingerprinted must be what was read, or the same idempotency key would mean two inputs."""
        known = self._versions.get(place.path)
        if known is not None and known != _version(form, place):
            raise InvalidInput(
                f"{place.name}: the {'folder' if form.folders else 'file'} was changed while it was read"
            )


@dataclass(frozen=True, slots=True)
class _Piped(Format):
    """A format as it comes out of a pipe, which can be read only once."""


def piped(form: Format) -> Format:
    """The format, read from a pipe."""
    return _Piped(form.name, (), form.read)


def file_place(name: str, path: Path) -> Place:
    """A file that is opened anew for each reading."""

    def opened() -> BinaryIO:
        try:
            return path.open("rb", buffering=BUFFER_BYTES)
        except OSError as error:
            raise InvalidInput(f"{name}: cannot be opened: {error.strerror}") from error

    return Place(name, path, opened)


def stdin_place() -> Place:
    """Standard input, which can be read once."""
    taken: list[bool] = []

    def opened() -> BinaryIO:
        if taken:
            raise InvalidInput("standard input can be read only once")
        taken.append(True)
        # Not closed with the reader: the process may ask its user something afterwards.
        return cast(BinaryIO, io.BufferedReader(_Unclosed(sys.stdin.buffer), BUFFER_BYTES))

    return Place("standard input", Path(STDIN), opened)


def content_digest(place: Place) -> bytes:
    """SHA-256 of the place's bytes."""
    with place.open() as stream:
        return hashlib.file_digest(cast(io.BufferedReader, stream), "sha256").digest()


def _read_sniffed(place: Place, fields: Fields, max_bytes: int) -> Iterator[Read]:
    """JSON Lines if the first byte that is not blank begins an object or a string, else a text a line."""
    stream = place.open()
    start = cast(io.BufferedReader, stream).peek(SNIFFED_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip()
    form = jsonl.FORMAT if start[:1] in (b"{", b'"') else text.FORMAT
    yield from form.read(Place(place.name, place.path, lambda: stream), fields, max_bytes)


SNIFFED = _Piped("pipe", (), _read_sniffed)
"""A pipe's format, told by its first byte when it is read."""


class _Unclosed(io.RawIOBase):
    """Reads from a stream that stays open. A short read is passed on, so that a slow pipe is read as it fills."""

    def __init__(self, stream: BinaryIO) -> None:
        self._read = getattr(stream, "read1", stream.read)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _version(form: Format, place: Place) -> Hashable:
    if form.version is not None:
        return form.version(place)
    status = os.stat(place.path)
    return status.st_size, status.st_mtime_ns
