"""Results to tables of databases and to URLs: typed, whole, the same when they are delivered again."""

import csv
import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import sqlalchemy as sa

from jobs.corpus import AnySink, open_sink
from jobs.errors import InvalidInput, OutputError

KINDS = {"labels": list[dict[str, Any]], "embedding": bytes, "tokens": int | None, "text": str, "share": float}


def line(name: str, **given: Any) -> bytes:
    result = {"seq": 0, "custom_id": name, "status": "ok", "error": None, "kept": {}}
    output = {
        "labels": [{"label": "good", "score": 0.5}],
        "embedding": [0.5, 1.0],
        "tokens": 3,
        "text": "ä",
        "share": 0.25,
    }
    return json.dumps({**result, "output": output, **given}).encode()


def failed(name: str) -> bytes:
    return line(name, status="error", output=None, error={"code": "too_long", "message": "600 tokens"})


def written(target: str, *lines: bytes, kept: tuple[str, ...] = ()) -> None:
    with open_sink(target, columns=KINDS, kept=kept) as sink:
        for each in lines:
            sink.write_line(each)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database of somebody else's."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else f"sqlite:///{tmp_path}/other.db"
    return str(url)


@pytest.fixture
def rows(database: str) -> Iterator[Any]:
    """Asks the database; ends with the test, as does the table `out`."""
    engine = sa.create_engine(database.replace("postgresql://", "postgresql+psycopg://"))

    def ask(query: str) -> list[dict[str, Any]]:
        with engine.begin() as connection:
            found = connection.execute(sa.text(query))
            return [dict(row._mapping) for row in found] if found.returns_rows else []

    yield ask
    ask("DROP TABLE IF EXISTS out")
    engine.dispose()


def test_a_table_is_made_with_types_and_filled(database: str, rows: Any) -> None:
    written(f"{database}#out", line("a", kept={"lang": "en", "text": 7}), failed("b"), kept=("lang", "text"))

    [good, bad] = rows("SELECT * FROM out ORDER BY custom_id")
    assert (good["custom_id"], good["status"], good["tokens"], good["text"], good["share"]) == ("a", "ok", 3, "ä", 0.25)
    assert _plain(good["labels"]) == [{"label": "good", "score": 0.5}]
    assert _plain(good["embedding"]) == [0.5, 1.0]
    assert (good["lang"], good["kept_text"], good["error_code"]) == ("en", "7", None)
    assert (bad["status"], bad["text"], bad["error_code"], bad["error"]) == ("error", None, "too_long", "600 tokens")


def test_what_is_delivered_again_changes_nothing_and_what_is_new_replaces(database: str, rows: Any) -> None:
    lines = [line(str(number)) for number in range(2500)]
    for _ in range(2):
        written(f"{database}#out", *lines)

    written(f"{database}#out", line("7", output={"text": "new"}), line("new"))

    assert rows("SELECT count(*) AS n FROM out") == [{"n": 2501}]
    assert rows("SELECT text, tokens FROM out WHERE custom_id = '7'") == [{"text": "new", "tokens": None}]


def test_a_table_of_another_shape_is_refused_before_anything_is_run(database: str, rows: Any) -> None:
    rows("CREATE TABLE out (custom_id text PRIMARY KEY, status text)")
    with pytest.raises(OutputError, match="the table has no column labels, embedding, tokens, text, share, error_code"):
        open_sink(f"{database}#out", columns=KINDS).check()

    rows("DROP TABLE out")
    rows("CREATE TABLE out (custom_id text, status text, text text, error_code text, error text)")
    with pytest.raises(OutputError, match="custom_id is no key of the table"):
        open_sink(f"{database}#out", columns={"text": str}).check()


def test_a_table_with_more_columns_and_a_unique_key_will_do(database: str, rows: Any) -> None:
    rows("CREATE TABLE out (custom_id text UNIQUE, status text, text text, error_code text, error text, mine text)")

    with open_sink(f"{database}#out", columns={"text": str}) as sink:
        sink.write_line(line("a"))

    assert rows("SELECT custom_id, text, mine FROM out") == [{"custom_id": "a", "text": "ä", "mine": None}]


def test_a_table_that_vanishes_is_an_error_and_loses_nothing_before(database: str, rows: Any) -> None:
    sink = open_sink(f"{database}#out", columns=KINDS)
    for number in range(1000):
        sink.write_line(line(str(number)))
    rows("DROP TABLE out")
    sink.write_line(line("x"))

    with pytest.raises(OutputError, match="cannot be written"):
        sink.commit()

    written(f"{database}#out", line("x"))
    assert rows("SELECT custom_id FROM out") == [{"custom_id": "x"}]


@pytest.mark.parametrize("name", ["a b", 'out"; DROP TABLE jobs; --', "1st", "x" * 64, "a.b.c"])
def test_what_is_no_name_of_a_table_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match="is no name of a table"):
        open_sink(f"sqlite:///{tmp_path}/other.db#{name}", columns=KINDS)


def test_a_password_is_never_said() -> None:
    with pytest.raises(OutputError) as refused:
        open_sink("postgresql://me:hunter2@127.0.0.1:1/shop#out", columns=KINDS).check()

    assert "hunter2" not in str(refused.value)
    assert "postgresql://***@127.0.0.1:1/shop#out" in str(refused.value)


@pytest.fixture
def memory() -> Iterator[Any]:
    """A file system of fsspec's own, one for the whole process: only the bucket in it is ours."""
    found = fsspec.filesystem("memory")
    yield found
    found.rm("/bucket", recursive=True)


def test_a_url_gets_the_format_of_its_suffix(memory: Any) -> None:
    written("memory://bucket/deep/out.jsonl", line("a"), line("b"))
    written("memory://bucket/out.csv.gz", line("a"))
    written("memory://bucket/out.parquet", line("a"))

    assert [json.loads(each)["custom_id"] for each in memory.cat("/bucket/deep/out.jsonl").splitlines()] == ["a", "b"]
    unpacked = gzip.decompress(memory.cat("/bucket/out.csv.gz")).decode()
    assert [row["custom_id"] for row in csv.DictReader(io.StringIO(unpacked))] == ["a"]
    assert memory.cat("/bucket/out.parquet")[:4] == b"PAR1"
    assert sorted(memory.find("/bucket")) == ["/bucket/deep/out.jsonl", "/bucket/out.csv.gz", "/bucket/out.parquet"]


def test_a_url_has_the_old_or_the_new_results_never_a_part(memory: Any) -> None:
    written("memory://bucket/out.jsonl", line("old"))
    sink = open_sink("memory://bucket/out.jsonl", columns=KINDS)

    sink.check()
    sink.write_line(line("new"))
    assert b"old" in memory.cat("/bucket/out.jsonl")
    sink.discard()

    assert memory.find("/bucket") == ["/bucket/out.jsonl"]
    assert b"old" in memory.cat("/bucket/out.jsonl")


def test_a_url_that_cannot_be_written_is_told_without_its_secrets(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("AccessDenied for https://me:hunter2@store/x?sig=abc")

    monkeypatch.setattr(type(memory), "_open", refuse)

    with pytest.raises(OutputError) as refused:
        written("memory://bucket/out.jsonl", line("a"))

    assert "AccessDenied" in str(refused.value)
    assert "hunter2" not in str(refused.value)
    assert "abc" not in str(refused.value)


def test_a_file_url_is_the_file(tmp_path: Path) -> None:
    written(f"file://{tmp_path}/out.jsonl", line("a"))

    assert json.loads((tmp_path / "out.jsonl").read_text())["custom_id"] == "a"


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("https://host/out.jsonl", "web servers take no results"),
        ("nowhere://host/out.jsonl", "unknown scheme 'nowhere'"),
        ("memory://bucket/out.docx", "unknown format .docx"),
        ("postgresql://host/name", "name the table behind a #"),
    ],
)
def test_a_target_that_can_be_none_is_refused(target: str, said: str) -> None:
    with pytest.raises((InvalidInput, OutputError), match=said):
        _checked(open_sink(target, columns=KINDS))


def _checked(sink: AnySink) -> None:
    sink.check()


def _plain(value: Any) -> Any:
    """JSON as SQLite gives it, or as it is."""
    return json.loads(value) if isinstance(value, str) else value


def test_a_nul_in_one_text_does_not_keep_the_others_from_their_table(database: str, rows: Any) -> None:
    odd = line("a", output={"text": "a\0b", "labels": [{"label": "x\0", "score": 1.0}]}, kept={"note": "n\0"})

    written(f"{database}#out", odd, line("b"), kept=("note",))

    found = rows("SELECT custom_id, text, note FROM out ORDER BY custom_id")
    assert [(row["custom_id"], row["text"], row["note"]) for row in found] == [
        ("a", "a\ufffdb", "n\ufffd"),
        ("b", "ä", None),
    ]
