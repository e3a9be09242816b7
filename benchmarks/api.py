"""The HTTP API, one process of it, on PostgreSQL: submits a second, an upload's memory, many who wait, long lists."""

import argparse
import asyncio
import itertools
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import psutil
from sqlalchemy import text

from benchmarks import texts
from benchmarks.claims import create
from benchmarks.deployment import Deployment, deployment, environment
from benchmarks.report import percentile, show

WAITING = 500
"""Long polls, and as many event streams, on one process."""
ITEMS, SUBMITTERS, SUBMIT_S = 1000, 4, 15.0
UPLOAD_MB, JOBS = 500, 15_000
TEMPLATES, FILL_JOBS = 1000, 2000
_COPIED = (
    "tenant, request_hash, task, model, params, keep, labels, queue, priority, weight, turn, state, control, n_items"
)
_COPIES = (
    f"""
    INSERT INTO jobs (id, retry_of, {_COPIED}, n_chunks, created_at, sealed_at)
    SELECT gen_random_uuid(), id, {_COPIED}, n_chunks, created_at, sealed_at FROM jobs, generate_series(1, :times)
    WHERE model LIKE 'model-%'
    """,
    """
    INSERT INTO blocks (job_id, seq_lo, n_items, encoding, sha256, data, created_at)
    SELECT jobs.id, b.seq_lo, b.n_items, b.encoding, b.sha256, b.data, b.created_at
    FROM jobs JOIN blocks b ON b.job_id = jobs.retry_of WHERE :times > 0
    """,
    """
    INSERT INTO chunks (job_id, block_id, seq_lo, seq_hi, tenant, queue, model, priority, turn, cost, state)
    SELECT jobs.id, blocks.id, c.seq_lo, c.seq_hi, c.tenant, c.queue, c.model, c.priority, c.turn, c.cost, c.state
    FROM jobs JOIN chunks c ON c.job_id = jobs.retry_of JOIN blocks ON blocks.job_id = jobs.id WHERE :times > 0
    """,
)
"""Of each job that `create` made, so many more."""
START_S = 60.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=UPLOAD_MB, help="size of the uploaded file")
    parser.add_argument("--jobs", type=int, default=JOBS, help="jobs in the database when lists are read")
    parser.add_argument("--results", type=int, default=0, help="results in the database meanwhile")
    asked = parser.parse_args()
    with deployment("postgresql") as running, served(running) as (url, process):
        rows = [*waiting(running, url, process), *submits(url, process), *upload(url, process, asked.megabytes)]
        rows += lists(running, url, asked.jobs, asked.results)
    show("api", rows, note="one `textmill api` process, PostgreSQL, the clients on the same machine")


@contextmanager
def served(running: Deployment) -> Iterator[tuple[str, psutil.Process]]:
    """A server of its own; its URL and process."""
    command = [sys.executable, "-c", "from jobs.cli import main; main()", "api", "--port", "0"]
    server = subprocess.Popen(command, env=environment(running.settings), stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        first = server.stderr.readline()
        url = next(word for word in first.split() if word.startswith("http")).removesuffix("/api/v1;")
        threading.Thread(target=server.stderr.read, daemon=True).start()
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            try:
                httpx2.get(f"{url}/health/ready").raise_for_status()
                break
            except httpx2.HTTPError:
                time.sleep(0.1)
        yield url, psutil.Process(server.pid)
    finally:
        server.terminate()
        server.wait()


def waiting(running: Deployment, url: str, process: psutil.Process) -> list[dict[str, object]]:
    """Everybody waits for one job, which is paused: how long until the last one knows, and what waiting costs."""
    job_id = _submit(httpx2, url, _body(10))
    moments, idle, memory = asyncio.run(_wait_all(running, url, job_id, process))
    return [
        _row(f"{len(moments):,} who wait, half by long poll: the last one knows after, s", max(moments), 1.0),
        _row("the median one, s", percentile(moments, 0.5), None),
        _row("the server's share of a core while nothing happens", idle, None),
        _row("its memory, MB", memory, None),
    ]


async def _wait_all(
    running: Deployment, url: str, job_id: str, process: psutil.Process
) -> tuple[list[float], float, float]:
    limits, path = httpx2.Limits(max_connections=None), f"/jobs/{job_id}"
    async with httpx2.AsyncClient(base_url=f"{url}/api/v1", timeout=120, limits=limits) as http:
        known = (await http.get(path)).headers["etag"]
        ready = asyncio.Semaphore(0)
        tasks = [asyncio.create_task(_poll(http, path, known, ready)) for _ in range(WAITING)]
        tasks += [asyncio.create_task(_stream(http, path, ready)) for _ in range(WAITING)]
        for _ in tasks:
            await ready.acquire()
        await asyncio.sleep(3)
        before = process.cpu_times()
        await asyncio.sleep(5)
        after = process.cpu_times()
        idle = (after.user + after.system - before.user - before.system) / 5
        memory = process.memory_info().rss / 1e6
        start = time.perf_counter()
        await asyncio.to_thread(running.store.jobs.pause, job_id)
        ended = await asyncio.gather(*tasks)
    await asyncio.to_thread(running.store.jobs.cancel, job_id)
    return [moment - start for moment in ended], idle, memory


async def _poll(http: Any, path: str, known: str, ready: asyncio.Semaphore) -> float:
    ready.release()
    response = await http.get(path, params={"wait": 60}, headers={"If-None-Match": known})
    assert response.json()["control"] == "pause", response.text
    return time.perf_counter()


async def _stream(http: Any, path: str, ready: asyncio.Semaphore) -> float:
    async with http.stream("GET", f"{path}/events") as stream:
        ready.release()
        async for line in stream.aiter_lines():
            if '"control":"pause"' in line:
                return time.perf_counter()
    raise RuntimeError("the stream ended")


def submits(url: str, process: psutil.Process) -> list[dict[str, object]]:
    """Inline jobs of so many items a second, by a few clients at once."""
    body = _body(ITEMS)  # made beforehand: the clients have the same cores
    until = time.monotonic() + SUBMIT_S

    def go_on() -> list[float]:
        taken = []
        with httpx2.Client() as http:
            while time.monotonic() < until:
                start = time.perf_counter()
                _submit(http, url, body)
                taken.append(time.perf_counter() - start)
        return taken

    with ThreadPoolExecutor(SUBMITTERS) as pool:
        seconds = [each for taken in pool.map(lambda _: go_on(), range(SUBMITTERS)) for each in taken]
    return [
        _row(f"inline jobs of {ITEMS:,} items a second", len(seconds) / SUBMIT_S, 100.0),
        _row("p99 of one of them, s", percentile(seconds, 0.99), None),
    ]


def _body(count: int) -> bytes:
    items = [{"text": text} for text in itertools.islice(texts.lines(count, characters=60), count)]
    return json.dumps({"task": "classify", "model": "fake", "items": items}).encode()


def _submit(http: Any, url: str, body: bytes) -> str:
    answer = http.post(f"{url}/api/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    answer.raise_for_status()
    return str(answer.json()["id"])


def upload(url: str, process: psutil.Process, megabytes: int) -> list[dict[str, object]]:
    """A file as a job's items: how quick, and how much memory the server needs."""
    with tempfile.TemporaryDirectory(prefix="textmill-bench-") as folder:
        path = Path(folder) / "items.jsonl"
        count = megabytes * 1_000_000 // 205
        size = texts.write_jsonl(path, count)
        peak = _Peak(process)
        start = time.perf_counter()
        with path.open("rb") as file:
            answer = httpx2.post(
                f"{url}/api/v1/jobs/upload",
                params={"task": "classify", "model": "fake"},
                content=iter(lambda: file.read(2**20), b""),
                headers={"Content-Type": "application/x-ndjson"},
                timeout=3600,
            )
        seconds = time.perf_counter() - start
        answer.raise_for_status()
        assert answer.json()["counts"]["total"] == count
    return [
        _row(f"an upload of {size / 1e6:,.0f} MB ({count:,} items): MB/s", size / 1e6 / seconds, None),
        _row("the server's peak memory meanwhile, MB", peak.stop(), 300.0),
    ]


class _Peak:
    """The largest resident size of a process from now on."""

    def __init__(self, process: psutil.Process) -> None:
        self._process, self._most, self._stop = process, 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            self._most = max(self._most, self._process.memory_info().rss / 1e6)

    def stop(self) -> float:
        """In MB."""
        self._stop.set()
        self._thread.join()
        return self._most


def lists(running: Deployment, url: str, jobs: int, results: int) -> list[dict[str, object]]:
    """Pages of a long list, from its start and from its middle."""
    create(running.settings.effective_database_url, 0, TEMPLATES, "default", 1)
    _fill(running, jobs, results)
    rows = []
    with httpx2.Client(base_url=f"{url}/api/v1") as http:
        middle = running.store.jobs.list(limit=1)[0].id
        for _ in range(min(50, jobs // 200)):
            middle = http.get("/jobs", params={"limit": 100, "before": middle}).json()["next"]
        for name, params in (
            ("the first page of 20", {"limit": 20}),
            ("a page of 100 far down", {"limit": 100, "before": middle}),
            ("20 of one state", {"limit": 20, "state": "queued"}),
            ("20 of one model", {"limit": 20, "model": "model-1"}),
        ):
            seconds = []
            for _ in range(20):
                start = time.perf_counter()
                http.get("/jobs", params=params).raise_for_status()
                seconds.append(time.perf_counter() - start)
            rows.append(_row(f"{name} of {jobs:,} jobs, ms", percentile(seconds, 0.5) * 1e3, 50.0))
    return rows


def _fill(running: Deployment, jobs: int, results: int) -> None:
    """More jobs like those that there are, and results of all, equally many each, written by the database itself."""
    for statement in _COPIES:
        copied = text(statement).bindparams(times=jobs // TEMPLATES - 1)
        running.store._db.write(lambda connection, copied=copied: connection.execute(copied))
    each = results // jobs
    statement = """
        INSERT INTO results (job_id, seq, custom_id, status, output, tokens_in, tokens_out, truncated_tokens, windows)
        SELECT chosen.id, n, n::text, 'ok', '{"labels": []}', 12, 0, 0, 1
        FROM (SELECT id FROM jobs ORDER BY id OFFSET :skip LIMIT :take) AS chosen, generate_series(0, :last) AS n
        ON CONFLICT DO NOTHING
    """
    for skip in range(0, jobs if each else 0, FILL_JOBS):
        given = {"skip": skip, "take": FILL_JOBS, "last": each - 1}
        running.store._db.write(lambda connection, given=given: connection.execute(text(statement), given))


def _row(what: str, measured: float, target: float | None) -> dict[str, object]:
    return {"what": what, "measured": round(measured, 3), "target": "" if target is None else target}


if __name__ == "__main__":
    main()
