"""Inputs behind any URL that fsspec has a file system for: streamed, never downloaded as a whole."""

import glob
import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

import orjson

from jobs.corpus.base import Format, Place
from jobs.corpus.compression import decompressed
from jobs.corpus.document import SUFFIX, document
from jobs.corpus.paths import is_hidden
from jobs.corpus.source import content_digest
from jobs.errors import InvalidInput, NotInstalled, TextmillError

BUFFER_BYTES = 1 << 20
BLOCK_BYTES = 4 << 20
"""Asked of the other side at a time."""
CONNECT_S, SILENCE_S = 30.0, 120.0
"""How long a web server may take to answer, and be silent while it does."""
TAGS = ("ETag", "etag", "md5Hash", "Content-MD5", "content_md5", "crc32c", "CRC", "blob_id", "VersionId", "generation")
"""What file systems call a mark of a file's content: s3, http, gcs, azure, zip, the Hub."""
TIMES = ("mtime", "LastModified", "updated", "last_modified", "created", "date_time")
"""What they call the time of its last change."""
DATABASES = ("sqlite", "postgresql", "postgres", "mysql", "mariadb", "oracle", "mssql")

_URL = re.compile(r"[a-z][a-z0-9+.-]*(://|::)", re.IGNORECASE)
_LOGIN = re.compile(r"://(?:[^/@\s]*:\S*|[^/\s]*)@")
"""Up to the last @ where there is a password: it may hold @, / and : when it was not quoted."""
_QUERY = re.compile(r"\?[^\s'\")>]*=[^\s'\")>]*")
_SECRET = re.compile(r"[?&][^=&]*(pass|secret|token|key|sig|cred|auth)[^=&]*=", re.IGNORECASE)

Chosen = Callable[[Path], Format]
"""The format of a file of that name. Raises InvalidInput for one that tells none."""
Known = Callable[[Path], bool]


def is_url(name: str) -> bool:
    """Whether it is a URL, or a chain of them (`zip://a.jsonl::s3://bucket/a.zip`), rather than a path."""
    return _URL.match(name) is not None


def shown(text: str) -> str:
    """A URL, or a text with URLs in it, without logins and without what queries say: signatures stand there."""
    return _QUERY.sub("?***", _LOGIN.sub("://***@", text))


def has_secret(url: str) -> bool:
    """Whether it holds a login, or something in its query that may be a password, key or signature."""
    return bool(_LOGIN.search(url) or _SECRET.search(url))


def local(name: str) -> str | None:
    """The path that a `file://` URL names; None: it is no such URL."""
    return name[len("file://") :] if name.lower().startswith("file://") and "::" not in name else None


def inputs(url: str, chosen: Chosen, known: Known) -> Iterator[tuple[Format, Place]]:
    """The file that a URL names, or the files of a glob or a folder, as of local ones. Raises InvalidInput."""
    fs, path = opened(url)
    with _told(shown(url)):
        files = _files(fs, path, url, known)
    for inside, each in files:
        name = shown(url if each == path else fs.unstrip_protocol(each))
        file = Path(urlsplit(each).path if _is_http(fs) else each)
        form = document(inside) if inside is not None and file.suffix.lower() == SUFFIX else None
        place = Place(name, Path(each), partial(_stream, fs, each, name))
        if form is None:
            form = chosen(file)
            place = replace(place, open=decompressed(name, file, place.open))
        yield _marked(form, fs, each, name), place


def opened(url: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
        from fsspec.registry import known_implementations
    except ImportError as error:
        raise NotInstalled(f"URLs need: pip install 'textmill[corpora]' ({error})") from None
    schemes = re.findall(r"(?:^|::)([a-z][a-z0-9+.-]*)", url.lower())
    for scheme in schemes:
        if scheme.partition("+")[0] in DATABASES:
            raise InvalidInput(f"{shown(url)}: is a database; say with --query what is to be read of it")
        if scheme not in known_implementations:
            known = ", ".join(sorted(known_implementations))
            raise InvalidInput(f"{shown(url)}: unknown scheme {scheme!r}; known: {known}")
    with _told(shown(url)):
        options = {scheme: _patience() for scheme in schemes if scheme in ("http", "https")}
        return cast(tuple[Any, str], url_to_fs(url, **options))


def _patience() -> dict[str, Any]:
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S)
    return {"client_kwargs": {"timeout": timeout}}


def _files(fs: Any, path: str, url: str, known: Known) -> list[tuple[str | None, str]]:
    """The files, those of a folder with their paths inside it."""
    magic = any(sign in path for sign in "*[") if _is_http(fs) else glob.has_magic(path)
    if magic and not fs.exists(path):
        found = sorted(fs.glob(path, detail=True).items())
        files: list[tuple[str | None, str]] = [(None, name) for name, info in found if info["type"] != "directory"]
        if files:
            return files
        raise InvalidInput(f"{shown(url)}: the pattern matches no file")
    if _is_http(fs) or not fs.isdir(path):
        fs.info(path)
        return [(None, path)]
    root = path.rstrip("/")
    inside = ((PurePosixPath(each[len(root) :].lstrip("/")), each) for each in sorted(fs.find(path)))
    seen = [(str(at), each) for at, each in inside if known(Path(at)) and not any(map(is_hidden, at.parts))]
    if not seen:
        raise InvalidInput(f"{shown(url)}: the folder has no files of a known format")
    return list(seen)


def _stream(fs: Any, path: str, name: str) -> BinaryIO:
    with _told(name):
        stream = fs.open(path, "rb", block_size=BLOCK_BYTES)
        in_parts = not _is_http(fs) or _gives_parts(stream)
        if not in_parts:
            stream.close()
            stream = fs.open(path, "rb", block_size=0)
    return cast(BinaryIO, io.BufferedReader(_Told(stream, name, in_parts), BUFFER_BYTES))


def _gives_parts(stream: Any) -> bool:
    """Whether a web server answers with parts of a file, as it need not say beforehand; else it is read from front to
    end."""
    if not stream.size:
        return False
    try:
        if stream.size > BLOCK_BYTES:
            stream.seek(stream.size - 1)
            stream.read(1)
        stream.seek(0)
    except ValueError:
        return False
    return True


def _marked(form: Format, fs: Any, path: str, name: str) -> Format:
    """The format, with the file system's own marks for a fingerprint where it has any: nothing is read for it."""

    def fingerprint(place: Place) -> bytes:
        marks = _now(fs, path, name)
        if len(marks) > 1:
            return orjson.dumps([path, *marks])
        return form.fingerprint(place) if form.fingerprint else content_digest(place)

    return replace(form, fingerprint=fingerprint, version=lambda _: tuple(_now(fs, path, name)))


def _now(fs: Any, path: str, name: str) -> list[str]:
    with _told(name):
        fs.invalidate_cache()
        return _marks(fs, path)


def _marks(fs: Any, path: str) -> list[str]:
    """A file's size, then its tags, or for want of one its time."""
    info = fs.info(path)
    tags = [str(info[key]) for key in TAGS if info.get(key) is not None]
    times = [str(info[key]) for key in TIMES if info.get(key) is not None]
    return [str(info.get("size")), *(tags or times)]


def _is_http(fs: Any) -> bool:
    return "http" in ((fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol)


class _Told(io.RawIOBase):
    """Reads on, and says in words why it cannot. Seekable where the file system is."""

    def __init__(self, stream: Any, name: str, in_parts: bool) -> None:
        self._stream, self._name, self._in_parts = stream, name, in_parts

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._in_parts and bool(self._stream.seekable())

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return int(self._stream.seek(offset, whence))

    def tell(self) -> int:
        return int(self._stream.tell())

    def readinto(self, buffer: Any) -> int:
        with _told(self._name):
            data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


@contextmanager
def _told(name: str) -> Iterator[None]:
    """What a file system raises, as words without what is secret. Their errors have no base in common."""
    try:
        yield
    except TextmillError:
        raise
    except FileNotFoundError as error:
        # A web server that refuses, or is not there, comes as this too, with what happened behind it.
        if error.__cause__ is not None and getattr(error.__cause__, "status", None) != 404:
            raise InvalidInput(f"{name}: cannot be read: {words(error.__cause__)}") from None
        raise InvalidInput(f"{name}: no such file or folder") from None
    except PermissionError as error:
        raise InvalidInput(f"{name}: may not be read: {words(error)}") from None
    except ImportError as error:
        package = error.name or re.sub(r"^\D*?[Ii]nstall (\S+).*", r"\1", str(error))
        raise NotInstalled(f"{name}: needs a further package: pip install {package} ({words(error)})") from None
    except Exception as error:
        raise InvalidInput(f"{name}: cannot be read: {type(error).__name__}: {words(error)}") from None


def words(error: BaseException) -> str:
    return shown(str(error).partition("\n")[0])[:300]
