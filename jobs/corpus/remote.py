"""Results to any URL that fsspec can write to: an object or file that appears whole or not at all."""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from jobs.corpus import urls
from jobs.corpus.base import Columns, Format
from jobs.corpus.sink import Sink
from jobs.errors import InvalidInput, OutputError


class UrlSink(Sink):
    """Writes beside the target, under another name, and moves it there in `commit`.

    Object stores have no rename: there the move is a copy, which appears at once, and a deletion. What a killed
    process left has a name of its own (`.name.0123456789ab.part`).
    """

    def __init__(self, form: Format, url: str, columns: Columns = (), kept: Sequence[str] = ()) -> None:
        """Raises InvalidInput for a URL that means nothing, NotInstalled without its package."""
        self._shown = urls.shown(url)
        self._fs, self._where = urls.opened(url)
        super().__init__(form, Path(self._where), columns, kept)
        self.direct = False
        self._unfinished: str | None = None

    def check(self) -> None:
        """Raise OutputError unless results can be written there: tries it."""
        with self._mapped():
            if self._fs.isdir(self._where):
                raise OutputError(f"{self._shown}: is a folder; name a file")
            stream = self._create()
            stream.write(b"\n")
            stream.close()
        self.discard()

    def discard(self) -> None:
        """Leave nothing behind."""
        if self._stream is not None:
            with suppress(Exception):
                self._stream.close()
        if self._unfinished is not None:
            with suppress(Exception):
                self._fs.rm(self._unfinished)
        self._unfinished = None
        self._stream = self._packed = self._writer = None

    def write_line(self, line: bytes) -> None:
        """Append one result that is JSON text already."""
        with self._mapped():
            super().write_line(line)

    @property
    def _target(self) -> Path:
        assert self.path is not None
        return self.path

    def _create(self) -> BinaryIO:
        folder, _, name = self._where.rpartition("/")
        self._unfinished = f"{folder}/.{name}.{secrets.token_hex(6)}.part"
        with suppress(NotImplementedError):
            self._fs.makedirs(folder, exist_ok=True)
        return cast(BinaryIO, self._fs.open(self._unfinished, "wb"))

    def _publish(self, stream: BinaryIO) -> None:
        stream.close()
        self._stream = None
        self._fs.mv(self._unfinished, self._where)
        self._unfinished = None

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        """What a file system raises, in words without what is secret. Their errors have no base in common."""
        try:
            yield
        except OutputError:
            self.discard()
            raise
        except Exception as error:
            self.discard()
            raise OutputError(f"{self._shown}: cannot be written: {urls.words(error)}") from None

    def _failed(self, error: OSError) -> OutputError:
        self.discard()
        return OutputError(f"{self._shown}: cannot be written: {urls.words(error)}")


def check_writable(url: str) -> None:
    """Raise InvalidInput for a kind of URL that nothing is ever written to."""
    if url.lower().startswith(("http://", "https://")):
        raise InvalidInput(f"{urls.shown(url)}: web servers take no results; write to a file, a bucket or a database")
