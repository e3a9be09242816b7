"""The client over HTTP."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

import orjson

from jobs.corpus import Named, Source
from jobs.corpus.memory import Given
from jobs.errors import TextmillError
from jobs.remote import calls
from jobs.remote.calls import Call, Status, Steps, T
from jobs.schemas import ERRORS_AFTER, Estimate, Found, Job, OnErrors, Result

if TYPE_CHECKING:
    from httpx2 import Response


class HttpClient:
    """Submits jobs to a server and reads them. `Client("http...")` makes one. May be shared by threads.

    Repeats what was not answered, with growing waits; a submit too, which never makes a second job. Raises what the
    direct client raises, ApiError for what only a server can refuse, ApiUnavailable when it does not answer.
    """

    def __init__(self, url: str, *, api_key: str | None = None, timeout_s: float = calls.TIMEOUT_S) -> None:
        import httpx2

        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx2.Client(base_url=url.rstrip("/"), headers=headers, timeout=timeout_s)
        self._url, self._timeout_s = url, timeout_s
        self._main_fields: dict[str, str] = {}

    def submit(
        self,
        task: str,
        items: Iterable[Given] | Source | Named,
        *,
        model: str | None = None,
        params: Mapping[str, Any] | None = None,
        priority: int = 0,
        queue: str = "default",
        labels: Mapping[str, str] | None = None,
        keep: Sequence[str] = (),
        idempotency_key: str | None = None,
        deadline_at: datetime | None = None,
        on_invalid: str = "reject",
        webhook: str | None = None,
        sink: str | None = None,
        canary: int | None = None,
        go_on: bool = False,
        max_error_share: float | None = None,
        errors_after: int = ERRORS_AFTER,
        on_errors: OnErrors = "pause",
    ) -> "HttpJob":
        """The job, stored and ready for workers, as `jobs.client.Client.submit` does it. `items` may be any iterable:
        it is read once, and never all in memory."""
        steps = calls.submit(
            task,
            items,
            main_field=self._main_field(task),
            model=model,
            params=dict(params or {}),
            priority=priority,
            queue=queue,
            labels=dict(labels or {}),
            keep=list(keep),
            on_invalid=on_invalid,
            webhook=webhook,
            sink=None if sink is None else sink.removeprefix("connection:"),
            canary=canary,
            go_on=go_on,
            max_error_share=max_error_share,
            errors_after=errors_after,
            on_errors=on_errors,
            idempotency_key=idempotency_key,
            deadline_at=deadline_at,
        )
        return HttpJob(self, self._through(steps))

    def estimate(
        self,
        task: str,
        items: Iterable[Given] | Source | Named,
        *,
        model: str | None = None,
        params: Mapping[str, Any] | None = None,
        keep: Sequence[str] = (),
    ) -> Estimate:
        """What these items would be as a job, as `jobs.client.Client.estimate` says it. Nothing is run."""
        main_field, given = self._main_field(task), dict(params or {})
        steps = calls.estimate(task, items, main_field=main_field, model=model, params=given, keep=list(keep))
        return self._through(steps)

    def run(
        self, task: str, items: Iterable[Given] | Source | Named, *, timeout: float | None = None, **wanted: Any
    ) -> list[Result]:
        """Submit, wait, and read: the results in the order of the items. Takes what `submit` takes."""
        job = self.submit(task, items, **wanted)
        job.wait(timeout)
        return list(job.results())

    def get(self, job_id: str) -> "HttpJob":
        """The job of that id. Raises UnknownJob."""
        return HttpJob(self, calls.read_job(self._send(calls.job(job_id)).content))

    def list(
        self,
        *,
        states: Sequence[str] | None = None,
        task: str | None = None,
        model: str | None = None,
        labels: Mapping[str, str] | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> Sequence[Job]:
        """Jobs, newest first; `before` is the id to go on from."""
        call = calls.jobs(states=states, task=task, model=model, labels=labels or {}, limit=limit, before=before)
        return [calls.read_job(orjson.dumps(each)) for each in orjson.loads(self._send(call).content)["data"]]

    def cancel(self, job_id: str) -> Job:
        """Stop the job; results so far are kept."""
        return self._steer(job_id, "cancel")

    def pause(self, job_id: str) -> Job:
        """Let the job rest."""
        return self._steer(job_id, "pause")

    def resume(self, job_id: str) -> Job:
        """Let a paused job go on."""
        return self._steer(job_id, "resume")

    def approve(self, job_id: str) -> Job:
        """Let the rest of a job follow its canary."""
        return self._steer(job_id, "approve")

    def retry(self, job_id: str) -> "HttpJob":
        """A new job of the items without an ok result."""
        return HttpJob(self, self._steer(job_id, "retry"))

    def delete(self, job_id: str) -> None:
        """Delete a job that has ended."""
        self._send(calls.delete(job_id))

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _steer(self, job_id: str, move: str) -> Job:
        return calls.read_job(self._send(calls.steer(job_id, move)).content)

    def _main_field(self, task: str) -> str:
        if task not in self._main_fields:
            self._main_fields[task] = orjson.loads(self._send(calls.task_of(task)).content)["main_field"]
        return self._main_fields[task]

    def _through(self, steps: Steps[T]) -> T:
        """What comes of the steps."""
        try:
            call = next(steps)
            while True:
                try:
                    answer = self._send(call)
                except TextmillError as error:
                    call = steps.throw(error)
                else:
                    call = steps.send(answer)
        except StopIteration as done:
            came: T = done.value
            return came

    def _send(self, call: Call) -> "Response":
        """The answer, if it is a good one; tried again as long as that can help."""
        import httpx2

        last: TextmillError | None = None
        time.sleep(call.wait_s)
        for attempt in range(call.tries):
            told = None
            try:
                response = self._http.request(
                    call.method,
                    call.path,
                    params=call.params,
                    headers=calls.traced(call),
                    content=call.pieces if call.file is not None else call.body,
                    timeout=self._timeout_s + call.longer_s,
                )
                if response.status_code < 400:
                    return response
                last = calls.failure(response.status_code, response.content)
                if response.status_code not in calls.AGAIN:
                    raise last
                told = response.headers.get("retry-after")
            except httpx2.TransportError as error:
                last = calls.unreachable(self._url, error)
            if attempt < call.tries - 1:
                time.sleep(calls.pause_s(attempt, told))
        assert last is not None
        raise last


class HttpJob:
    """A job of a server."""

    def __init__(self, client: HttpClient, job: Job) -> None:
        self._client, self._job = client, job

    @property
    def id(self) -> str:
        return self._job.id

    @property
    def job(self) -> Job:
        """As it was seen last."""
        return self._job

    def refresh(self) -> Job:
        """The job as it stands now."""
        self._job = calls.read_job(self._client._send(calls.job(self.id)).content)
        return self._job

    def wait(self, timeout: float | None = None) -> Job:
        """The job once it is final. Raises TimeoutError after `timeout` s."""
        until = None if timeout is None else time.monotonic() + timeout
        while not self._job.state.final:
            left = calls.WAIT_S if until is None else min(calls.WAIT_S, until - time.monotonic())
            if left <= 0:
                raise TimeoutError(f"{self.id} is still {self._job.state} after {timeout:g} s")
            self._job = calls.read_job(self._client._send(calls.job(self.id, wait_s=left)).content)
        return self._job

    def results(self, status: Status | None = None, *, after: int = -1) -> Iterator[Result]:
        """The results there are of the items behind `after`, in their order."""
        while True:
            found, following, complete = self._page(after, status)
            yield from found
            if complete or following == after:
                return
            after = following

    def stream(self) -> Iterator[Result]:
        """Every result once, in the order of the items, as they finish; ends when the job does."""
        after = -1
        while True:
            found, following, complete = self._page(after, None)
            yield from found
            if complete:
                return
            if following == after:
                self._changed()
            after = following

    def records(self) -> list[dict[str, Any]]:
        """The results as flat dicts, for `pandas.DataFrame` or `datasets.Dataset.from_list`: `custom_id`, `status`, the
        output's fields, `error`."""
        return [calls.record(result) for result in self.results()]

    def evaluate(
        self,
        *,
        gold: str = "gold",
        gold_rows: Mapping[str, Mapping[str, Any]] | None = None,
        against: "HttpJob | str | None" = None,
        threshold: float | None = None,
        top: int | None = None,
        resamples: int | None = None,
        seed: int | None = None,
        partial: bool = False,
    ) -> dict[str, Any]:
        """What `textmill evaluate --json` prints: figures with their intervals, and what sets this job apart from the
        one it is set `against`. Right answers are the field `gold` of what was kept, or of `gold_rows` by `custom_id`.
        Raises MissingGold, InvalidInput, and InvalidState for a job that still runs unless `partial` results will do.
        """
        call = calls.evaluate(
            self.id,
            gold=gold,
            gold_rows=gold_rows,
            against=against.id if isinstance(against, HttpJob) else against,
            threshold=threshold,
            top=top,
            resamples=resamples,
            seed=seed,
            partial=partial,
        )
        report: dict[str, Any] = orjson.loads(self._client._send(call).content)
        return report

    def search(
        self,
        text: str | None = None,
        *,
        vector: Sequence[float] | None = None,
        like: str | None = None,
        top_k: int = 10,
        partial: bool = False,
    ) -> list[Found]:
        """The results of an embed job that are nearest to a text, to a vector, or to the item of a `custom_id`, with
        their items. Raises InvalidInput, and InvalidState for a job that still runs unless `partial` results will do.
        """
        numbers = None if vector is None else [float(number) for number in vector]
        call = calls.search(self.id, text=text, vector=numbers, like=like, top_k=top_k, partial=partial)
        return calls.read_found(self._client._send(call).content)

    def cancel(self) -> Job:
        return self._client.cancel(self.id)

    def pause(self) -> Job:
        return self._client.pause(self.id)

    def resume(self) -> Job:
        return self._client.resume(self.id)

    def approve(self) -> Job:
        return self._client.approve(self.id)

    def __repr__(self) -> str:
        return f"HttpJob({self.id!r})"

    def _page(self, after: int, status: Status | None) -> tuple[list[Result], int, bool]:
        return calls.read_results(self._client._send(calls.results(self.id, after=after, status=status)).content)

    def _changed(self) -> None:
        """Wait until something of the job is new."""
        first = self._client._send(calls.job(self.id))
        if not calls.read_job(first.content).state.final:
            self._client._send(calls.job(self.id, wait_s=calls.WAIT_S, known=first.headers["etag"]))
