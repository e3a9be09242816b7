"""Jobs with items that end their worker's process, and somebody who starts it again each time."""

import time
from collections.abc import Callable, Iterable
from typing import Any

from jobs.store import Store
from tests.corpora import model, submit
from tests.deployment import Deployment

KILLED, SEGFAULT, EXIT, HANG = "[[kill]]", "[[segfault]]", "[[exit 3]]", "[[hang]]"
"""By signal, by a fault of native code, past every handler, by never coming back."""
SLOW_LEASE_S = 20.0
"""Nobody reaps before the worker is up again: what is found out comes from the note alone."""
Between = Callable[[], object]


def poisoned_job(store: Store, size: int, poison: Iterable[int], *, way: str = KILLED, **spec: Any) -> str:
    """A job of one chunk in which these items end the process."""
    texts = [f"innocent {n}" for n in range(size)]
    for at in poison:
        texts[at] = f"{way} number {at}"
    main = "prompt" if spec.get("task") == "generate" else "text"
    return submit(store, [{main: text} for text in texts], per_chunk=size, model=model(store), **spec)


def keep_running(
    mill: Deployment, job_ids: Iterable[str], *, between: Between = lambda: None, timeout_s: float = 150.0
) -> int:
    """Start a worker whenever none runs, `between` before each but the first; how many ended before the jobs did."""
    deadline = time.monotonic() + timeout_s
    wanted = list(job_ids)
    restarts = -1
    while not all(mill.store.jobs.get(job_id).state.final for job_id in wanted):
        assert time.monotonic() < deadline, f"not done after {restarts} restarts:\n{mill.said()[-4000:]}"
        if not any(worker.alive for worker in mill.workers):
            restarts += 1
            if restarts:
                between()
            mill.launch()
        time.sleep(0.02)
    return restarts
