"""Writes the results of jobs that have completed to their sinks, a thread a job: nobody waits for a slow disk."""

import logging
import random
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from jobs import connections, corpus
from jobs.corpus import urls
from jobs.errors import InvalidInput, StoreUnavailable, TextmillError, UnknownJob
from jobs.schemas import Job
from jobs.store.encoding import result_line
from jobs.tasks import AnyTask, find

if TYPE_CHECKING:
    from jobs.settings import Settings
    from jobs.store import Store
    from jobs.store.exports import Export

AT_ONCE = 2
"""Jobs whose results are written at the same time."""
HOLD_S, HOLD_AGAIN_S = 60.0, 15.0
"""An export whose writer died is due again after so long; one that goes on says so this often."""
AGAIN_S = (10.0, 60.0, 300.0, 1800.0, 3600.0, 10_800.0, 21_600.0, 43_200.0)
"""Waits after the first failed try, the second, and so on, about a day in all; then it is given up."""
log = logging.getLogger("textmill.exports")


class _Taken(Exception):
    """Somebody else writes these results by now: this process was away for too long."""


class _Stopped(Exception):
    """This process ends; another one begins again."""


class Exporter:
    """Whoever leads upkeep has it work; `round` returns at once."""

    def __init__(self, store: "Store", settings: "Settings") -> None:
        self._store, self._settings = store, settings
        self._threads = set[threading.Thread]()
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def round(self) -> int:
        """How many exports were begun. Raises StoreUnavailable."""
        self._stop.clear()
        begun = 0
        while len(self._threads) < AT_ONCE and (export := self._store.exports.take(HOLD_S)) is not None:
            thread = threading.Thread(target=self._work, args=(export,), name="textmill-export", daemon=True)
            with self._lock:
                self._threads.add(thread)
            thread.start()
            begun += 1
        return begun

    def stop(self, wait_s: float = 1.0) -> None:
        """What is not done in time is begun again by whoever leads next."""
        self._stop.set()
        until = time.monotonic() + wait_s
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _work(self, export: "Export") -> None:
        try:
            self._store.exports.done(export, self._write(export))
            log.info("the results of %s are in their sink", export.job_id, extra={"job": export.job_id})
        except _Taken:
            log.warning("%s: another process writes its results by now", export.job_id)
        except _Stopped:
            self._again(export, "the process that wrote them ended", 0.0)
        except (StoreUnavailable, UnknownJob) as error:
            log.warning("%s: %s", export.job_id, error)
        except Exception as error:
            self._failed(export, error)
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())

    def _write(self, export: "Export") -> int:
        """All results, those of retries laid over them; how many there were. Raises OutputError and what stops it."""
        job, count, held_at = self._store.jobs.get(export.job_id), 0, time.monotonic()
        task = find(job.task)
        target = export.target
        if target.startswith(connections.PREFIX):
            target = connections.sink(self._settings, target.removeprefix(connections.PREFIX), job.tenant)
        sink = corpus.open_sink(placed(target, job), columns=kinds(task), kept=job.keep)
        sink.check()  # which sweeps up what a killed writer left, too
        with sink:
            for row in self._store.retries.latest_rows(job.id):
                sink.write_line(result_line(row))
                count += 1
                if time.monotonic() > held_at + HOLD_AGAIN_S:
                    held_at = time.monotonic()
                    self._hold(export)
                if self._stop.is_set():
                    raise _Stopped
            self._hold(export)  # what is written appears now, so by whoever has it
        return count

    def _hold(self, export: "Export") -> None:
        if not self._store.exports.hold(export, HOLD_S):
            raise _Taken

    def _failed(self, export: "Export", error: Exception) -> None:
        said = str(error) if isinstance(error, TextmillError) else f"{type(error).__name__}: {error}"
        again_s = AGAIN_S[export.attempts - 1] * random.uniform(0.9, 1.1) if export.attempts <= len(AGAIN_S) else None
        log.warning("%s: its results could not be written, try %d: %s", export.job_id, export.attempts, said)
        self._again(export, said, again_s)

    def _again(self, export: "Export", said: str, again_s: float | None) -> None:
        try:
            self._store.exports.failed(export, said, again_s=again_s)
        except StoreUnavailable as down:
            log.warning("%s: %s", export.job_id, down)


def kinds(task: AnyTask) -> dict[str, Any]:
    """The task's output fields with their types."""
    return {name: field.annotation for name, field in task.output.model_fields.items()}


def checked(target: str, settings: "Settings", tenant: str) -> str:
    """The target as a job keeps it: a path in full. Raises InvalidInput, OutputError for what can be no sink, and
    UnknownConnection.

    Whether it can be written is known where it is written; a password has no place in a job.
    """
    if target in ("-", *corpus.STDOUT):
        raise InvalidInput("a job's sink is a file, a URL or a table; standard output is none")
    if target.startswith(connections.PREFIX):
        connections.sink(settings, target.removeprefix(connections.PREFIX), tenant)
        return target
    if urls.has_secret(target):
        raise InvalidInput(
            f"{urls.shown(target)}: a job keeps its sink, so no password may stand in it; "
            "PostgreSQL reads them from ~/.pgpass, buckets from their own settings"
        )
    target = corpus.absolute(target)
    corpus.check_target(target)
    return target


def placed(target: str, job: Job) -> str:
    """The target with the job's id for `{job}`, and the day of its end (UTC) for `{date}`."""
    ended = job.finished_at or datetime.now(UTC)
    return target.replace("{job}", job.id).replace("{date}", f"{ended.astimezone(UTC):%Y-%m-%d}")
