"""Where results are written to: a file that appears whole or not at all, or standard output."""

import fcntl
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from jobs.corpus.base import Columns, Format, Writer
from jobs.corpus.compression import compressed
from jobs.errors import OutputError
from jobs.schemas import Result

BUFFER_BYTES = 1 << 20
PART_CHARS = 50
"""Of the target's name in that of its unfinished file: with the rest at most 255 bytes in any script."""
_to_json = Result.__pydantic_serializer__.to_json


class Sink:
    """Writes results in one format. A file is written beside its target and takes its name in `commit`.

    As a context manager it commits at the end and discards after an exception. Every failure is an OutputError.
    """

    def __init__(self, form: Format, path: Path | None, columns: Columns = (), kept: Sequence[str] = ()) -> None:
        assert form.write is not None
        self._make, self._columns, self._kept = form.write, columns, kept
        self.path = path
        """None: standard output."""
        self.direct = path is None or (os.path.exists(path) and not os.path.isfile(path))
        """Written to as it is (standard output, a pipe, a device): what went there cannot be taken back."""
        self._part: Path | None = None
        self._stream: BinaryIO | None = None
        self._packed: BinaryIO | None = None
        """Between the writer and the stream, where the file is compressed."""
        self._writer: Writer | None = None

    def check(self) -> None:
        """Raise OutputError unless results can be written there; called before the job is submitted."""
        if self.path is None:
            _standard_output()
            return
        with self._mapped():
            with suppress(FileNotFoundError):
                os.stat(self._target)  # a name that no file can have
            if not self.direct:
                self._sweep()
                self._create().close()
            elif not os.access(self.path, os.W_OK):  # opening a pipe would wait for its reader
                raise PermissionError(None, "Permission denied")
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
            if self._packed is not None:
                self._packed.close()
            self._publish(self._stream)
        self.discard()

    def discard(self) -> None:
        """Leave nothing behind. What already went to standard output stays there."""
        if self._stream is not None and self.path is not None:
            with suppress(OSError):
                self._stream.close()
        if self._part is not None:
            self._part.unlink(missing_ok=True)
        self._part = self._stream = self._packed = self._writer = None

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
            self._stream = _standard_output()
        elif self.direct:
            self._stream = self.path.open("wb")
        else:
            self._stream = self._create()
        self._packed = compressed(self._target, self._stream) if self.path is not None else None
        self._writer = self._make(self._packed or self._stream, self._columns, self._kept)

    def _publish(self, stream: BinaryIO) -> None:
        """What was written takes its name, unless it went there directly."""
        stream.flush()
        if self._part is not None:
            os.fsync(stream.fileno())
            stream.close()
            os.replace(self._part, self._part.parent / self._target.name)
            _sync_folder(self._part.parent)
            self._part = None

    def _create(self) -> BinaryIO:
        """A new file beside the target, with the target's rights or else those that a plain open would give it.

        It is locked as long as it is written: a file without a lock was left by a process that was killed.
        """
        part = self._target.with_name(f"{self._part_stem}{secrets.token_hex(6)}.part")
        stream = part.open("xb", buffering=BUFFER_BYTES)
        self._part = part
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with suppress(FileNotFoundError):
            _take_rights(stream.fileno(), os.stat(self._target))
        return stream

    @property
    def _part_stem(self) -> str:
        return f".{self._target.name[:PART_CHARS]}."

    def _sweep(self) -> None:
        """Remove what killed processes left of this output."""
        ours = re.compile(re.escape(self._part_stem) + r"[0-9a-f]{12}\.part")
        for entry in os.scandir(self._target.parent):
            if ours.fullmatch(entry.name):
                with suppress(OSError), open(entry.path, "rb") as left:
                    fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(entry.path)

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


def _standard_output() -> BinaryIO:
    if sys.stdout is None:
        raise OutputError("standard output is closed; name a file with -o")
    return sys.stdout.buffer


def _take_rights(handle: int, existing: os.stat_result) -> None:
    """Give a file the owner and mode of the one it will replace; another's owner only if this process may."""
    with suppress(PermissionError):
        os.fchown(handle, existing.st_uid, existing.st_gid)
    os.fchmod(handle, stat.S_IMODE(existing.st_mode))


def _sync_folder(folder: Path) -> None:
    """Without it a power cut can undo the rename."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
