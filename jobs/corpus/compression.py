"""gzip and zstd around any format of lines, told by a file's last suffix: `tickets.jsonl.gz`, `tickets.csv.zst`."""

import gzip
import io
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

from jobs.errors import InvalidInput, NotInstalled

BUFFER_BYTES = 1 << 20
SUFFIXES = (".gz", ".zst")


def inner(path: Path) -> Path:
    """The path without the suffix of a compression, if it has one."""
    return path.with_suffix("") if path.suffix.lower() in SUFFIXES else path


def decompressed(name: str, path: Path, opened: Callable[[], BinaryIO]) -> Callable[[], BinaryIO]:
    """Opens what the file holds. Reading raises InvalidInput for a file that is damaged or ends too early."""
    kind = path.suffix.lower()
    if kind not in SUFFIXES:
        return opened

    def unpacked() -> BinaryIO:
        stream = opened()
        inside = gzip.GzipFile(fileobj=stream) if kind == ".gz" else _unpacked_zstd(stream)
        return cast(BinaryIO, io.BufferedReader(_Told(inside, stream, name), BUFFER_BYTES))

    return unpacked


def compressed(path: Path, stream: BinaryIO) -> BinaryIO | None:
    """What is written here goes into the stream, packed; to be closed before the stream is. None: it is not packed."""
    if path.suffix.lower() == ".gz":
        # Without the time of day, so that the same results are the same file.
        return cast(BinaryIO, gzip.GzipFile(filename="", mode="wb", fileobj=stream, mtime=0))
    if path.suffix.lower() == ".zst":
        return cast(BinaryIO, _zstandard().ZstdCompressor().stream_writer(stream, closefd=False))
    return None


def _unpacked_zstd(stream: BinaryIO) -> Any:
    """Arrow's reader: that of `zstandard` (0.25) takes a frame that ends too early for a whole one. It grants a file
    128 MB of memory, as `zstd` itself does."""
    try:
        import pyarrow
    except ImportError as error:
        raise NotInstalled(f".zst files need: pip install 'textmill[corpora]' ({error})") from error
    return pyarrow.CompressedInputStream(pyarrow.PythonFile(stream, mode="r"), "zstd")


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise NotInstalled(f".zst files need: pip install 'textmill[corpora]' ({error})") from error
    return zstandard


class _Told(io.RawIOBase):
    """Reads on, and says in words what is wrong with a damaged file."""

    def __init__(self, inside: Any, outside: BinaryIO, name: str) -> None:
        self._inside, self._outside, self._name = inside, outside, name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            piece = self._inside.read(len(buffer))
        except EOFError as error:
            raise InvalidInput(f"{self._name}: the compressed file ends too early") from error
        except Exception as error:
            # What Arrow says itself has no number, as an error of the file system has.
            if isinstance(error, zlib.error) or (isinstance(error, OSError) and error.errno is None):
                why = "ends too early" if "Truncated" in str(error) else f"is damaged: {error}"
                raise InvalidInput(f"{self._name}: the compressed file {why}") from error
            raise
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        if not self.closed:
            self._inside.close()
            self._outside.close()
        super().close()
