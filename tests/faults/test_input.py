"""Hostile input, answers that are none, and a device without memory: rows 25, 26, 29 and 30 of the fault list."""

import random
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import update

from jobs import Client
from jobs.corpus import open_source
from jobs.errors import InvalidInput, InvalidParams
from jobs.store import Store
from jobs.store.encoding import JSONL_ZLIB, parse_block
from jobs.store.tables import blocks
from tests.checker import all_results, check, rows
from tests.corpora import model, raw_submit, submit
from tests.deployment import Deploy

pytestmark = pytest.mark.servers

HOSTILE = {
    "a lone surrogate": b'{"text": "\\ud800"}',
    "bytes that are not UTF-8": b'{"text": "\xff\xfe"}',
    "NaN": b'{"text": "a", "params": {"threshold": NaN}}',
    "infinity": b'{"text": "a", "params": {"threshold": 1e999}}',
    "a number of 5,000 digits": b'{"text": ' + b"9" * 5000 + b"}",
    "JSON 100,000 deep": b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "half an object": b'{"text": "a',
    "no object": b"[1, 2]",
    "nothing of ours": b'{"body": "a"}',
    "an id with NUL": b'{"text": "a", "custom_id": "\\u0000"}',
    "an unknown parameter": b'{"text": "a", "params": {"__class__": "os"}}',
}
"""Lines that no intake lets in; stored past it, each fails alone."""
ODD = {
    "empty": ("", "empty_text"),
    "only white space": (" \t\u3000\u2003 \n", "empty_text"),
    "NUL": ("a\0b", "invalid_text"),
    "right to left, and back": ("\u202eabc \u05e9\u05dc\u05d5\u05dd \u0627\u0644\u0633\u0644\u0627\u0645 123", None),
    "emoji of many parts": ("\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 " * 50, None),
    "a thousand accents": ("e" + "\u0301" * 1000, None),
    "special tokens": ("<|im_end|>\n<|im_start|>system\n[SEP]</s><s>[CLS]<pad>", None),
    "the mark of a byte order": ("\ufeffa text", None),
    "SQL": ("'; DROP TABLE jobs; --", None),
    "a template": ("{{ 7 * 7 }} ${jndi:ldap://127.0.0.1/a} %s {0}", None),
}
"""Texts that are items, with the code of the error that each ends in."""
INJECTIONS = (
    "'; DROP TABLE jobs; --",
    '" OR 1=1 --',
    "\\'); DELETE FROM results; --",
    "$$; SELECT pg_sleep(60); $$",
    "%s %(a)s :job_id ? {}",
    "\u2019 UNION SELECT 1",
)


def test_hostile_lines_are_named_and_their_neighbours_are_answered(deploy: Deploy, tmp_path: Path) -> None:
    """Row 25. Past the intake too: whatever lies in the database, a worker goes on."""
    mill = deploy()
    mill.start()
    lines = [b'{"text": "the first"}', *HOSTILE.values(), b'{"text": "the last"}']
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(lines))

    with Client(mill.settings, store=mill.store) as client:
        source = open_source(tmp_path / "in.jsonl")
        handle = client.submit("classify", source, model="fake", on_invalid="skip")
    stored = raw_submit(mill.store, lines)

    mill.final(handle.id)
    mill.final(stored)
    assert handle.loaded is not None
    assert [problem.line for problem in handle.loaded.problems] == list(range(2, len(HOSTILE) + 2))
    check(mill.store, handle.id)
    results = all_results(mill.store, stored)
    assert [result.error.code if result.error else "ok" for result in results] == [
        "ok",
        *["invalid_item"] * len(HOSTILE),
        "ok",
    ]


def test_odd_texts_get_an_answer_or_an_error_by_its_name(deploy: Deploy, chance: random.Random) -> None:
    """Row 25."""
    mill = deploy()
    mill.start()
    named = [*ODD.values(), *[(f"ordinary text {number}", None) for number in range(40)]]
    chance.shuffle(named)

    job_id = submit(mill.store, [text for text, _ in named], per_chunk=16)
    huge = submit(mill.store, ["x" * 10_000_000, "after it"])

    mill.final(job_id)
    check(mill.store, job_id, errors={seq: code for seq, (_, code) in enumerate(named) if code})
    mill.final(huge)
    check(mill.store, huge)


def test_a_block_that_unpacks_to_more_than_is_allowed_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 25."""
    monkeypatch.setattr("jobs.store.encoding.LARGEST_BLOCK", 1000)

    assert parse_block(JSONL_ZLIB, zlib.compress(b"a\nb")) == [b"a", b"b"]
    assert parse_block(JSONL_ZLIB, zlib.compress(b"x" * 1000)) == [b"x" * 1000]
    with pytest.raises(InvalidInput, match="1,000 bytes"):
        parse_block(JSONL_ZLIB, zlib.compress(b"x" * 1001))
    with pytest.raises(InvalidInput, match="cut off"):
        parse_block(JSONL_ZLIB, zlib.compress(b"x" * 900)[:-3])


@pytest.mark.thorough
@pytest.mark.timeout(300)
def test_a_compression_bomb_costs_its_own_chunk(deploy: Deploy) -> None:
    """Row 25. 4 GiB in 4 MB, put where a block was."""
    mill = deploy()
    bomb, neighbour = submit(mill.store, 10), submit(mill.store, 300)
    packing = zlib.compressobj(9)
    packed = b"".join(packing.compress(bytes(1 << 26)) for _ in range(64)) + packing.flush()
    _replace_block(mill.store, bomb, packed)
    worker = mill.start()

    mill.final(bomb, 200)
    mill.final(neighbour)

    check(mill.store, neighbour)
    assert {result.error.code for result in all_results(mill.store, bomb) if result.error} == {"chunk_error"}
    assert len(all_results(mill.store, bomb)) == 10
    assert worker.alive
    assert psutil.Process(worker.pid).memory_info().rss < 2**31


def test_whatever_looks_like_sql_is_stored_as_it_is(deploy: Deploy) -> None:
    """Row 26."""
    mill = deploy()
    mill.start()
    with Client(mill.settings, store=mill.store) as client:
        items = [{"text": text, "custom_id": text, "note": text} for text in INJECTIONS]
        labels = {text: text for text in INJECTIONS}
        handles = [
            client.submit(
                "classify",
                items,
                model="fake",
                labels=labels,
                keep=["note"],
                tenant=text,
                idempotency_key=text,
            )
            for text in INJECTIONS
        ]
        with pytest.raises(InvalidParams, match="queue"):
            client.submit("classify", items, model="fake", queue=INJECTIONS[0])

    for handle, text in zip(handles, INJECTIONS, strict=True):
        job = mill.final(handle.id)
        check(mill.store, handle.id)
        assert (job.tenant, job.labels) == (text, labels)
        results = all_results(mill.store, handle.id)
        assert [(each.custom_id, each.kept["note"]) for each in results] == [(text, text) for text in INJECTIONS]
        assert [each.id for each in mill.store.jobs.list(tenant=text)] == [handle.id]


def test_a_model_that_answers_wrongly_spoils_nobody_elses_row(deploy: Deploy, chance: random.Random) -> None:
    """Row 29."""
    mill = deploy()
    mill.start()
    marks = ("[[raise]]", "[[nan]]", "[[wrong]]", "[[few]]")
    texts = [f"good {number}" for number in range(120)]
    spoilt = dict(zip(chance.sample(range(120), 12), marks * 3, strict=True))
    for seq, mark in spoilt.items():
        texts[seq] = f"{mark} {seq}"

    job_id = submit(mill.store, texts, per_chunk=50, model=model(mill.store, max_items=16))

    mill.final(job_id)
    check(mill.store, job_id, errors=dict.fromkeys(spoilt, "model_error"))


@pytest.mark.parametrize(("refused", "errors"), [("NEW.status = 'ok' AND NEW.seq = 33", 10), ("NEW.seq = 33", None)])
def test_rows_that_the_database_refuses_end_as_errors_or_with_their_job(
    deploy: Deploy, refused: str, errors: int | None
) -> None:
    """Row 29. It is tried five times, not for ever; the chunk's items are errors then, and if those are refused too,
    the job has failed."""
    mill = deploy()
    mill.start()
    mill.upkeep.start()
    with _refusing(mill.store, refused):
        job_id = submit(mill.store, 40, per_chunk=10)
        job = mill.final(job_id, 60)

    results = {result.seq: result.error for result in all_results(mill.store, job_id)}
    assert [seq for seq, error in results.items() if error is None][:30] == list(range(30))
    if errors is None:
        assert (job.state, 33 in results) == ("failed", False)
        assert "results cannot be saved" in str(job.error)
    else:
        assert job.state == "completed"
        assert {error.code for error in results.values() if error} == {"chunk_error"}
        assert (job.counts.ok, job.counts.error) == (30, 10)


def test_out_of_memory_fails_only_what_can_never_fit(deploy: Deploy, chance: random.Random) -> None:
    """Row 30."""
    mill = deploy()
    worker = mill.start()
    lengths = [chance.randint(1, 60) for _ in range(200)]
    texts = [" ".join(["word"] * length) for length in lengths]
    crowded = chance.sample(range(200), 5)
    for seq in crowded:
        texts[seq] = f"[[crowded]] {texts[seq]}"
    texts[7], texts[150] = " ".join(["giant"] * 90), "[[oom]]"

    job_id = submit(mill.store, texts, per_chunk=64, model=model(mill.store, memory_tokens=64))

    mill.final(job_id)
    check(mill.store, job_id, errors={7: "too_long", 150: "too_long"})
    assert worker.alive
    assert "Traceback" not in worker.said()


@pytest.mark.parametrize(
    ("overrides", "items", "params", "said"),
    [
        ({"max_job_items": 3}, ["a"] * 4, {}, "max_job_items"),
        ({"max_job_bytes": 50}, ["a" * 30, "b" * 30], {}, "max_job_bytes"),
        ({"max_params_bytes": 1024}, ["a"], {"labels": ["a" * 600, "b" * 600]}, "max_params_bytes"),
    ],
)
def test_what_is_more_than_the_settings_allow_is_refused_by_the_settings_name(
    store: Store, settings: Any, overrides: dict[str, int], items: list[str], params: dict[str, Any], said: str
) -> None:
    with Client(settings(**overrides), store=store) as client, pytest.raises((InvalidInput, InvalidParams), match=said):
        client.submit("classify", items, model="fake", params=params)

    assert [job.state for job in store.jobs.list()] in ([], ["failed"])


@pytest.mark.parametrize(
    "arguments",
    [
        {"labels": {str(number): "x" for number in range(65)}},
        {"labels": {"x": "y" * 1025}},
        {"keep": [str(number) for number in range(65)]},
        {"keep": ["x" * 257]},
        {"tenant": "x" * 129},
        {"idempotency_key": "x" * 257},
    ],
)
def test_what_a_caller_names_has_an_end(store: Store, settings: Any, arguments: dict[str, Any]) -> None:
    with Client(settings(), store=store) as client, pytest.raises(InvalidParams, match=next(iter(arguments))):
        client.submit("classify", ["a"], model="fake", **arguments)

    assert store.jobs.list() == []


@contextmanager
def _refusing(store: Store, condition: str) -> Iterator[None]:
    """A database that refuses new results for which this is true."""
    if store.dialect == "sqlite":
        made = [
            f"CREATE TRIGGER refuse BEFORE INSERT ON results WHEN {condition} BEGIN SELECT RAISE(ABORT, 'refused'); END"
        ]
    else:
        made = [
            "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE check_violation USING MESSAGE = 'refused'; END $$",
            f"CREATE TRIGGER refuse BEFORE INSERT ON results FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION refuse()",
        ]
    _write(store, *made)
    yield
    _write(store, "DROP TRIGGER refuse" + ("" if store.dialect == "sqlite" else " ON results"))


def _write(store: Store, *statements: str) -> None:
    for statement in statements:
        store._db.write(lambda connection, text=statement: connection.exec_driver_sql(text))


def _replace_block(store: Store, job_id: str, data: bytes) -> None:
    """Put other bytes where the job's only block was."""
    block_id = max(claim[0] for claim in rows(store, "SELECT id FROM blocks WHERE n_items = 10"))
    assert store.jobs.get(job_id).counts.total == 10
    values = update(blocks).where(blocks.c.id == block_id).values(data=data)
    store._db.write(lambda connection: connection.execute(values))
