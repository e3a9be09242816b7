"""Takes one of the guards out that keep results exact, in the tests' process and in every worker that it starts.

A pytest plugin, for `test_teeth` alone: `SABOTAGE=fence python -m pytest -p tests.faults.sabotage ...`.
"""

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

VARIABLE = "SABOTAGE"
_HOOK = "from tests.faults.sabotage import apply\napply()\n"
"""`sitecustomize` of the processes that the tests start."""


def pytest_configure() -> None:
    folder = tempfile.mkdtemp(prefix="textmill-sabotage-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    Path(folder, "sitecustomize.py").write_text(_HOOK)
    root = str(Path(__file__).parents[2])
    os.environ["PYTHONPATH"] = os.pathsep.join([folder, root, os.environ.get("PYTHONPATH", "")])
    apply()


def apply() -> None:
    """Take out the guard that the environment names."""
    GUARDS[os.environ[VARIABLE]]()


def _without_the_fence() -> None:
    """A save asks only for the chunk's id, not for the token of its claim."""
    from jobs.store import saving

    fence = "AND c.lease_token = s.token"
    assert fence in saving._GUARDED
    saving._GUARDED = saving._GUARDED.replace(fence, "")


def _without_the_second_look() -> None:
    """The reaper acts on what it saw before it had the locks."""
    from sqlalchemy import select

    from jobs.store import reaping
    from jobs.store.clock import now
    from jobs.store.tables import chunks

    lock_jobs, seen = reaping._lock_jobs, list[Any]()

    def look_first(connection: Any, limit: int) -> Any:
        expired = select(chunks.c.id).where(reaping._EXPIRED, chunks.c.lease_until < now())
        seen[:] = connection.scalars(expired)
        return lock_jobs(connection, limit)

    def lock_without_looking(connection: Any, job_ids: Any, limit: int, unblamed: Any) -> Any:
        wanted = select(chunks, unblamed.label("unblamed")).where(chunks.c.id.in_(list(seen)))
        return connection.execute(wanted.order_by(chunks.c.id).with_for_update(of=chunks)).all()

    reaping._lock_jobs, reaping._lock_expired = look_first, lock_without_looking


def _without_a_later_finish() -> None:
    """A job ends in the transaction that saves its last chunk, or never."""
    from sqlalchemy import select, update

    from jobs.states import JobState
    from jobs.store import rows, saving
    from jobs.store.clock import now
    from jobs.store.jobs import Jobs
    from jobs.store.tables import chunks, jobs

    save = saving._save

    def save_and_finish(database: Any, connection: Any, saves: Any) -> set[int]:
        saved = save(database, connection, saves)
        mine = jobs.c.id.in_(select(chunks.c.job_id).where(chunks.c.id.in_(saved)))
        done = {"state": JobState.COMPLETED, "finished_at": now()}
        connection.execute(update(jobs).where(mine, *rows.FINISHABLE).values(**done))
        return saved

    saving._save = save_and_finish
    Jobs.finish = lambda *_: False  # type: ignore[method-assign]


def _without_the_skip() -> None:
    """A chunk that is taken again runs whole, whatever has a result already."""
    from jobs.store.results import Results

    Results.have = lambda self, *given, **named: set()  # type: ignore[method-assign]


GUARDS: dict[str, Callable[[], None]] = {
    "fence": _without_the_fence,
    "second look": _without_the_second_look,
    "later finish": _without_a_later_finish,
    "skip": _without_the_skip,
}
