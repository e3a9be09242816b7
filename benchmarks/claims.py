"""How long a claim takes when a million chunks of 10,000 jobs wait and 8 processes claim at once, on PostgreSQL."""

import argparse
import multiprocessing
import time
from hashlib import sha256
from zlib import compress

from benchmarks.deployment import deployment
from benchmarks.report import percentile, show
from jobs.schemas import JobSpec
from jobs.store import Store
from jobs.store.values import NewBlock, NewChunk

JOBS, CHUNKS, CLAIMERS, CLAIMS = 10_000, 100, 8, 400
COST = 16_384
"""Estimated tokens of a chunk; a look-ahead of 262,144 holds 16 of them."""
LOOKAHEAD_TOKENS = 262_144
PAUSES_S = (0.0, 0.1)
"""Between two claims of one process: none at all, and far less than 16 chunks take a real model."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=JOBS)
    asked = parser.parse_args()
    # Claims do not wait for the disk anyway; the filling, which is not measured, need not either.
    with deployment("postgresql", durable=False) as running:
        url = running.settings.effective_database_url
        seconds = fill(url, asked.jobs)
        rows = [_row(pause, claim_all(url, pause)) for pause in PAUSES_S]
    note = f"{asked.jobs * CHUNKS:,} pending chunks of {asked.jobs:,} jobs, filled in {seconds:.0f} s"
    show("claims", rows, note=note)


def fill(url: str, jobs: int) -> float:
    """Create all jobs, through the store; the seconds it took."""
    start = time.perf_counter()
    share = -(-jobs // 2)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.starmap(create, [(url, low, min(low + share, jobs)) for low in range(0, jobs, share)])
    return time.perf_counter() - start


def create(url: str, low: int, high: int, tenant: str | None = None, n_chunks: int = CHUNKS) -> None:
    """Jobs of these numbers, each of so many chunks of one item; by default of 50 tenants in turn."""
    lines = b"\n".join(b'{"text": "a"}' for _ in range(n_chunks))
    chunks = tuple(NewChunk(seq, seq + 1, COST) for seq in range(n_chunks))
    block = NewBlock(0, n_chunks, "jsonl+zlib", sha256(lines).digest(), compress(lines), chunks)
    store = Store.open(url)
    for number in range(low, high):
        spec = JobSpec(task="classify", model=f"model-{number % 4}", tenant=tenant or f"tenant-{number % 50}")
        job, _ = store.jobs.create(spec, request_hash=number.to_bytes(32, "big"))
        store.jobs.append(job.id, [block])
        store.jobs.seal(job.id)
    store.close()


def claim_all(url: str, pause_s: float) -> list[tuple[float, int]]:
    """Every claim of every process: its seconds and how many chunks it took."""
    with multiprocessing.get_context("spawn").Pool(CLAIMERS) as pool:
        claimed = pool.starmap(claim, [(url, number, pause_s) for number in range(CLAIMERS)])
    return [each for claims in claimed for each in claims]


def claim(url: str, number: int, pause_s: float) -> list[tuple[float, int]]:
    store = Store.open(url)
    loaded = (f"model-{number % 4}",)
    taken = []
    for _ in range(CLAIMS):
        start = time.perf_counter()
        claims = store.chunks.claim(
            worker_id=f"worker-{number}",
            queue="default",
            cost=LOOKAHEAD_TOKENS,
            items=4096,
            loaded=loaded,
            lease_s=3600.0,
        )
        taken.append((time.perf_counter() - start, len(claims)))
        time.sleep(pause_s)
    store.close()
    return taken


def _row(pause_s: float, claims: list[tuple[float, int]]) -> dict[str, object]:
    seconds = [each for each, _ in claims]
    return {
        "pause between claims, s": pause_s,
        "claims": len(claims),
        "chunks a claim": sum(count for _, count in claims) / len(claims),
        "p50, ms": percentile(seconds, 0.5) * 1e3,
        "p99, ms": percentile(seconds, 0.99) * 1e3,
        "largest, ms": max(seconds) * 1e3,
    }


if __name__ == "__main__":
    main()
