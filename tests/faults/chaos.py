"""Faults at random against a deployment at work, and what came of it: row 44 of the list."""

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import psutil
import redis

from jobs.errors import TextmillError
from jobs.states import JobState
from tests.checker import all_results, check
from tests.corpora import MARKED, model, submit
from tests.deployment import Deployment, Worker
from tests.servers import Postgres, Valkey

WORKERS, MOST_JOBS = 3, 12
POISON = 0.0004
"""Share of items that kill their worker."""
WORD = "lorem"


class Chaos:
    """Submits jobs, steers them, hurts processes; everything it does comes from one random generator."""

    def __init__(self, mill: Deployment, valkey: Valkey, postgres: Postgres | None, chance: random.Random) -> None:
        self._mill, self._valkey, self._postgres, self._chance = mill, valkey, postgres, chance
        self.jobs: dict[str, list[str]] = {}
        """The texts of every job that was accepted."""
        self.cancelled: set[str] = set()
        self.done: Counter[str] = Counter()
        self.slopes_mb: list[float] = []
        """Memory that each worker which lived long gained in a minute."""
        self.launched = 0
        """Worker processes that were started."""
        self._slow = model(mill.store, MARKED, delay_s=0.02, max_items=16)
        self._asleep: dict[Worker, float] = {}
        self._born: dict[int, tuple[float, float]] = {}
        self._calm = False
        self._faults: list[tuple[int, Callable[[], None]]] = [
            (8, self._submit),
            (3, self._kill),
            (1, self._stop),
            (2, self._sleep),
            (2, self._pause),
            (1, self._cancel),
            (2, self._garbage),
            (1, self._flush),
            (1, self._restart_redis),
            (1 if postgres is None else 3, self._cut_database),
        ]

    def run(self, seconds: float, *, calm: bool = False) -> None:
        """Hurt it for so long. `calm`: no worker is ended, so that they live long enough for their memory to tell."""
        until, self._calm = time.monotonic() + seconds, calm
        deadly = (self._kill, self._stop) if calm else ()
        weights = [0 if fault in deadly else weight for weight, fault in self._faults]
        while time.monotonic() < until:
            self._tend()
            (fault,) = self._chance.choices([fault for _, fault in self._faults], weights)
            with suppress(TextmillError):
                fault()
                self.done[fault.__name__.removeprefix("_")] += 1
            time.sleep(self._chance.uniform(0.05, 0.6))

    def settle(self, timeout_s: float) -> None:
        """Everything paused goes on, everybody wakes up, and the jobs end."""
        for worker in list(self._asleep):
            self._wake(worker)
        deadline = time.monotonic() + timeout_s
        while left := [job for job in self._mill.store.jobs.list(limit=10_000) if not job.state.final]:
            assert time.monotonic() < deadline, f"{len(left)} jobs do not end:\n{self._mill.said()[-6000:]}"
            for job in left:
                if job.control == "pause":
                    with suppress(TextmillError):
                        self._mill.store.jobs.resume(job.id)
            self._tend()
            time.sleep(0.2)

    def verdict(self) -> dict[str, float]:
        """The figures, once every accepted job is proven right."""
        items = poisoned = 0
        for job_id, texts in self.jobs.items():
            job = self._mill.store.jobs.get(job_id)
            results = all_results(self._mill.store, job_id)
            assert len({result.seq for result in results}) == len(results) == job.counts.ok + job.counts.error
            if job.state is JobState.CANCELLED:
                assert job_id in self.cancelled
                continue
            poison = {seq for seq, text in enumerate(texts) if text.startswith("[[")}
            check(self._mill.store, job_id, poison=poison)
            items, poisoned = items + len(texts), poisoned + len(poison)
        assert self._mill.store.check() == []
        return {"jobs": len(self.jobs), "cancelled": len(self.cancelled), "items": items, "poison": poisoned}

    # ----- what is kept going -----

    def _tend(self) -> None:
        """As many workers as there should be; those that slept past their lease are woken."""
        now = time.monotonic()
        for worker, until in list(self._asleep.items()):
            if now >= until:
                self._wake(worker)
        for worker in [worker for worker in self._mill.workers if not worker.alive]:
            self._asleep.pop(worker, None)
            self._mill.workers.remove(worker)
        while len(self._mill.workers) < WORKERS:
            self._mill.launch()
            self.launched += 1
        for worker in self._awake():
            self._watch_memory(worker.pid, now)

    def _watch_memory(self, pid: int, now: float) -> None:
        with suppress(psutil.NoSuchProcess):
            rss = psutil.Process(pid).memory_info().rss / 1e6
            born, first = self._born.setdefault(pid, (now + 30, rss))
            if now < born:  # warming up
                self._born[pid] = (born, rss)
            elif now - born >= 60:
                self.slopes_mb.append((rss - first) / ((now - born) / 60))
                self._born[pid] = (now, rss)

    def _awake(self) -> list[Worker]:
        return [worker for worker in self._mill.workers if worker.alive and worker not in self._asleep]

    def _wake(self, worker: Worker) -> None:
        self._asleep.pop(worker, None)
        if worker.alive:
            worker.signal(signal.SIGCONT)

    # ----- what is done to it -----

    def _submit(self) -> None:
        live = [job for job in self._mill.store.jobs.list(limit=1000) if not job.state.final]
        if len(live) >= MOST_JOBS:
            return
        count = int(self._chance.paretovariate(0.9) * 20) % 3000 + 1
        texts = [self._text() for _ in range(count)]
        job_id = submit(self._mill.store, texts, per_chunk=self._chance.choice((8, 32, 256)), model=self._slow)
        self.jobs[job_id] = texts
        with suppress(TextmillError):
            self._mill.hint()

    def _text(self) -> str:
        if not self._calm and self._chance.random() < POISON:
            return self._chance.choice(("[[kill]] me", "[[segfault]]", "[[exit 3]]"))
        return " ".join([WORD] * self._chance.randint(1, 40))

    def _kill(self) -> None:
        if awake := self._awake():
            self._chance.choice(awake).kill()

    def _stop(self) -> None:
        if awake := self._awake():
            self._chance.choice(awake).signal(signal.SIGTERM)

    def _sleep(self) -> None:
        """Past the lease, at times; on SQLite not for long: it may hold the file's lock."""
        if awake := self._awake():
            worker = self._chance.choice(awake)
            longest = 3 * self._mill.settings.lease_s if self._postgres else 1.0
            self._asleep[worker] = time.monotonic() + self._chance.uniform(0.1, longest)
            worker.signal(signal.SIGSTOP)

    def _pause(self) -> None:
        for job in self._some_live():
            (self._mill.store.jobs.resume if job.control == "pause" else self._mill.store.jobs.pause)(job.id)

    def _cancel(self) -> None:
        for job in self._some_live():
            if self._mill.store.jobs.cancel(job.id).state is JobState.CANCELLED:
                self.cancelled.add(job.id)

    def _some_live(self) -> list:  # type: ignore[type-arg]
        live = [job for job in self._mill.store.jobs.list(limit=1000) if not job.state.final]
        return self._chance.sample(live, 1) if live else []

    def _garbage(self) -> None:
        with suppress(redis.RedisError), self._redis() as client:
            key = f"{self._mill.settings.key_prefix}default"
            client.lpush(key, *(self._chance.randbytes(self._chance.randint(0, 300)) for _ in range(20)))

    def _flush(self) -> None:
        with suppress(redis.RedisError), self._redis() as client:
            client.flushall()

    def _restart_redis(self) -> None:
        self._valkey.restart_empty()

    def _cut_database(self) -> None:
        """End every connection to the database; SQLite has none."""
        if self._postgres is not None:
            with self._postgres.connect() as connection:
                connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 't\\_%'")

    def _redis(self) -> "redis.Redis":
        return redis.Redis.from_url(self._valkey.url, socket_timeout=5)
