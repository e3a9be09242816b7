"""Rate limits: a bucket of requests for each tenant, filled as time goes by."""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from jobs.api.problems import HttpProblem
from jobs.schemas import Tenant

TRUST_S = 5.0
"""How long a tenant's limits that were looked up are taken for what they are."""
BURST_S = 10.0
"""A bucket holds the requests of so many seconds: whoever was quiet may be quick for a moment."""
TENANTS_KEPT = 10_000


class _Bucket:
    def __init__(self, now: float) -> None:
        self.looked_at, self.per_minute = -math.inf, 0
        self.level, self.filled_at = math.inf, now

    def take(self, now: float) -> float:
        """0: there was one left. Else how many seconds until there is."""
        most = max(1.0, self.per_minute / 60 * BURST_S)
        self.level = min(most, self.level + (now - self.filled_at) * self.per_minute / 60)
        self.filled_at = now
        if self.level < 1:
            return (1 - self.level) * 60 / self.per_minute
        self.level -= 1
        return 0.0


class RateLimits:
    """Counts the requests of this server alone. May be shared by threads. `of_all`: for tenants without their own."""

    def __init__(
        self,
        tenant: Callable[[str], Tenant],
        of_all: int | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tenant, self._of_all, self._clock = tenant, of_all, clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._lock = threading.Lock()

    def count(self, name: str) -> None:
        """Raises HttpProblem (429) with the time to wait for, StoreUnavailable."""
        now = self._clock()
        bucket = self._bucket(name, now)
        if now - bucket.looked_at > TRUST_S:
            own = self._tenant(name).requests_per_minute
            bucket.looked_at, bucket.per_minute = now, own or self._of_all or 0
        if not bucket.per_minute:
            return
        with self._lock:
            wait_s = bucket.take(now)
        if wait_s:
            detail = f"tenant {name!r} may send {bucket.per_minute:,} requests a minute"
            raise HttpProblem(429, "too_many_requests", detail, {"Retry-After": str(math.ceil(wait_s))})

    def _bucket(self, name: str, now: float) -> _Bucket:
        with self._lock:
            bucket = self._buckets.setdefault(name, _Bucket(now))
            self._buckets.move_to_end(name)
            while len(self._buckets) > TENANTS_KEPT:
                self._buckets.popitem(last=False)
        return bucket
