"""The leader's round: take over from dead workers, finish jobs, keep hints coming, expire, deliver, forget."""

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from jobs import telemetry
from jobs.client import Client
from jobs.errors import QueueUnavailable, StoreUnavailable, TextmillError
from jobs.exporting import Exporter
from jobs.queue import Queue
from jobs.schedules.firing import Scheduler
from jobs.settings import Settings
from jobs.webhooks.courier import Courier
from jobs.webhooks.guard import Guard
from jobs.webhooks.post import Post

if TYPE_CHECKING:
    from jobs.store import Store

log = logging.getLogger("textmill.upkeep")

ROLE = "upkeep"
HINTS_A_WORKER, HINTS_BESIDE = 2, 4
"""`hint_limit` = 2 x live workers + 4: Redis never fills, whatever the backlog."""
LIVE_S = 60.0
"""A worker that reported in this time counts as live."""
FORGET_S = 3600.0
"""Workers that fell silent this long ago are forgotten."""
PIECES = 8
"""Pieces of deleted jobs that one round takes away."""
SLOW_ROUNDS = 30
"""Rounds from one housekeeping of rare things to the next."""
SILENCE = 1 / 3
"""Share of a lease: a database without an answer for so long has kept workers from renewing theirs."""
DELIVERIES_KEPT_S = 30 * 86_400.0
"""What was sent to webhooks, or could not be, is forgotten so long after its event."""
RUNS_KEPT_S = 90 * 86_400.0
"""The same of schedules' runs."""
LONGEST_WAIT_S = 10.0
"""Between two tries while the database does not answer."""


class Upkeep:
    """One candidate for leadership. `round` works only while it leads; any number of candidates may run.

    `shown` is told after each round of `run` what kept it from its work, or None.
    """

    def __init__(
        self,
        store: "Store",
        queue: Queue,
        settings: Settings,
        holder: str,
        shown: Callable[[str | None], None] = lambda trouble: None,
    ) -> None:
        self._shown = shown
        self._store, self._queue, self._settings, self._holder = store, queue, settings, holder
        self._scheduler = Scheduler(store, Client(settings, store=store, queue=queue), settings)
        self._courier = Courier(store, Post(Guard(settings.webhook_networks)))
        self._exporter = Exporter(store, settings)
        self._token: str | None = None
        self._rounds = 0
        self._answered_at: float | None = None
        """When the database last answered. Every candidate asks it in every round."""
        self._watching_since: float | None = None
        """When a silence was over in which workers could not renew their leases."""
        self._over = 0
        """Bytes that the cache has too many."""
        self._sweeping = False
        """Whether rows of deleted jobs may be left."""
        self._pruning = False
        """Whether deliveries or runs that are too old may be left."""
        self._queue_down = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Run in a thread until `stop`."""
        self._stop.clear()
        self._thread = threading.Thread(target=self.run, args=(self._stop,), name="textmill-upkeep", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and make the leadership free at once."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def run(self, stop: threading.Event) -> None:
        """Rounds until `stop` is set. Never raises for a database or Redis that does not answer."""
        failures = 0
        while not stop.is_set():
            try:
                self.round()
                failures = 0
                self._shown(None)
            except TextmillError as error:
                failures += 1
                log.warning("upkeep: %s", error)
                self._shown(str(error))
            except Exception as error:
                failures += 1
                log.exception("upkeep failed")
                self._shown(str(error))
            longest = max(LONGEST_WAIT_S, self._settings.upkeep_s)
            stop.wait(min(longest, self._settings.upkeep_s * 2**failures) * random.uniform(0.9, 1.1))
        self._resign()

    def round(self) -> dict[str, int]:
        """What was done, by name, without what was nothing to do; empty when another leads. Raises StoreUnavailable."""
        leads = self._leads()
        self._store.chunks.ready("", 0)  # someone may have locked this table alone, and leaders change meanwhile
        self._watched_s()
        if not leads:
            return {}
        done = self._take_over() | {
            "expired": self._store.jobs.expire_due(),
            "finished": self._finish(),
            **self._supervise(),
            "forecast": self._store.jobs.forecast(),
            "hints": self._top_up(),
            "runs": self._scheduler.round(),
            "webhooks": self._courier.round(),
            "exports": self._exporter.round(),
        }
        done["evicted"] = self._evict()
        done |= self._forget()  # last: nobody waits for it, but for all the others
        if self._rounds % SLOW_ROUNDS == 0:
            done["abandoned"] = self._store.jobs.abandon_stale(self._settings.loading_timeout_s)
            done["forgotten"] = self._store.workers.prune(FORGET_S)
            done["ended"] = self._end_idle_sessions()
            self._store.overview.summarise()
        self._rounds += 1
        done = {name: count for name, count in done.items() if count}
        if done.keys() - {"hints", "forecast", "webhooks"}:
            log.info("upkeep: %s", ", ".join(f"{name} {count}" for name, count in done.items()))
        return done

    def _forget(self) -> dict[str, int]:
        """Delete what is too old, or was deleted by its owner: look for it now and then, take it away in pieces."""
        days, retention, deleted = self._settings.retention_days, self._store.retention, 0
        if self._rounds % SLOW_ROUNDS == 0:
            deleted = retention.mark(days * 86_400) if days is not None else 0
            self._sweeping = self._pruning = True
        for _ in range(PIECES if self._sweeping else 0):
            self._sweeping = retention.sweep() > 0
            if not self._sweeping:
                break
        if not self._pruning:
            return {"deleted": deleted}
        deliveries = self._store.webhooks.prune(DELIVERIES_KEPT_S)
        old_runs = self._store.schedules.prune(RUNS_KEPT_S)
        self._pruning = deliveries + old_runs > 0
        return {"deleted": deleted, "deliveries": deliveries, "old_runs": old_runs}

    def _evict(self) -> int:
        """Bytes taken from the cache, where it has grown beyond what it may have: looked at now and then."""
        cache, freed = self._store.cache, 0
        if self._rounds % SLOW_ROUNDS == 0:
            self._over = cache.size() - self._settings.cache_bytes
        for _ in range(PIECES):
            if self._over <= 0:
                break
            # Nothing, although there is too much: it is being written just now.
            taken = cache.evict(self._over)
            freed, self._over = freed + taken, self._over - taken if taken else 0
        return freed

    def _leads(self) -> bool:
        leaders, ttl_s = self._store.leaders, self._settings.leader_ttl_s
        if self._token is not None and leaders.renew(ROLE, self._token, ttl_s):
            return True
        self._token = leaders.acquire(ROLE, self._holder, ttl_s)
        return self._token is not None

    def _take_over(self) -> dict[str, int]:
        reaped: dict[str, int] = self._store.chunks.reap(watched_s=self._watched_s)._asdict()
        for outcome, count in reaped.items():
            telemetry.REAPED.labels(outcome).inc(count)
        return dict(reaped)

    def _watched_s(self) -> float | None:
        """How long ago the last silence was over; None: there was none. To be asked when the database has answered."""
        now, missed_s = time.monotonic(), self._settings.lease_s * SILENCE
        if self._answered_at is not None and now - self._answered_at > missed_s + self._settings.upkeep_s * 2:
            # Claims and renewals that were asked in the silence, and given up on, come true at its end.
            self._watching_since = now + missed_s
        self._answered_at = now
        return None if self._watching_since is None else now - self._watching_since

    def _finish(self) -> int:
        ended = [self._store.jobs.finish(job_id) for job_id in self._store.jobs.finishable()]
        for job in filter(None, ended):
            telemetry.job_done(job)
        return sum(job is not None for job in ended)

    def _supervise(self) -> dict[str, int]:
        """Let canaries be followed or wait, stop what has spent its error budget; before hints are given for it."""
        supervision = self._store.supervision
        outcomes = Counter(supervision.settle(job_id) for job_id in supervision.due())
        return {outcome: count for outcome, count in outcomes.items() if outcome is not None}

    def _end_idle_sessions(self) -> int:
        if not self._settings.idle_transaction_s:
            return 0
        found = self._store.end_idle_sessions(self._settings.idle_transaction_s)
        for idle in found:
            text = "session %d of %s (%s) was idle in a transaction for %.0f s, which slows every claim; %s"
            fate = "ended" if idle.ended else "this role may not end it"
            log.warning(text, idle.pid, idle.user, idle.program or "unnamed", idle.idle_s, fate)
        return sum(idle.ended for idle in found)

    def _top_up(self) -> int:
        """Hints for every queue with work. Redis down costs nothing but time: workers look by themselves."""
        limit = HINTS_A_WORKER * len(self._store.workers.live(LIVE_S)) + HINTS_BESIDE
        try:
            published = sum(
                self._queue.top_up(queue, self._store.chunks.ready(queue, limit), limit)
                for queue in self._store.chunks.queues()
            )
        except QueueUnavailable as error:
            if not self._queue_down:
                log.warning("no hints can be given: %s", error)
            self._queue_down = True
            return 0
        self._queue_down = False
        return published

    def _resign(self) -> None:
        self._courier.stop()
        self._exporter.stop()
        self._scheduler.stop()
        if self._token is None:
            return
        try:
            self._store.leaders.release(ROLE, self._token)
        except StoreUnavailable as error:
            log.warning("upkeep: the leadership ends by itself: %s", error)
        self._token = None
