"""Sources that are a query: on SQLite and on PostgreSQL, read only, with nothing secret said."""

import datetime
import decimal
import tracemalloc
import uuid
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from sqlalchemy import create_engine, make_url, text

from jobs.cli.inputs import open_inputs
from jobs.corpus import Fields, Rows, Source, open_query
from jobs.errors import InvalidInput
from jobs.settings import Settings

MakeSettings = Callable[..., Settings]


def items(source: Source) -> list[object]:
    return [orjson.loads(line) if isinstance(line, bytes) else line.code for _, line in source]


def run(url: str, *statements: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


@pytest.fixture
def tickets(store_url: str) -> str:
    """A database with a table of three tickets."""
    run(
        store_url,
        "DROP TABLE IF EXISTS tickets",
        "CREATE TABLE tickets (nr INTEGER, body TEXT, lang TEXT)",
        "INSERT INTO tickets VALUES (1, 'one', 'en'), (2, 'zwei 50%', NULL), (3, 'at 12\\:30', 'en')",
    )
    return store_url


def count(url: str) -> int:
    engine = create_engine(url)
    with engine.connect() as connection:
        found = connection.execute(text("SELECT count(*) FROM tickets")).scalar_one()
    engine.dispose()
    return int(found)


def test_the_rows_of_a_query_are_items_by_the_names_of_its_columns(tickets: str) -> None:
    source = open_query(tickets, "SELECT * FROM tickets ORDER BY nr;", text_field="body", id_field="nr")

    assert items(source) == [
        {"nr": 1, "lang": "en", "custom_id": "1", "text": "one"},
        {"nr": 2, "custom_id": "2", "text": "zwei 50%"},
        {"nr": 3, "lang": "en", "custom_id": "3", "text": "at 12:30"},
    ]
    assert len(items(open_query(tickets, "tickets", text_field="body"))) == 3
    assert source.fingerprint() is None


def test_percent_signs_and_colons_of_a_query_stand_for_themselves(tickets: str) -> None:
    query = "SELECT body AS text FROM tickets WHERE body LIKE '%50\\%%' ESCAPE '\\' OR body LIKE '%2:30' ORDER BY nr"

    assert [item["text"] for item in items(open_query(tickets, query))] == ["zwei 50%", "at 12:30"]  # type: ignore[index]


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM tickets",
        "DELETE FROM tickets RETURNING body AS text",
        "SELECT body AS text FROM tickets; DELETE FROM tickets",
        "COMMIT; DELETE FROM tickets",
        "DROP TABLE tickets",
    ],
)
def test_a_query_that_writes_is_refused_by_the_database(tickets: str, query: str) -> None:
    with pytest.raises(InvalidInput, match="the database refused, and a query may only read"):
        list(open_query(tickets, query))

    assert count(tickets) == 3


def test_a_function_that_writes_is_refused_too(postgres_url: str) -> None:
    run(postgres_url, "DROP SEQUENCE IF EXISTS counted", "CREATE SEQUENCE counted")

    with pytest.raises(InvalidInput, match="in a read-only transaction"):
        list(open_query(postgres_url, "SELECT nextval('counted')::text AS text"))


def test_what_json_lacks_has_its_documented_form(postgres_url: str) -> None:
    query = (
        "SELECT 'x' AS text, DATE '2026-01-02' AS d, TIMESTAMPTZ '2026-01-02 03:04:05+00' AS t, 1.50::numeric AS n, "
        "'\\x00ff'::bytea AS b, '00000000-0000-0000-0000-000000000001'::uuid AS u, ARRAY[1, 2] AS a, "
        "'{\"k\": 1}'::jsonb AS j"
    )

    (item,) = items(open_query(postgres_url, query))

    assert isinstance(item, dict)
    assert datetime.datetime.fromisoformat(item.pop("t")) == datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    assert decimal.Decimal(item.pop("n")) == decimal.Decimal("1.50")
    assert uuid.UUID(item.pop("u")).int == 1
    assert item == {"text": "x", "d": "2026-01-02", "b": "AP8=", "a": [1, 2], "j": {"k": 1}}


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("SELECT body FROM tickets", "no column 'text'; its columns are: body"),
        ("SELECT body AS text, nr AS text FROM tickets", "the column 'text' twice"),
        ("SELECT body AS text FROM nowhere", "nowhere"),
    ],
)
def test_a_wrong_query_is_told(tickets: str, query: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        list(open_query(tickets, query))


def test_a_null_is_left_out_of_its_item(tickets: str) -> None:
    found = items(open_query(tickets, "SELECT nr, lang FROM tickets ORDER BY nr", text_field="lang"))

    assert [each.get("text") for each in found if isinstance(each, dict)] == ["en", None, "en"]


def test_a_password_is_never_said(postgres_url: str) -> None:
    wrong = make_url(postgres_url).set(host="127.0.0.1", port=1, username="reader", password="very/secret@word")

    with pytest.raises(InvalidInput) as told:
        list(open_query(wrong.render_as_string(hide_password=False), "tickets"))

    assert not any(each in str(told.value) for each in ("very", "secret", "word@"))


def test_a_hundred_thousand_rows_are_never_in_memory_at_once(tickets: str) -> None:
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)"
    row = "SELECT i, 'a text of some words that goes on for a while', 'en'"
    run(tickets, f"INSERT INTO tickets {numbers} {row} FROM n")

    tracemalloc.start()
    rows = sum(1 for _ in open_query(tickets, "SELECT body AS text FROM tickets"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert rows == 100_003
    assert peak < 6_000_000


def test_the_command_line_reads_a_query_once_and_knows_equal_rows_again(tickets: str, settings: MakeSettings) -> None:
    said: list[str] = []
    fields, chosen = Fields(text="body", id="nr"), settings()

    def fingerprint(query: str) -> str | None:
        with open_inputs([tickets], chosen, fields, query=query, say=said.append) as source:
            assert len(items(source)) == 3
            assert "secret" not in str(source.locate(1)[0])
            return source.fingerprint()

    first = fingerprint("SELECT * FROM tickets ORDER BY nr")

    assert first == fingerprint("SELECT nr, body, lang FROM tickets ORDER BY nr") is not None
    assert first != fingerprint("SELECT * FROM tickets ORDER BY nr DESC")
    for names, query in (([tickets], None), (["a.jsonl"], "tickets"), ([tickets, tickets], "tickets")):
        with (
            pytest.raises(InvalidInput, match="--query"),
            open_inputs(names, chosen, fields, query=query, say=said.append),
        ):
            pass


def test_a_decimal_is_compared_as_the_number_it_reads_as(postgres_url: str) -> None:
    query = "SELECT * FROM (VALUES ('a', 0.1), ('b', 'NaN'::numeric), ('c', 7)) AS rows (text, price)"

    def taken(where: str) -> list[object]:
        return [item["text"] for item in items(open_query(postgres_url, query, rows=Rows(where=where)))]  # type: ignore[index]

    assert taken("price = 0.1") == ["a"]
    assert taken("price > 1") == ["c"]
    assert taken("price = 7") == ["c"]


def test_one_text_that_is_not_utf8_costs_only_its_row(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/odd.db"
    run(url, "CREATE TABLE t (text TEXT)", "INSERT INTO t VALUES ('one'), (CAST(x'ff41' AS TEXT)), ('three')")

    lines = [line for _, line in open_query(url, "t")]

    assert lines == [b'{"text":"one"}', b'{"text": "\\udcffA"}', b'{"text":"three"}']  # which no intake takes


def test_a_number_of_more_than_64_bits_inside_json_is_read(postgres_url: str) -> None:
    query = """SELECT 'a' AS text, '{"n": 123456789012345678901234567890}'::jsonb AS doc"""

    [(_, line)] = list(open_query(postgres_url, query))

    assert line == b'{"text": "a", "doc": {"n": 123456789012345678901234567890}}'


def test_a_query_cannot_end_the_transaction_that_may_only_read(postgres_url: str) -> None:
    run(postgres_url, "DROP TABLE IF EXISTS kept_safe", "CREATE TABLE kept_safe (text TEXT)")

    for ending in ("COMMIT", "ROLLBACK"):
        with pytest.raises(InvalidInput):
            list(open_query(postgres_url, f"SELECT 'a' AS text; {ending}; DROP TABLE kept_safe"))

    run(postgres_url, "SELECT * FROM kept_safe")
