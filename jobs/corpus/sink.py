"""Where results are written to: a file that appears whole or not at all, or standard output."""

import os
import secrets
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from jobs.corpus.base import Format, Writer
from jobs.errors import OutputError
from jobs.schemas import Result

BUFFER_BYTES = 1 << 20
_to_json = Result.__pydantic_serializer__.to_json


class Sink:
    """Writes results in one format. A file is written beside its target and takes its name in `commit`.

    As a context manager it commits at the end and discards after an exception. Every failure is an OutputError.
    """

    def __init__(self, form: Format, path: Path | None, columns: Sequence[str] = (), kept: Sequence[str] = ()) -> None:
        assert form.write is not None
        self._make, self._columns, self._kept = form.write, columns, kept
        self.path = path
        """None: standard output."""
        self._direct = path is None or (os.path.exists(path) and not os.path.isfile(path))
        self._part: Path | None = None
        self._stream: BinaryIO | None = None
        self._writer: Writer | None = None

    def check(self) -> None:
        """Raise OutputError unless results can be written there; called before the job is submitted."""
        if self.path is None:
            return
        if os.path.isdir(self.path):
            raise OutputError(f"{self.path}: is a folder; name a file")
        with self._mapped():
            with suppress(FileNotFoundError):
                os.stat(self._target)  # a name that no file can have
            if self._direct:
                self.path.open("wb").close()
            else:
                self._create().close()
        self.discard()

    def write(self, result: Result) -> None:
        """Append one result."""
        self.write_line(_to_json(result))

    def write_line(self, line: bytes) -> None:
        """Append one result that is JSON text already."""
        try:
            if self._writer is None:
                self._open()
            assert self._writer is not None
            self._writer.write(line)
        except OSError as error:
            raise self._failed(error) from error

    def flush(self) -> None:
        """Pass on what is buffered, for a reader at the other end of a pipe."""
        with self._mapped():
            if self._stream is not None:
                self._stream.flush()

    def commit(self) -> None:
        """Make the output appear under its name, whole and on disk. Without a result it is an empty file."""
        with self._mapped():
            if self._writer is None:
                self._open()
            assert self._writer is not None
            assert self._stream is not None
            self._writer.finish()
            self._stream.flush()
            if self._part is not None:
                os.fsync(self._stream.fileno())
                self._stream.close()
                os.replace(self._part, self._part.parent / self._target.name)
                _sync_folder(self._part.parent)
                self._part = None
        self.discard()

    def discard(self) -> None:
        """Leave nothing behind. What already went to standard output stays there."""
        if self._stream is not None and self.path is not None:
            with suppress(OSError):
                self._stream.close()
        if self._part is not None:
            self._part.unlink(missing_ok=True)
        self._part = self._stream = self._writer = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.commit()
        else:
            self.discard()

    @property
    def _target(self) -> Path:
        """The file itself, so that a link to it stays a link."""
        assert self.path is not None
        return Path(os.path.realpath(self.path))

    def _open(self) -> None:
        if self.path is None:
            self._stream = sys.stdout.buffer
        elif self._direct:
            self._stream = self.path.open("wb")
        else:
            self._stream = self._create()
        self._writer = self._make(self._stream, self._columns, self._kept)

    def _create(self) -> BinaryIO:
        """A new file beside the target, with the rights that a plain open would give it."""
        part = self._target.with_name(f".{self._target.name[:200]}.{secrets.token_hex(6)}.part")
        stream = part.open("xb", buffering=BUFFER_BYTES)
        self._part = part
        return stream

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> OutputError:
        """The one place where the file system's errors become OutputError; the unfinished file goes."""
        self.discard()
        return OutputError(f"{self.path or 'standard output'}: cannot be written: {error.strerror or error}")


def _sync_folder(folder: Path) -> None:
    """Without it a power cut can undo the rename."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
