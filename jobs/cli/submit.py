"""`textmill submit` and `textmill retry`: the commands that make a job and leave."""

from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from jobs.cli import INTERRUPTED, options
from jobs.cli.params import labels, moment, parse, words
from jobs.cli.session import client, store
from jobs.cli.signals import interruptible
from jobs.cli.workers import anyone_serves, nobody
from jobs.errors import NothingNew

if TYPE_CHECKING:
    from jobs.corpus import Rows
    from jobs.schemas import Job
    from jobs.store import Store


@click.command()
@options.model("A name from `textmill models list`.")
@options.task_over_inputs
@options.rows
@options.query
@options.incremental
@options.placed
@click.option("--key", metavar="KEY", help="Idempotency key: the same key never makes a second job.")
@click.option("--deadline", metavar="TIME", type=moment, help="The job expires then (UTC).")
@options.before_paying
@options.as_json()
def submit(
    task: str,
    inputs: tuple[str, ...],
    model: str | None,
    param: tuple[str, ...],
    text_field: str | None,
    id_field: str | None,
    rows: "Rows",
    keep: str | None,
    form: str | None,
    query: str | None,
    on_invalid: options.OnInvalid,
    incremental: str | None,
    queue: str,
    priority: int,
    weight: float,
    label: tuple[str, ...],
    key: str | None,
    deadline: datetime | None,
    webhook: str | None,
    sink: str | None,
    dry_run: bool,
    as_json: bool,
    **supervised: Any,
) -> None:
    """Submit a job and leave. Prints its id; whoever works on the queue does the rest.

    With --incremental and nothing new there is no job: nothing is printed, and the exit code is 0.
    """
    from jobs.cli.submission import Submission, estimate, interrupted, submitted

    wish = Submission(
        task=task,
        inputs=inputs,
        model=model,
        params=parse(param),
        text_field=text_field,
        id_field=id_field,
        rows=rows,
        format=form,
        query=query,
        on_invalid=on_invalid,
        options={
            "keep": words(keep),
            "queue": queue,
            "priority": priority,
            "weight": weight,
            "labels": labels(label),
            "idempotency_key": key,
            "deadline_at": deadline,
            "webhook": webhook,
            "sink": sink,
            **supervised,
            "incremental": incremental,
        },
    )
    with store() as database, client(database) as opened:
        if dry_run:
            raise click.exceptions.Exit(estimate(opened, wish, as_json=as_json))
        try:
            with interruptible():
                job = submitted(opened, wish)
        except KeyboardInterrupt as error:
            click.echo(f"textmill: {interrupted(key)}", err=True)
            raise click.exceptions.Exit(INTERRUPTED) from error
        except NothingNew as nothing:
            click.echo(f"textmill: {nothing}", err=True)
            return
        _tell(database, job, as_json=as_json)


@click.command()
@options.job
@options.as_json()
def retry(job: str, as_json: bool) -> None:
    """A new job of the items that have no ok result. `results --latest` shows both together."""
    with store() as database, client(database) as opened:
        _tell(database, opened.retry(job).refresh(), as_json=as_json)


def _tell(database: "Store", job: "Job", *, as_json: bool) -> None:
    """The new job's id alone on stdout, for scripts; what to do with it on stderr, for people."""
    click.echo(job.model_dump_json() if as_json else job.id)
    if as_json:
        return
    click.echo(f"textmill: {job.counts.total:,} items {job.state}; see it through: textmill watch {job.id}", err=True)
    if not job.state.final and not anyone_serves(database, job.queue):
        click.echo(f"textmill: {nobody(job.queue)}", err=True)
