"""`/metrics`: the deployment and this server, as Prometheus reads them."""

import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobs import telemetry
from jobs.upkeep import LIVE_S

if TYPE_CHECKING:
    from jobs.store import Store
    from jobs.store.figures import Figures
    from jobs.store.values import WorkerRow

KEPT_S = 5.0
"""How long figures out of the database serve: several scrapers cost one query."""
TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Those that are told by name: a caller may send any word as one."""
LOADS = {
    "busy": ("textmill_worker_busy_ratio", "Share of a worker's working time in which its device computed"),
    "padding": ("textmill_worker_padding_ratio", "Share of tokens that were padding"),
    "occupancy": ("textmill_worker_decode_occupancy_ratio", "Share of decoding rows that were in use"),
    "tokens_per_s": ("textmill_worker_tokens_per_second", "Useful tokens"),
}
"""Of what workers report of themselves, the metric of each figure."""


class Metrics:
    """What this server counts, and what it reads of the deployment when it is asked."""

    def __init__(self, store: "Store") -> None:
        self.registry = CollectorRegistry()
        names = ["method", "route", "status"]
        self.requests = Counter("textmill_api_requests", "Requests answered", names, registry=self.registry)
        self.seconds = Histogram(
            "textmill_api_request_seconds",
            "Time to the first byte of an answer; long polls are as long as they waited",
            ["route"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.registry.register(_Deployment(store))

    def text(self) -> bytes:
        """All of it, in Prometheus's text format. Raises StoreUnavailable."""
        # What upkeep counts, where it runs in this process (`textmill up`).
        return generate_latest(self.registry) + generate_latest(telemetry.REGISTRY)


class Measured:
    """Counts requests by route, and times their answers."""

    def __init__(self, app: ASGIApp, metrics: Metrics, prefixes: Sequence[str]) -> None:
        self._app, self._metrics, self._prefixes = app, metrics, prefixes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()

        async def noticed(message: Message) -> None:
            if message["type"] == "http.response.start":
                # The route's pattern, never the path: ids would make a series each.
                route = self._route(scope)
                method = scope["method"] if scope["method"] in METHODS else "(other)"
                self._metrics.requests.labels(method, route, str(message["status"])).inc()
                self._metrics.seconds.labels(route).observe(time.perf_counter() - began)
            await send(message)

        await self._app(scope, receive, noticed)

    def _route(self, scope: Scope) -> str:
        """The pattern of the route that answered; routers know theirs without the prefix."""
        pattern: str | None = getattr(scope.get("route"), "path", None)
        if pattern is None:
            return "(none)"
        prefix = next((each for each in self._prefixes if scope["path"].startswith(f"{each}/")), "")
        return pattern if pattern.startswith(prefix) else prefix + pattern


class _Deployment:
    """Figures out of the database, read when somebody scrapes."""

    def __init__(self, store: "Store") -> None:
        self._store = store
        self._lock = threading.Lock()
        self._until = 0.0
        self._known: tuple[Figures, list[WorkerRow]] | None = None

    def describe(self) -> list[Metric]:
        """Nothing beforehand: registering must not ask the database."""
        return []

    def collect(self) -> Iterator[Metric]:
        figures, workers = self._figures()
        jobs = GaugeMetricFamily("textmill_jobs", "Jobs by state", labels=["state"])
        for state, count in figures.jobs.items():
            jobs.add_metric([state], count)
        yield jobs
        for name, said in (
            ("chunks", "Chunks that are ready for workers"),
            ("items", "Items that are ready for workers"),
            ("tokens", "Estimated tokens that are ready for workers"),
            ("oldest_s", "How long the job that has waited longest has been ready"),
        ):
            family = GaugeMetricFamily(
                f"textmill_queue_{name.replace('oldest_s', 'oldest_seconds')}", said, labels=["queue"]
            )
            for backlog in figures.backlogs:
                family.add_metric([backlog.queue], getattr(backlog, name))
            yield family
        yield GaugeMetricFamily(
            "textmill_deliveries_pending", "Deliveries to webhooks that wait", value=figures.deliveries
        )
        yield GaugeMetricFamily(
            "textmill_deliveries_oldest_seconds", "How long the oldest of them has waited", value=figures.undelivered_s
        )
        yield from _of_workers(workers)

    def _figures(self) -> "tuple[Figures, list[WorkerRow]]":
        with self._lock:
            if self._known is None or time.monotonic() >= self._until:
                self._known = (self._store.figures(), self._store.workers.live(LIVE_S))
                self._until = time.monotonic() + KEPT_S
            return self._known


def _of_workers(workers: "list[WorkerRow]") -> Iterator[Metric]:
    states = GaugeMetricFamily("textmill_workers", "Workers that are alive, by what they do", labels=["state"])
    for state in sorted({row.state for row in workers}):
        states.add_metric([state], sum(row.state == state for row in workers))
    yield states
    for name, (metric, said) in LOADS.items():
        family = GaugeMetricFamily(metric, said, labels=["worker", "device"])
        for row in workers:
            if row.load and name in row.load:
                family.add_metric([row.id, row.device], row.load[name])
        yield family
