"""Sources behind URLs: memory, a zip, local files, and a web server that gives parts of files."""

import functools
import gzip
import http.server
import io
import os
import sys
import threading
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec
import orjson
import pyarrow
import pytest
from pyarrow import parquet

from jobs.corpus import Source, open_source
from jobs.errors import InvalidInput, NotInstalled


def texts(source: Source) -> list[str]:
    return [orjson.loads(line)["text"] for _, line in source]  # type: ignore[arg-type]


def jsonl(*found: str) -> bytes:
    return b"".join(orjson.dumps({"text": text}) + b"\n" for text in found)


def table(*found: str) -> bytes:
    stream = io.BytesIO()
    parquet.write_table(pyarrow.table({"text": list(found)}), stream)
    return stream.getvalue()


@pytest.fixture
def memory() -> Iterator[str]:
    """A folder of its own in the file system of the process's memory."""
    fs, root = fsspec.filesystem("memory"), f"/{uuid.uuid4().hex}"
    fs.pipe(f"{root}/b.jsonl", jsonl("b"))
    fs.pipe(f"{root}/a/1.jsonl.gz", gzip.compress(jsonl("packed")))
    fs.pipe(f"{root}/c.parquet", table("parquet"))
    fs.pipe(f"{root}/z.txt", b"a whole\ntext")
    fs.pipe(f"{root}/.hidden.jsonl", jsonl("hidden"))
    fs.pipe(f"{root}/README.md", b"none of ours")
    yield f"memory:/{root}"
    fs.rm(root, recursive=True)


class Server(http.server.SimpleHTTPRequestHandler):
    """Files with an etag and in parts, `/plain/` without either; `/locked/` for nobody."""

    sent: list[int]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file() or path.parent.name == "locked":
            self.send_error(404 if not path.exists() else 403)
            return
        data, parts = path.read_bytes(), path.parent.name != "plain"
        asked = self.headers.get("Range") if parts else None
        lo, hi = 0, len(data)
        if asked:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            lo, hi = int(first), min(int(last) + 1 if last else hi, hi)
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {lo}-{hi - 1}/{len(data)}")
        if parts:
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("ETag", f'"{hash(data):x}"')
        self.send_header("Content-Length", str(hi - lo))
        self.end_headers()
        if self.command == "GET":
            with suppress(ConnectionError):  # a reader that wanted parts hangs up
                self.wfile.write(data[lo:hi])
            self.sent.append(hi - lo)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Path, list[int]]]:
    """A server's URL, its folder, and how many bytes each answer held."""
    sent: list[int] = []
    handler = type("Handler", (Server,), {"sent": sent})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    for folder in ("plain", "locked"):
        (tmp_path / folder).mkdir()
    yield f"http://127.0.0.1:{server.server_port}", tmp_path, sent
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_file_a_glob_and_a_folder_are_read_behind_a_url_as_they_are_on_disk(memory: str) -> None:
    assert texts(open_source(f"{memory}/b.jsonl")) == ["b"]
    assert texts(open_source(f"{memory}/**/*.gz")) == ["packed"]

    source = open_source(memory)

    assert texts(source) == ["packed", "b", "parquet", "a whole\ntext"]
    assert str(source.locate(2)[0]).endswith(memory.removeprefix("memory:/") + "/b.jsonl")
    assert [orjson.loads(line) for _, line in source][-1]["custom_id"] == "z.txt"  # type: ignore[arg-type]


def test_a_url_of_a_local_file_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(jsonl("local"))

    assert texts(open_source(f"file://{tmp_path}/a.jsonl")) == ["local"]
    assert texts(open_source(f"file://{tmp_path}/*.jsonl")) == ["local"]
    assert open_source(f"file://{tmp_path}/a.jsonl").fingerprint() == open_source(tmp_path / "a.jsonl").fingerprint()


def test_a_file_in_a_zip_is_read_through_a_chain(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("in/a.jsonl", jsonl("zipped"))
        archive.writestr("in/b.csv", "text\nsheet\n")

    assert texts(open_source(f"zip://in/a.jsonl::file://{tmp_path}/all.zip")) == ["zipped"]
    assert texts(open_source(f"zip://in/*::file://{tmp_path}/all.zip")) == ["zipped", "sheet"]


def test_a_change_behind_a_url_is_another_fingerprint_and_refused_while_it_is_read(memory: str) -> None:
    url = f"{memory}/b.jsonl"
    fs, source = fsspec.filesystem("memory"), open_source(url)
    before = source.fingerprint()
    assert before == open_source(url).fingerprint() is not None

    fs.pipe(url.removeprefix("memory:/"), jsonl("changed"))

    assert open_source(url).fingerprint() != before
    with pytest.raises(InvalidInput, match=r"b\.jsonl: the file was changed"):
        list(source)


def test_a_web_server_s_files_are_streamed_in_parts_and_known_by_their_etag(
    served: tuple[str, Path, list[int]],
) -> None:
    url, folder, sent = served
    lines = [f"{number} " + "x" * 1000 for number in range(20_000)]
    (folder / "long.jsonl").write_bytes(jsonl(*lines))
    (folder / "a.parquet").write_bytes(table("one", "two"))

    source = open_source([f"{url}/long.jsonl", f"{url}/a.parquet"])
    first = source.fingerprint()

    assert first is not None
    assert sum(sent) < 1_000_000  # nothing is read for the fingerprint
    assert texts(source) == [*lines, "one", "two"]
    assert max(sent) < 11_000_000  # of 20 MB


def test_a_web_server_without_parts_and_etag_is_read_twice(served: tuple[str, Path, list[int]]) -> None:
    url, folder, _ = served
    (folder / "plain" / "a.jsonl").write_bytes(jsonl("first"))
    (folder / "plain" / "b.jsonl").write_bytes(jsonl("other"))

    source = open_source(f"{url}/plain/a.jsonl?sig=verysecret")

    assert source.fingerprint() not in (None, open_source(f"{url}/plain/b.jsonl").fingerprint())
    assert texts(source) == ["first"]
    assert source.locate(1)[0] == f"{url}/plain/a.jsonl?***"


def test_a_long_file_is_read_from_front_to_end_where_the_server_gives_no_parts(
    served: tuple[str, Path, list[int]],
) -> None:
    url, folder, _ = served
    lines = [f"{number} " + "x" * 1000 for number in range(20_000)]
    (folder / "plain" / "long.jsonl").write_bytes(jsonl(*lines))
    (folder / "plain" / "a.parquet").write_bytes(table(os.urandom(6_000_000).hex()))

    assert texts(open_source(f"{url}/plain/long.jsonl")) == lines
    with pytest.raises(InvalidInput, match=r"a\.parquet: cannot be read as Parquet: .*seek"):
        texts(open_source(f"{url}/plain/a.parquet"))


def test_a_url_without_a_suffix_takes_the_named_format(served: tuple[str, Path, list[int]]) -> None:
    url, folder, _ = served
    (folder / "export").write_bytes(jsonl("one"))

    assert texts(open_source(f"{url}/export", form="jsonl")) == ["one"]
    with pytest.raises(InvalidInput, match="unknown format a name without a suffix"):
        open_source(f"{url}/export")


@pytest.mark.parametrize(("name", "says"), [("nothing.jsonl", "no such file"), ("locked/a.jsonl", "403")])
def test_what_a_web_server_refuses_is_told_without_login_and_signature(
    served: tuple[str, Path, list[int]], name: str, says: str
) -> None:
    url, folder, _ = served
    (folder / "locked" / "a.jsonl").write_bytes(jsonl("one"))
    secret = url.replace("://", "://someone:pass@word@") + f"/{name}?X-Amz-Signature=verysecret"

    with pytest.raises(InvalidInput, match=says) as told:
        list(open_source(secret))

    assert not any(each in str(told.value) for each in ("someone", "pass", "word@", "verysecret"))
    assert told.value.__cause__ is None


def test_unknown_schemes_name_the_known_and_missing_packages_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInput, match=r"unknown scheme 'nope'; known: .*s3, .*zip"):
        open_source("nope://user:secret@bucket/a.jsonl")
    with pytest.raises(InvalidInput, match="is a database; say with --query"):
        open_source("postgresql://user:secret@host/db")
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(NotInstalled, match=r"gs://b/a\.jsonl: needs a further package: pip install gcsfs"):
        open_source("gs://b/a.jsonl")


def test_a_pattern_behind_a_url_that_fits_nothing_says_so(memory: str) -> None:
    with pytest.raises(InvalidInput, match="the pattern matches no file"):
        open_source(f"{memory}/*.tsv")
    with pytest.raises(InvalidInput, match="no such file"):
        open_source(f"{memory}/missing.jsonl")
