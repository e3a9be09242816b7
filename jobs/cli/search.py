"""`textmill search`: the nearest results of an embed job, with their texts."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from jobs.cli import options
from jobs.cli.session import client, store
from jobs.cli.table import table
from jobs.cli.workers import Absence

if TYPE_CHECKING:
    from jobs.client import Client
    from jobs.handle import JobHandle
    from jobs.schemas import Job
    from jobs.search import Hit, Index
    from jobs.settings import Settings
    from jobs.store import Store

SHOWN = 100
"""Characters of a text that a table shows."""
LOOK_S = 0.05


@click.command()
@options.job
@click.argument("query", nargs=-1)
@click.option("--like", metavar="ID", help="What is nearest to this item, by custom_id, instead of a query.")
@click.option("--top", metavar="K", type=click.IntRange(1, 10_000), default=10, help="So many results.")
@click.option("--prefix", metavar="TEXT", default="", help="Put before each query, as some models want it.")
@options.as_json()
def search(job: str, query: tuple[str, ...], like: str | None, top: int, prefix: str, as_json: bool) -> None:
    """Find the results of an embed job that are nearest to QUERY, by the cosine of their vectors.

    Exact: every vector is compared. Queries are embedded by the job's model, as jobs of their own. Without QUERY they
    are read from standard input, one a line, and the vectors are loaded once.
    """
    from jobs.search import open_index
    from jobs.settings import load_settings

    settings = load_settings()
    with store(settings) as database, client(database) as opened:
        found = opened.get(job).refresh()
        index = open_index(database, found.id)
        if not found.state.final:
            _say(f"{found.id} is {found.state}; {len(index):,} vectors so far")
        show = _Shown(database, found, as_json=as_json)
        if like is not None:
            show(f"like {like}", index.like(like, top))
            return
        with _asker(settings, database, opened, found) as ask:
            for text in query or _typed(index):
                show(text, index.nearest(ask(prefix + text), top))


class _Shown:
    """Prints what was found, with the items' texts."""

    def __init__(self, database: "Store", job: "Job", *, as_json: bool) -> None:
        self._database, self._job_id, self._as_json = database, job.id, as_json

    def __call__(self, query: str, hits: "Sequence[Hit]") -> None:
        from jobs.search import with_items

        found = with_items(self._database, self._job_id, hits)
        if self._as_json:
            for each in found:
                click.echo(json.dumps({"query": query, **each.model_dump()}, ensure_ascii=False))
        else:
            rows = [(f"{each.score:.4f}", each.custom_id, _text(each.item)) for each in found]
            click.echo(table(("SCORE", "ITEM", "TEXT"), rows))


@contextmanager
def _asker(
    settings: "Settings", database: "Store", opened: "Client", job: "Job"
) -> Iterator[Callable[[str], list[float]]]:
    """Embeds a text as the job's texts were, by whoever works for the deployment; in a home of its own by a worker that
    stays until the last query."""
    from jobs.local.embedded import attend, mill
    from jobs.search import query_vector, submit_query

    machine = None if settings.redis_url else mill(settings, database, role="run", say=_say)
    queue = job.queue if machine is None else settings.queues[0]

    def ask(text: str) -> list[float]:
        handle = submit_query(opened, job, text, queue)
        looks = attend(machine, handle.refresh, _say) if machine else _looks(database, handle, queue)
        *_, ended = looks
        return query_vector(text, next(handle.results(), None), ended.error)

    try:
        yield ask
    finally:
        if machine is not None:
            machine.stop()


def _looks(database: "Store", handle: "JobHandle", queue: str) -> "Iterator[Job]":
    """The job again and again until it is final, with a word when nobody serves its queue."""
    absence = Absence(database, queue)
    while not (job := handle.refresh()).state.final:
        if missing := absence.noticed():
            _say(missing)
        time.sleep(LOOK_S)
    yield job


def _say(text: str) -> None:
    click.echo(f"textmill: {text}", err=True)


def _text(item: Any) -> str:
    text = " ".join(str((item or {}).get("text", "")).split())
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def _typed(index: "Index") -> Iterator[str]:
    """Queries from standard input."""
    if sys.stdin.isatty():
        _say(f"{len(index):,} vectors; type a query, Ctrl-D ends")
    for line in sys.stdin:
        if line.strip():
            yield line.strip()
