"""Where uploaded files and parts of files lie: a folder, or whatever fsspec has a file system for."""

import io
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from jobs.errors import StoreUnavailable

if TYPE_CHECKING:
    from jobs.settings import Settings

COPY_BYTES = 2**20
UNFINISHED = ".part"
CHANGED = ("mtime", "LastModified", "updated", "last_modified", "created")
"""What file systems of fsspec call the time of a file's last change: local, s3, gcs, azure, memory."""


class Storage:
    """Bytes by name: the id of a file or of a part. Raises StoreUnavailable when the place does not answer."""

    def __init__(self, settings: "Settings") -> None:
        from fsspec.core import url_to_fs

        self._fs: Any
        self._fs, self._root = url_to_fs(settings.files_url or (settings.home / "files").as_uri())

    def write(self, name: str, source: BinaryIO) -> int:
        """Keep all of the stream; its size. It appears whole or not at all."""
        arriving = self.begin(name)
        while piece := source.read(COPY_BYTES):
            arriving.write(piece)
        arriving.finish()
        return arriving.size

    def begin(self, name: str) -> "Arriving":
        """To be written a piece at a time."""
        return Arriving(self._fs, self._root, name)

    def open(self, names: Sequence[str]) -> BinaryIO:
        """The bytes that lie under these names, one after the other."""
        joined = _Joined(self._fs, [f"{self._root}/{name}" for name in names])
        return cast(BinaryIO, io.BufferedReader(joined, COPY_BYTES))

    def sweep(self, older_s: float) -> int:
        """Delete what a process that was killed had not finished so long ago; how many files that were."""
        with _told("could not be deleted"), suppress(FileNotFoundError):
            found = self._fs.ls(self._root, detail=True)
            old = [each["name"] for each in found if each["name"].endswith(UNFINISHED) and _age_s(each) > older_s]
            for path in old:
                with suppress(FileNotFoundError):
                    self._fs.rm(path)
            return len(old)
        return 0

    def delete(self, names: Sequence[str]) -> None:
        """Safe to repeat."""
        for name in names:
            with _told("could not be deleted"), suppress(FileNotFoundError):
                self._fs.rm(f"{self._root}/{name}")


class Arriving:
    """What is being written: it appears once it is finished. After an error nothing of it is left."""

    def __init__(self, fs: Any, root: str, name: str) -> None:
        self._fs, self._path, self.size = fs, f"{root}/{name}", 0
        with _told("could not be kept"):
            self._fs.makedirs(root, exist_ok=True)
            self._stream = self._fs.open(self._unfinished, "wb")

    def write(self, piece: bytes) -> None:
        with self._kept_whole():
            self._stream.write(piece)
        self.size += len(piece)

    def finish(self) -> None:
        with self._kept_whole():
            self._stream.close()
            self._fs.mv(self._unfinished, self._path)

    @property
    def _unfinished(self) -> str:
        return f"{self._path}{UNFINISHED}"

    @contextmanager
    def _kept_whole(self) -> Iterator[None]:
        try:
            with _told("could not be kept"):
                yield
        except StoreUnavailable:
            with suppress(OSError):
                self._stream.close()
            with suppress(OSError):
                self._fs.rm(self._unfinished)
            raise


class _Joined(io.RawIOBase):
    """Reads several files as one; each is opened when it is its turn."""

    def __init__(self, fs: Any, paths: Sequence[str]) -> None:
        self._fs, self._paths = fs, iter(paths)
        self._stream: BinaryIO | None = None
        self._go_on()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with _told("cannot be read"):
            while self._stream is not None:
                piece = self._stream.read(len(buffer))
                if piece:
                    buffer[: len(piece)] = piece
                    return len(piece)
                self._go_on()
        return 0

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
        super().close()

    def _go_on(self) -> None:
        if self._stream is not None:
            self._stream.close()
        path = next(self._paths, None)
        with _told("cannot be read"):
            self._stream = None if path is None else self._fs.open(path, "rb")


def _age_s(entry: dict[str, Any]) -> float:
    """How long ago the file was changed; 0 where its file system does not say."""
    changed = next((entry[name] for name in CHANGED if entry.get(name) is not None), None)
    if isinstance(changed, datetime):
        changed = (changed if changed.tzinfo else changed.replace(tzinfo=UTC)).timestamp()
    return time.time() - changed if isinstance(changed, int | float) else 0.0


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Errors of the place, as ours; never where it is."""
    try:
        yield
    except FileNotFoundError as error:
        raise StoreUnavailable(f"the file {what}: it is not there") from error
    except OSError as error:
        raise StoreUnavailable(f"the file {what}: {error.strerror or error}") from error
