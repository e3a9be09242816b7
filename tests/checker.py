"""What must hold after every fault (I1 to I7 of the fault list), asked of the database from outside."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import text

from jobs.schemas import Job, Result
from jobs.states import CHUNK_MOVES, JobState
from jobs.store import Store
from jobs.tasks import find, task_adapter, validate_params
from jobs.tasks.base import Failed
from worker.engines.fake import FakeCodec, answer

MOST_ATTEMPTS = 40
"""I7: far above what any fault here needs, far below a loop without end."""


def check(store: Store, job_id: str, *, poison: Collection[int] = (), errors: Mapping[int, str] | None = None) -> Job:
    """The finished job, once all of its results are proven right.

    `poison`: the `seq` of exactly the items that killed a process twice; `errors`: code by `seq` of the other errors.
    """
    job = store.jobs.get(job_id)
    results = all_results(store, job_id)
    lines = list(store.jobs.lines(job_id))
    expected = dict(errors or {}) | dict.fromkeys(poison, "poison")

    assert [result.seq for result in results] == [seq for seq, _ in lines], "I1: one result an item, in order"
    _check_outputs(job, results, lines, expected)
    assert job.state is JobState.COMPLETED, f"I3: {job.state} ({job.error})"
    assert (job.counts.ok, job.counts.error) == (len(results) - len(expected), len(expected)), "I3: counts"
    assert job.counts.pending == 0
    assert store.check() == [], "I4"
    poisoned = {result.seq for result in results if result.error and result.error.code == "poison"}
    assert poisoned == set(poison), "I6: exactly the injected items are poison"
    assert max(column(store, "SELECT attempt FROM chunks")) <= MOST_ATTEMPTS, "I7"
    return job


def all_results(store: Store, job_id: str) -> list[Result]:
    """Every result there is, in order."""
    found: list[Result] = []
    while page := store.results.page(job_id, after=found[-1].seq if found else -1):
        found += page
    return found


def expected_output(task_name: str, line: bytes, params: Mapping[str, Any]) -> dict[str, Any] | str:
    """What the fake engine makes of one item, worked out without worker, store or batch; an error's code otherwise."""
    task = find(task_name)
    (item,) = task_adapter(task).validate_json(b"[" + line + b"]")
    checked = validate_params(task, params)
    asked = task.preprocess(item, checked, _codec())
    outcomes = [answer(request) for request in asked.requests]
    refused = next((outcome for outcome in outcomes if isinstance(outcome, Failed)), None)
    if refused:
        return str(refused.code)
    output = task.postprocess(item, asked, outcomes, checked)
    return dict(orjson.loads(output.model_dump_json()))  # type: ignore[union-attr]


def states(store: Store) -> dict[int, str]:
    """Chunk states by id, to prove later that absorbing ones never changed (I5)."""
    return {row[0]: row[1] for row in rows(store, "SELECT id, state FROM chunks")}


def check_absorbed(before: Mapping[int, str], after: Mapping[int, str]) -> None:
    """I5: chunks that were done, split or cancelled still are."""
    for chunk_id, state in before.items():
        if not CHUNK_MOVES[state]:  # type: ignore[index]
            assert after[chunk_id] == state, f"I5: chunk {chunk_id} was {state} and is {after[chunk_id]}"


def rows(store: Store, query: str) -> Sequence[Any]:
    """What a query finds, past the store's own methods."""
    return store._db.read(lambda connection: connection.execute(text(query)).all())


def column(store: Store, query: str) -> list[Any]:
    return [row[0] for row in rows(store, query)]


def _check_outputs(
    job: Job, results: Sequence[Result], lines: Sequence[tuple[int, bytes]], expected: Mapping[int, str]
) -> None:
    for result, (_, line) in zip(results, lines, strict=True):
        code = expected.get(result.seq)
        if code is not None:
            assert result.error is not None, f"item {result.seq}: {result}"
            assert result.error.code == code, f"item {result.seq}: {result.error}"
            continue
        wanted = expected_output(job.task, line, job.params)
        assert result.status == "ok", f"I2: item {result.seq}: {result.error}"
        assert isinstance(wanted, dict)
        assert _same(result.output, wanted), f"I2: item {result.seq}"


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float):
        return math.isclose(one, other, rel_tol=1e-6)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _codec() -> FakeCodec:
    from jobs.models import ModelSpec

    return FakeCodec(ModelSpec(name="x", path="fake", kind="any", tasks=(), engine="fake", head="generate"))
