"""What a drained deployment must not leave behind (I8, I9 of the fault list): keys, processes, handles, connections."""

import time
from collections.abc import Callable
from typing import Any

import psutil
import redis

from jobs.settings import Settings
from jobs.store import Store
from tests.checker import column

MOST_KEYS = 24
"""I8: Redis keys of a deployment, whatever went through it: queues, Celery's bindings, what was set aside."""
MOST_HANDLES, MOST_THREADS = 100, 40
"""I9: of a worker process; one that has just started has about half."""
OWN_CONNECTIONS = 8
"""I9: PostgreSQL connections that the test's own stores keep."""
SETTLE_S = 10.0
"""Everything here may take a moment to be true."""
_CONNECTIONS = """SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'textmill'"""


def check_queue(settings: Settings, *, killed: int = 0) -> None:
    """I8, once no work is left: the queues are empty, few keys remain, no hint is stuck between Redis and a worker.

    `killed`: workers that were killed; each may have had a hint in its hands, which comes back in its time.
    """
    with redis.Redis.from_url(str(settings.redis_url), socket_timeout=5) as client:
        prefix = settings.key_prefix

        def stuck() -> int:
            return int(client.hlen(prefix + "unacked"))  # type: ignore[arg-type]

        _in_time(lambda: all(client.llen(prefix + queue) == 0 for queue in settings.queues), "I8: hints are left")
        _in_time(lambda: stuck() <= killed, "I8: hints are stuck in unacked")
        keys = [key for key in client.scan_iter(prefix + "*") if client.type(key) is not None]
        assert len(keys) <= MOST_KEYS, f"I8: {len(keys)} keys: {sorted(keys)[:MOST_KEYS]}"


def check_process(pid: int) -> None:
    """I9 of a worker that lives."""
    process = psutil.Process(pid)
    assert process.num_fds() <= MOST_HANDLES, f"I9: {process.num_fds()} handles: {_handles(process)}"
    assert process.num_threads() <= MOST_THREADS, f"I9: {process.num_threads()} threads"


def check_connections(store: Store, own: int) -> None:
    """I9 of PostgreSQL, once every worker has ended: nothing but the test's `own` connections at most."""
    if store._db.dialect == "postgresql":
        _in_time(lambda: column(store, _CONNECTIONS)[0] <= own, "I9: connections are left")


def children() -> set[int]:
    """Textmill's processes below this one, to be compared with those of before; servers come and go with tests."""
    return {child.pid for child in psutil.Process().children(recursive=True) if _is_ours(child)}


def check_children(before: set[int]) -> None:
    """I9: no process is left that was not there before."""
    _in_time(lambda: children() <= before, "I9: processes are left")


def _is_ours(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and "python" in process.name()
    except psutil.NoSuchProcess:
        return False


def _in_time(true: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + SETTLE_S
    while not true():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.05)


def _handles(process: psutil.Process) -> list[Any]:
    return [*process.open_files(), *process.net_connections()][:20]
