"""What a process counts for Prometheus: a registry of its own, and the port where it can be read."""

import logging
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)

from jobs import tracing

if TYPE_CHECKING:
    from jobs.store.values import Finished

log = logging.getLogger("textmill")

disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each, which nobody looks at
REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

ITEMS = Counter("textmill_items", "Items that got their result", ["task", "model", "status"], registry=REGISTRY)
TOKENS = Counter("textmill_tokens", "Tokens of items that got their result", ["model", "direction"], registry=REGISTRY)
JOB_SECONDS = Histogram(
    "textmill_job_seconds",
    "From submit to done, of jobs that were completed here",
    ["task"],
    buckets=(0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14_400, 43_200, 86_400),
    registry=REGISTRY,
)
MODEL_LOADS = Counter("textmill_model_loads", "Models loaded, or not", ["model", "outcome"], registry=REGISTRY)
MODEL_LOAD_SECONDS = Histogram(
    "textmill_model_load_seconds",
    "Time to load a model",
    buckets=(0.5, 1, 2, 5, 10, 30, 60, 120, 300, 900),
    registry=REGISTRY,
)
LEASE_LOSSES = Counter(
    "textmill_lease_losses",
    "Chunks that this worker had to give up: `late`, it could not renew them in time; `taken`, they were cancelled or "
    "are another's",
    ["reason"],
    registry=REGISTRY,
)
CHUNK_FAILURES = Counter("textmill_chunk_failures", "Chunks that are tried again after an error", registry=REGISTRY)
REAPED = Counter(
    "textmill_reaped_chunks",
    "Chunks taken from workers that fell silent, by what became of them",
    ["outcome"],
    registry=REGISTRY,
)
CACHE_HITS = Counter(
    "textmill_cache_hits", "Items that were not run, since an equal one's output was there", registry=REGISTRY
)
CACHE_MISSES = Counter("textmill_cache_misses", "Items that were looked for in the cache and run", registry=REGISTRY)
DELIVERIES = Counter("textmill_deliveries", "Tries to deliver to webhooks", ["outcome"], registry=REGISTRY)
DELIVERY_SECONDS = Histogram(
    "textmill_delivery_seconds",
    "Time of a try to deliver",
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 15),
    registry=REGISTRY,
)
for reason in ("late", "taken"):
    LEASE_LOSSES.labels(reason)
for outcome in ("delivered", "again", "failed"):
    DELIVERIES.labels(outcome)


def job_done(job: "Finished") -> None:
    """Count a job that was completed here, and end its trace."""
    JOB_SECONDS.labels(job.task).observe((job.finished_at - job.created_at).total_seconds())
    about = {"job": job.id, "task": job.task, "model": job.model}
    tracing.record("textmill.job", job.traceparent, job.created_at, job.finished_at, about)


class Address(NamedTuple):
    host: str
    port: int


def address(setting: str, number: int = 0) -> Address:
    """The address of the `number`th process of a machine: `host:port`, the port counted up."""
    host, _, port = setting.rpartition(":")
    return Address(host.strip("[]"), int(port) + number)


def serve(setting: str | None) -> None:
    """Answer `GET /metrics` at `host:port` from a thread. A port that is taken is no reason not to work."""
    if setting is None:
        return
    host, port = address(setting)
    try:
        start_http_server(port, host, REGISTRY)
    except OSError as error:
        log.warning("no metrics at %s: %s", setting, error)
