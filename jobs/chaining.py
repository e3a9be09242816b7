"""The results of an earlier job as the items of a new one: translate, then summarize, then embed."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from jobs.corpus import Fields, Format, Place
from jobs.corpus.base import ID, Read
from jobs.corpus.mapping import Mapper
from jobs.errors import InvalidInput, InvalidState, Problem
from jobs.schemas import Job
from jobs.tasks import AnyTask, find

if TYPE_CHECKING:
    from jobs.store import Store

PREFIX = "job:"
LABEL = "from_job"
"""The label of a job whose items are results: the id of the job that they are of."""
LABEL_CHARS = 1024
"""A label holds no more."""


class Results(NamedTuple):
    """The results of one job, to be read as an input."""

    job: Job
    input: tuple[Format, Place]
    left_out: str | None
    """What is to be said of items without a result that counts; None: every item has one."""


def is_job(name: str) -> bool:
    """Whether it stands for the results of a job: `job:` and its id, or its beginning."""
    return name.startswith(PREFIX)


def results(store: "Store", name: str, fields: Fields) -> Results:
    """The ok results of an ended job together with those of its retries, as items under the `custom_id` they had.

    Raises UnknownJob, InvalidState while it or a retry runs, InvalidInput when the task's output is no text and
    `fields` names none.
    """
    job = store.jobs.get(name.removeprefix(PREFIX))
    chain = [store.jobs.get(each) for each in store.retries.chain(job.id)]
    for each in chain:
        if not each.state.final:
            raise InvalidState(f"{PREFIX}{each.id} is {each.state}; wait for its end: textmill watch {each.id}")
    task, shown = find(job.task), f"{PREFIX}{job.id}"
    if task.text is None and not _names_text(fields):
        raise InvalidInput(
            f"{shown}: a result of {task.name} is no text; name one with --text-field, as in output.labels.0.label; "
            f"its outputs have: {', '.join(task.output.model_fields)}"
        )
    content = " ".join([PREFIX, *(each.id for each in chain)]).encode()
    read = partial(_read, store, chain[0].id, task)
    form = Format("job", (), read, fingerprint=lambda _: content, version=lambda _: None)
    return Results(job, (form, Place(shown, Path(shown), _unopened)), _left_out(shown, chain))


def lineage(found: Sequence[Results]) -> dict[str, str]:
    """The label of a job that is made of them."""
    return {LABEL: ",".join(each.job.id for each in found)[:LABEL_CHARS]} if found else {}


def _left_out(shown: str, chain: Sequence[Job]) -> str | None:
    total = chain[0].counts.total
    if not (left := total - sum(job.counts.ok for job in chain)):
        return None
    return f"{shown}: {left:,} of {total:,} items have no ok result and are left out"


def _read(store: "Store", job_id: str, task: AnyTask, place: Place, fields: Fields, max_bytes: int) -> Iterator[Read]:
    """Items numbered as the results are, from 1. The kept fields are the item's own."""
    mapper, made = Mapper(fields), _names_text(fields)
    for row in store.retries.latest_rows(job_id):
        if row.status != "ok":
            continue
        output = orjson.loads(row.output) if row.output is not None else {}
        kept = orjson.loads(row.kept) if row.kept is not None else {}
        result = {key: value for key, value in kept.items() if key != "params"}
        if not made and task.text is not None:
            result[fields.main] = task.text(output)
        result |= {ID: row.custom_id, "output": output, "kept": kept}
        yield row.seq + 1, _item(row.seq + 1, result, mapper, max_bytes)


def _names_text(fields: Fields) -> bool:
    """Whether the caller says what the text is."""
    return fields.rows.template is not None or any(name == fields.main for name, _ in fields.moves)


def _item(number: int, result: dict[str, Any], mapper: Mapper, max_bytes: int) -> bytes | Problem | None:
    item = mapper.item(number, result)
    if not isinstance(item, dict):
        return item
    if item.get(mapper.main) is None:
        return Problem(number, "missing_field", f"the result has no {mapper.main}")
    if not isinstance(item[ID], str) or item[ID] == "":
        return Problem(number, "invalid_id", f"the id {item[ID]!r} is no text")
    line = orjson.dumps({name: value for name, value in item.items() if name not in ("output", "kept")})
    if len(line) > max_bytes:
        return Problem(number, "line_too_long", f"the item is longer than {max_bytes:,} bytes (setting max_line_bytes)")
    return line


def _unopened() -> Any:
    raise NotImplementedError("a job's results are no bytes")
