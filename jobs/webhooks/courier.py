"""Sends what is due, a thread a webhook: a slow server keeps nobody waiting but itself."""

import logging
import random
import re
import threading
import time
from typing import TYPE_CHECKING

from jobs import telemetry
from jobs.errors import StoreUnavailable, UnknownWebhook
from jobs.store.webhooks import GONE, Due, Target
from jobs.webhooks import signing
from jobs.webhooks.post import Answer, Post

if TYPE_CHECKING:
    from jobs.store import Store

AT_ONCE = 16
"""Webhooks that are sent to at the same time."""
TURN_S = 10.0
"""How long one webhook is sent to before others that wait get its thread."""
HOLD_S = 60.0
"""A delivery whose sender died is due again after so long."""
AGAIN_S = (5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0, 7200.0, 18_000.0, 36_000.0)
"""Waits after the first failed try, the second, and so on, about 19 hours in all; then it is given up."""
FIRST_REST_S, LONGEST_REST_S = 2.0, 60.0
"""A webhook that fails is left alone for so long, with all that waits for it."""
LONGEST_RETRY_AFTER_S = 3600.0
GONE_STATUS = 410
log = logging.getLogger("textmill.webhooks")


class Courier:
    """Whoever leads upkeep has it work; `round` returns at once."""

    def __init__(self, store: "Store", post: Post) -> None:
        self._store, self._post = store, post
        self._busy: dict[str, threading.Thread] = {}
        self._served = set[str]()
        """Those that had a turn since all others had theirs."""
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def round(self) -> int:
        """How many webhooks are now being sent to that were not before. Raises StoreUnavailable."""
        self._stop.clear()
        with self._lock:
            busy = list(self._busy)
        found = self._next(AT_ONCE - len(busy), busy)
        for target in found:
            thread = threading.Thread(target=self._serve, args=(target,), name=f"webhook-{target.id}", daemon=True)
            with self._lock:
                self._busy[target.id] = thread
            thread.start()
        return len(found)

    def stop(self, wait_s: float = 1.0) -> None:
        """Begin nothing more. A try that is under way is repeated by whoever leads next, unless it ends in time."""
        self._stop.set()
        until = time.monotonic() + wait_s
        with self._lock:
            threads = list(self._busy.values())
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _next(self, room: int, busy: list[str]) -> list[Target]:
        """Webhooks that something is due for, in turns: a long line of one keeps none of another waiting."""
        if room <= 0:
            return []
        due = self._store.webhooks.due
        found = due(room, {*busy, *self._served})
        if self._served and len(found) < room:
            self._served.clear()
            found += due(room - len(found), {*busy, *(target.id for target in found)})
        self._served.update(target.id for target in found)
        return found

    def _serve(self, target: Target) -> None:
        """Deliver what is due, until a try fails or the turn is over."""
        until = time.monotonic() + TURN_S
        try:
            while not self._stop.is_set() and time.monotonic() < until:
                due = self._store.webhooks.take(target.id, HOLD_S)
                if due is None or not self._deliver(target, due):
                    return
        except (StoreUnavailable, UnknownWebhook) as error:
            log.warning("webhook %s: %s", target.id, error)
        except Exception:
            log.exception("webhook %s failed", target.id)
        finally:
            with self._lock:
                del self._busy[target.id]

    def _deliver(self, target: Target, due: Due) -> bool:
        """Whether it was taken."""
        body = due.body.encode()
        headers = {"Content-Type": "application/json"} | signing.headers(target.secret, due.id, int(time.time()), body)
        with telemetry.DELIVERY_SECONDS.time():
            answer = self._post(target.url, headers, body)
        webhooks = self._store.webhooks
        if answer.error is None:
            telemetry.DELIVERIES.labels("delivered").inc()
            webhooks.delivered(target.id, due, answer.status or 0)
            return True
        told = "webhook %s: %s, try %d: %s"
        log.info(told, target.id, due.id, due.attempts, answer.error, extra={"webhook": target.id})
        again_s = _again_s(due.attempts, answer)
        telemetry.DELIVERIES.labels("failed" if again_s is None else "again").inc()
        rest_s = min(LONGEST_REST_S, FIRST_REST_S * 2.0 ** min(target.failures, 20))
        webhooks.failed(target.id, due, answer.error, status=answer.status, again_s=again_s, rest_s=rest_s)
        if answer.status == GONE_STATUS:
            webhooks.disable(target.id, GONE)
            log.warning("webhook %s is disabled: %s", target.id, GONE)
        return False


def _again_s(attempts: int, answer: Answer) -> float | None:
    """When to try again after so many tries; None: not any more."""
    if attempts > len(AGAIN_S):
        return None
    told = answer.retry_after or ""
    asked = min(float(told), LONGEST_RETRY_AFTER_S) if re.fullmatch(r"\d{1,9}", told) else 0.0
    return max(asked, AGAIN_S[attempts - 1] * random.uniform(0.9, 1.1))
