"""Batches become jobs: one after the other, beside the requests, and again after a crash."""

import asyncio
import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from anyio.to_thread import run_sync

from jobs import tracing
from jobs.api.openai.endpoints import endpoint
from jobs.api.openai.lines import BatchSource
from jobs.errors import (
    InvalidItems,
    InvalidState,
    Problem,
    QuotaExceeded,
    StoreUnavailable,
    UnknownFile,
    UnknownJob,
    UnknownModel,
    UsageError,
)
from jobs.models import FAKE
from jobs.store.batches import BatchRow

if TYPE_CHECKING:
    from jobs.api.openai.storage import Storage
    from jobs.client import Client
    from jobs.settings import Settings
    from jobs.store import Store

LOOK_S = 2.0
"""How soon a batch is found that nobody of this process told of."""
AT_ONCE = 10
SWEEP_S, UNFINISHED_S = 3600.0, 86_400.0
"""How often files are looked for that nobody goes on to write, and for how long nobody has."""
PARTS_AT_ONCE = 1000
CODES = {"duplicate_id": "duplicate_custom_id", "malformed_json": "invalid_json_line", "not_utf8": "invalid_json_line"}
"""Our codes of lines by OpenAI's; `invalid_request` for the rest."""
REFUSALS = {UnknownModel: "model_not_found", QuotaExceeded: "token_limit_exceeded"}
KNOWN = frozenset({"url_mismatch", "model_mismatch", "invalid_json_line", "duplicate_custom_id", "invalid_request"})
log = logging.getLogger("textmill.api")


class Batching:
    """Makes jobs of the batches that wait, and takes away files and uploads whose time is over. Two servers at it cost
    time and nothing else: the batch's id is the job's idempotency key."""

    def __init__(self, settings: "Settings", store: "Store", client: "Client", storage: "Storage") -> None:
        self._settings, self._store, self._client, self._storage = settings, store, client, storage
        self._sweep_at = 0.0
        self._told: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, in the running event loop."""
        self._told, self._loop = asyncio.Event(), asyncio.get_running_loop()
        self._task = self._loop.create_task(self._go_on(), name="batching")

    def tell(self) -> None:
        """There is a new batch. From any thread."""
        if self._loop is not None and self._told is not None:
            self._loop.call_soon_threadsafe(self._told.set)

    async def close(self) -> None:
        """End; a batch in the middle is gone on with by whoever comes next."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _go_on(self) -> None:
        assert self._told is not None
        while True:
            try:
                for batch in await run_sync(self._store.batches.waiting, AT_ONCE):
                    await run_sync(self.begin, batch)
                await run_sync(self._forget)
            except StoreUnavailable as error:
                log.warning("batches wait: %s", error)
            except Exception:
                log.exception("a batch could not be begun")
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._told.wait()
            self._told.clear()

    def begin(self, batch: BatchRow) -> None:
        """Make the batch a job, or fail it with everything that is wrong. Raises StoreUnavailable."""
        try:
            job_id = self._submit(batch)
        except InvalidItems as error:
            self._store.batches.fail(batch.id, _listed(error.problems, error.total))
            return
        except UsageError as error:
            code = next((code for kind, code in REFUSALS.items() if isinstance(error, kind)), "invalid_request")
            self._store.batches.fail(batch.id, [_entry(code, str(error))])
            return
        if not self._store.batches.began(batch.id, job_id) and self._store.batches.get(batch.id).cancelled_at:
            with suppress(InvalidState):
                self._store.jobs.cancel(job_id)

    def _forget(self) -> None:
        for batch in self._store.batches.over(AT_ONCE):
            assert batch.job_id is not None
            with suppress(UnknownJob):  # another server was quicker
                job = self._store.jobs.get(batch.job_id)
                self._store.batches.close(batch.id, job.id, job.model_dump(mode="json"))
        for file in self._store.files.expired(AT_ONCE):
            self._storage.delete(file.names)
            with suppress(UnknownFile):  # another server was quicker
                self._store.files.delete(file.id, file.tenant)
        while parts := self._store.uploads.left_over(PARTS_AT_ONCE):
            self._storage.delete(parts)
            self._store.uploads.forget(parts)
        self._store.uploads.sweep()
        if time.monotonic() >= self._sweep_at:
            self._sweep_at = time.monotonic() + SWEEP_S
            self._storage.sweep(UNFINISHED_S)

    def _submit(self, batch: BatchRow) -> str:
        file = self._store.files.get(batch.input_file_id, batch.tenant)
        wanted = endpoint(batch.endpoint)

        def source() -> BatchSource:
            return BatchSource(lambda: self._storage.open(file.names), file.id, wanted, self._settings.max_line_bytes)

        # A file without one request still has to say what is wrong with each of its lines.
        models = [spec.name for spec in self._client.registry_of(batch.tenant).list()]
        model = source().first_model() or next(iter(models), FAKE)
        with tracing.below(batch.traceparent):
            handle = self._client.submit(
                wanted.task,
                source(),
                model=model,
                priority=batch.priority,
                tenant=batch.tenant,
                labels={"batch": batch.id},
                idempotency_key=batch.id,
                deadline_at=batch.expires_at,
            )
        return handle.id


def _listed(problems: list[Problem], total: int) -> list[dict[str, Any]]:
    listed = [_entry(CODES.get(each.code, each.code), each.message, each.line) for each in problems]
    if total > len(problems):
        listed.append(_entry("invalid_request", f"and {total - len(problems):,} more lines"))
    return listed


def _entry(code: str, message: str, line: int | None = None) -> dict[str, Any]:
    known = code if code in KNOWN or line is None else "invalid_request"
    return {"code": known, "message": message, "param": None, "line": line}
