"""Where uploaded files lie: a folder, or whatever fsspec has a file system for."""

from typing import TYPE_CHECKING, Any, BinaryIO

from jobs.errors import StoreUnavailable

if TYPE_CHECKING:
    from jobs.settings import Settings

COPY_BYTES = 2**20


class Storage:
    """Files by id. Raises StoreUnavailable when the place does not answer."""

    def __init__(self, settings: "Settings") -> None:
        from fsspec.core import url_to_fs

        self._fs: Any
        self._fs, self._root = url_to_fs(settings.files_url or (settings.home / "files").as_uri())

    def write(self, file_id: str, source: BinaryIO) -> int:
        """Keep all of the stream; its size. It appears whole or not at all."""
        part = self._path(f"{file_id}.part")
        try:
            self._fs.makedirs(self._root, exist_ok=True)
            size = 0
            with self._fs.open(part, "wb") as target:
                while piece := source.read(COPY_BYTES):
                    target.write(piece)
                    size += len(piece)
            self._fs.mv(part, self._path(file_id))
        except OSError as error:
            self._forget(part)
            raise StoreUnavailable(f"the file could not be kept: {error.strerror or error}") from error
        return size

    def open(self, file_id: str) -> BinaryIO:
        """The file's bytes."""
        try:
            stream: BinaryIO = self._fs.open(self._path(file_id), "rb")
        except OSError as error:
            raise StoreUnavailable(f"the file cannot be read: {error.strerror or error}") from error
        return stream

    def delete(self, file_id: str) -> None:
        """Safe to repeat."""
        self._forget(self._path(file_id))

    def _forget(self, path: str) -> None:
        try:
            self._fs.rm(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise StoreUnavailable(f"the file could not be deleted: {error.strerror or error}") from error

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"
