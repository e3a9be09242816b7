"""The dashboard over a full database: how long each page takes, what a viewer costs, what a first visit weighs."""

import argparse
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from zlib import compress

import httpx2
import psutil
from sqlalchemy import Connection, insert, text

from benchmarks.api import served
from benchmarks.deployment import DATABASES, Deployment, deployment
from benchmarks.report import percentile, show
from jobs.store import ids
from jobs.store.tables import blocks, chunks, jobs

JOBS, RESULTS = 100_000, 10_000_000
BIG_CHUNKS, PER_CHUNK = 10_000, 256
"""Of one job, which is being looked at."""
DAYS = 30
TASKS = ("classify", "ner", "translate", "summarize", "embed", "generate")
STATES = (("completed", 0.97), ("failed", 0.01), ("cancelled", 0.01), ("queued", 0.005), ("running", 0.005))
AT_ONCE = 2000
LOOKS = 15
VIEWERS, WATCHED_S = 10, 30.0
LINES = compress(b"\n".join(b'{"text": "a text of some length, as items have it"}' for _ in range(PER_CHUNK)))

_RESULT = """
    INSERT INTO results (job_id, seq, custom_id, status, output, error_code, error, tokens_in, tokens_out,
                         truncated_tokens, windows)
    SELECT c.job_id, c.seq_lo + n.i, CAST(c.seq_lo + n.i AS TEXT),
           CASE WHEN n.i < c.n_error THEN 'error' ELSE 'ok' END,
           CASE WHEN n.i < c.n_error THEN NULL ELSE '{"labels":[{"label":"POSITIVE","score": 0.9}]}' END,
           CASE WHEN n.i < c.n_error THEN 'too_long' END, CASE WHEN n.i < c.n_error THEN '600 tokens' END, 12, 0, 0, 1
    FROM (SELECT * FROM chunks WHERE id > :low AND id <= :high AND state = 'done') AS c
    JOIN numbers AS n ON n.i < c.seq_hi - c.seq_lo
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=JOBS)
    parser.add_argument("--results", type=int, default=RESULTS)
    parser.add_argument("--database", choices=DATABASES, action="append", help="only this one")
    asked = parser.parse_args()
    rows: list[dict[str, object]] = []
    for database in asked.database or DATABASES:
        with deployment(database, durable=False) as running:
            big = fill(running, asked.jobs, asked.results)
            with served(running) as (url, process):
                rows += [
                    {"database": database, **row}
                    for row in (*pages(url, big), *visits(url), *viewers(url, big, process))
                ]
    note = f"{asked.jobs:,} jobs, {asked.results:,} results, one of the jobs has {BIG_CHUNKS:,} chunks"
    show("dashboard", rows, note=note)


def fill(running: Deployment, n_jobs: int, n_results: int) -> str:
    """Jobs of the last 30 days with their chunks and results, written by the database itself; the id of the big one."""
    chance, moment = random.Random(8), datetime.now(UTC)
    each = max(1, min(PER_CHUNK, (n_results - BIG_CHUNKS * PER_CHUNK) // n_jobs))
    ages = sorted((chance.random() * DAYS * 86_400 for _ in range(n_jobs - 1)), reverse=True)
    big: UUID | None = None
    for at in range(0, n_jobs - 1, AT_ONCE):
        with _writing(running) as connection:
            for age in ages[at : at + AT_ONCE]:
                state = chance.choices([name for name, _ in STATES], [share for _, share in STATES])[0]
                _job(connection, chance, moment - timedelta(seconds=age), state, 1, each)
    with _writing(running) as connection:
        big = _job(connection, chance, moment - timedelta(hours=2), "running", BIG_CHUNKS, PER_CHUNK)
    _results(running)
    return ids.public(big)


def _job(
    connection: Connection, chance: random.Random, made_at: datetime, state: str, n_chunks: int, each: int
) -> UUID:
    """A job whose chunks are done in the minutes after it was made, but for the last tenth of one that runs."""
    job_id = UUID(int=int(made_at.timestamp() * 1000) << 80 | 0x7 << 76 | 0b10 << 62 | chance.getrandbits(61))
    task, final, started = chance.choice(TASKS), state in ("completed", "failed", "cancelled"), state != "queued"
    end = made_at + timedelta(seconds=chance.random() * 600)
    values = {"id": job_id, "tenant": "default", "request_hash": b"", "task": task, "model": f"model-{len(task)}"}
    values |= {
        "params": {},
        "keep": [],
        "labels": {"team": chance.choice(["news", "sport", "shop"])},
        "queue": "default",
    }
    values |= {"priority": 0, "weight": 1.0, "turn": 0.0, "state": state, "control": "run", "n_items": n_chunks * each}
    values |= {
        "n_chunks": n_chunks,
        "created_at": made_at,
        "sealed_at": made_at,
        "started_at": made_at if started else None,
    }
    values |= {"finished_at": end if final else None, "error": "its model is gone" if state == "failed" else None}
    connection.execute(insert(jobs), values)
    new = {
        "job_id": job_id,
        "n_items": each,
        "encoding": "jsonl+zlib",
        "sha256": b"",
        "data": LINES,
        "created_at": made_at,
    }
    made = [{**new, "seq_lo": at * each} for at in range(n_chunks)]
    found = (
        connection.execute(insert(blocks).returning(blocks.c.id, sort_by_parameter_order=True), made).scalars().all()
    )
    connection.execute(
        insert(chunks), [_chunk(chance, values, block, at, n_chunks, each) for at, block in enumerate(found)]
    )
    return job_id


def _chunk(chance: random.Random, job: dict[str, Any], block: int, at: int, n_chunks: int, each: int) -> dict[str, Any]:
    done = job["state"] == "completed" or (job["state"] == "running" and at < n_chunks * 0.9)
    n_error = int(done and chance.random() < 0.02)
    ended = job["finished_at"] or min(job["created_at"] + timedelta(seconds=0.7 * at), datetime.now(UTC))
    found = {
        "job_id": job["id"],
        "block_id": block,
        "seq_lo": at * each,
        "seq_hi": (at + 1) * each,
        "tenant": "default",
    }
    found |= {
        "queue": "default",
        "model": job["model"],
        "priority": 0,
        "turn": 0.0,
        "cost": 12 * each,
        "attempt": int(done),
    }
    found |= {"state": "done" if done else "cancelled" if job["finished_at"] else "pending", "n_error": n_error}
    found |= {"n_ok": each - n_error if done else 0, "tokens_in": 12 * each if done else 0}
    return found | {"started_at": job["created_at"] if done else None, "finished_at": ended if done else None}


def _results(running: Deployment) -> None:
    with _writing(running) as connection:
        connection.execute(text("CREATE TABLE numbers (i INTEGER PRIMARY KEY)"))
        connection.execute(text("INSERT INTO numbers VALUES (:i)"), [{"i": number} for number in range(PER_CHUNK)])
        last = connection.execute(text("SELECT max(id) FROM chunks")).scalar_one()
    for low in range(0, last, AT_ONCE):
        with _writing(running) as connection:
            connection.execute(text(_RESULT), {"low": low, "high": low + AT_ONCE})
    if running.store.dialect == "postgresql":  # as autovacuum does within the hour
        engine = running.store._db.engine
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))


@contextmanager
def _writing(running: Deployment) -> Iterator[Connection]:
    with running.store._db.engine.connect() as connection, connection.begin():
        yield connection


def pages(url: str, big: str) -> list[dict[str, object]]:
    """The median of some looks at each page, and the slowest."""
    rows = []
    with httpx2.Client(base_url=url, timeout=60) as http:
        far = "/jobs"
        for _ in range(20):
            far = (
                http.get(far)
                .text.split('rel="next"')[0]
                .rpartition('href="')[2]
                .rpartition('"')[0]
                .replace("&amp;", "&")
            )
        for path, name in (
            ("/", "overview"),
            ("/?span=24h", "overview, 24 h"),
            ("/?span=7d", "overview, 7 days"),
            ("/jobs", "jobs"),
            (far, "jobs, the 20th page"),
            ("/jobs?q=state:running+task:ner", "jobs, running, of a task"),
            ("/jobs?q=label:team=news", "jobs of a label"),
            ("/jobs?sort=-n_items", "jobs, largest first"),
            ("/jobs?sort=-finished_at", "jobs, last ended first"),
            (f"/jobs/{big}", "the big job"),
            (f"/live/jobs/{big}", "its live parts"),
            (f"/jobs/{big}/results", "its results"),
            (f"/jobs/{big}/results?from=1500000", "its results, from the middle"),
            (f"/jobs/{big}/results?only=error", "its failed items"),
            ("/jobs/new", "new job"),
            ("/schedules", "schedules"),
            ("/models", "models"),
            ("/workers", "workers and queues"),
            ("/keys", "keys"),
            ("/health", "health"),
        ):
            seconds = []
            for _ in range(LOOKS):
                start = time.perf_counter()
                http.get(path).raise_for_status()
                seconds.append(time.perf_counter() - start)
            median = percentile(seconds, 0.5) * 1e3
            rows.append(
                {"what": f"{name}, ms", "measured": round(median, 1), "worst": round(max(seconds) * 1e3), "target": 200}
            )
    return rows


def visits(url: str) -> list[dict[str, object]]:
    """What a browser loads for the first page, uncompressed."""
    with httpx2.Client(base_url=url) as http:
        size = sum(len(http.get(path).content) for path in ("/", *(f"/static/{name}" for name in STATIC)))
    return [{"what": "a first visit, kB", "measured": round(size / 1e3, 1), "worst": "", "target": 150}]


STATIC = ("app.css", "rendering.css", "app.js", "icon.svg")


def viewers(url: str, big: str, process: psutil.Process) -> list[dict[str, object]]:
    """The share of a core that those take together who watch the big job, each with a stream of their own."""
    rest = _share(process)
    over = threading.Event()

    def watch() -> None:
        with (
            httpx2.Client(base_url=url, timeout=60) as http,
            http.stream("GET", f"/live/jobs/{big}", headers={"Accept": "text/event-stream"}) as stream,
        ):
            for _ in stream.iter_raw():
                if over.is_set():
                    return

    def share(count: int) -> float:
        over.clear()
        threads = [threading.Thread(target=watch) for _ in range(count)]
        for thread in threads:
            thread.start()
        time.sleep(5)
        found = _share(process) - rest
        over.set()
        for thread in threads:
            thread.join()
        return found * 100

    first, many = share(1), share(VIEWERS)
    return [
        {
            "what": "the first viewer of the big job, % of a core",
            "measured": round(first, 2),
            "worst": "",
            "target": "",
        },
        {"what": f"each of {VIEWERS}, % of a core", "measured": round(many / VIEWERS, 2), "worst": "", "target": 1},
    ]


def _share(process: psutil.Process) -> float:
    before = process.cpu_times()
    time.sleep(WATCHED_S)
    after = process.cpu_times()
    return (after.user + after.system - before.user - before.system) / WATCHED_S


if __name__ == "__main__":
    main()
