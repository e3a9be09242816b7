"""`textmill submit`, `status`, `watch`, `results`, ...: jobs of any deployment."""

import sys
import time
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from jobs.cli import INTERRUPTED
from jobs.cli.params import as_utc, labels, on_invalid_of, parse, words
from jobs.cli.session import client, store
from jobs.cli.signals import interruptible
from jobs.cli.workers import Absence, anyone_serves, nobody
from jobs.states import Control

if TYPE_CHECKING:
    from jobs.schemas import Job
    from jobs.store import Store

WATCH_S = 0.5

JobId = Annotated[str, typer.Argument(metavar="JOB", help="A job's id, or its beginning.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON, one object a line.")]


def add_to(app: typer.Typer) -> None:
    app.command("submit")(submit)
    app.command("status")(status)
    app.command("watch")(watch)
    app.command("results")(results)
    app.command("list")(list_jobs)
    for move, says in _MOVES.items():
        app.command(move, help=says)(_command(move))
    app.command("retry")(retry)


def submit(
    task: Annotated[str, typer.Argument(metavar="TASK", help="What to do; see `textmill tasks`.")],
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Files, folders, or - for stdin.")],
    model: Annotated[str | None, typer.Option(help="A name from `textmill models list`.")] = None,
    param: Annotated[list[str] | None, typer.Option("--param", "-p", metavar="K=V", help="May be repeated.")] = None,
    text_field: Annotated[str | None, typer.Option(metavar="F", help="The input's field that holds the text.")] = None,
    id_field: Annotated[str | None, typer.Option(metavar="F", help="The input's field that names each item.")] = None,
    keep: Annotated[str | None, typer.Option(metavar="A,B", help="Input fields to carry over to the results.")] = None,
    queue: Annotated[str, typer.Option(help="Which workers' queue.")] = "default",
    priority: Annotated[int, typer.Option(min=-100, max=100, help="Higher goes first.")] = 0,
    weight: Annotated[float, typer.Option(help="Share of the work beside other jobs.")] = 1.0,
    label: Annotated[list[str] | None, typer.Option(metavar="K=V", help="May be repeated.")] = None,
    key: Annotated[str | None, typer.Option(help="Idempotency key: the same key never makes a second job.")] = None,
    deadline: Annotated[datetime | None, typer.Option(help="The job expires then (UTC).")] = None,
    form: Annotated[
        str | None,
        typer.Option("--format", metavar="jsonl|csv|text", help="Of the inputs, if their names do not tell."),
    ] = None,
    on_invalid: Annotated[str, typer.Option(metavar="reject|skip", help="Lines that cannot be items.")] = "reject",
    as_json: AsJson = False,
) -> None:
    """Submit a job and leave. Prints its id; whoever works on the queue does the rest."""
    from jobs.cli.submission import Submission, interrupted, submitted

    wish = Submission(
        task=task,
        inputs=tuple(inputs),
        model=model,
        params=parse(param or ()),
        text_field=text_field,
        id_field=id_field,
        format=form,
        on_invalid=on_invalid_of(on_invalid),
        options={
            "keep": words(keep),
            "queue": queue,
            "priority": priority,
            "weight": weight,
            "labels": labels(label or ()),
            "idempotency_key": key,
            "deadline_at": as_utc(deadline),
        },
    )
    with store() as database, client(database) as opened:
        try:
            with interruptible():
                job = submitted(opened, wish)
        except KeyboardInterrupt as error:
            typer.echo(f"textmill: {interrupted(key)}", err=True)
            raise typer.Exit(INTERRUPTED) from error
        _tell_new(database, job, as_json=as_json)


def status(job: JobId, as_json: AsJson = False) -> None:
    """One job as it stands now."""
    from jobs.cli.view import view

    with client() as opened:
        found = opened.get(job).refresh()
        typer.echo(found.model_dump_json() if as_json else view(found))


def watch(job: JobId, as_json: AsJson = False) -> None:
    """Follow a job to its end. Exit code as for `run`; Ctrl-C stops watching and leaves the job alone."""
    from jobs.cli.load import load_of
    from jobs.cli.progress import reporter
    from jobs.cli.view import exit_code

    with store() as database, client(database) as opened:
        handle = opened.get(job)
        shown = reporter(sys.stdout, as_json=as_json)
        absence = Absence(database, handle.refresh().queue)
        try:
            while not (now := handle.refresh()).state.final:
                shown.show(now, load_of(database, now.queue))
                if now.control == Control.RUN and (missing := absence.noticed()):
                    shown.note(missing)
                time.sleep(WATCH_S)
            shown.show(now)
        finally:
            shown.close()
    raise typer.Exit(exit_code(now))


def results(
    job: JobId,
    output: Annotated[str, typer.Option("-o", "--output", metavar="OUT", help="A .jsonl or .csv file.")] = "-",
    status: Annotated[str | None, typer.Option(metavar="ok|error", help="Only these.")] = None,
    latest: Annotated[bool, typer.Option("--latest", help="Lay the results of retries over the job's own.")] = False,
) -> None:
    """A job's results so far, in the order of its items."""
    if status not in (None, "ok", "error"):
        raise typer.BadParameter(f"{status!r} is neither 'ok' nor 'error'", param_hint="--status")
    from jobs.cli.output import open_sink, write
    from jobs.tasks import find

    only: Literal["ok", "error"] | None = "ok" if status == "ok" else "error" if status == "error" else None
    with client() as opened:
        handle = opened.get(job)
        found = handle.refresh()
        sink = open_sink(output, find(found.task), found.keep)
        rows = handle.latest_rows() if latest else handle.rows(only)
        tally = write((row for row in rows if only in (None, row.status)), sink)
    if output != "-":
        typer.echo(f"{tally.ok + sum(tally.errors.values()):,} results in {output}", err=True)
    if not found.state.final:
        typer.echo(f"textmill: {found.id} is {found.state}; these are the results so far", err=True)


def list_jobs(
    state: Annotated[list[str] | None, typer.Option(help="Only these states; may be repeated.")] = None,
    task: Annotated[str | None, typer.Option(help="Only this task.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Jobs, newest first."""
    from jobs.cli.view import listing, states_of
    from jobs.tasks import find

    with client() as opened:
        chosen = states_of(state) if state else None
        found = opened.list(states=chosen, task=find(task).name if task else None, limit=limit)
    if as_json:
        for job in found:
            typer.echo(job.model_dump_json())
    else:
        typer.echo(listing(found))


def retry(job: JobId, as_json: AsJson = False) -> None:
    """A new job of the items that have no ok result. `results --latest` shows both together."""
    with store() as database, client(database) as opened:
        _tell_new(database, opened.retry(job).refresh(), as_json=as_json)


_MOVES = {
    "pause": "Stop handing out a job's work; what runs is put back.",
    "resume": "Go on with a paused job.",
    "cancel": "End a job; its results so far are kept.",
}


def _command(move: str) -> Callable[..., None]:
    def command(job: JobId, as_json: AsJson = False) -> None:
        with client() as opened:
            found: Job = getattr(opened, move)(job)
            typer.echo(found.model_dump_json() if as_json else f"{found.id} {_now(found)}")

    return command


def _now(job: "Job") -> str:
    return "paused" if job.control == "pause" and not job.state.final else str(job.state)


def _tell_new(database: "Store", job: "Job", *, as_json: bool) -> None:
    """The id alone on stdout, for scripts; what to do with it on stderr, for people."""
    typer.echo(job.model_dump_json() if as_json else job.id)
    if as_json:
        return
    typer.echo(f"textmill: {job.counts.total:,} items {job.state}; see it through: textmill watch {job.id}", err=True)
    if not job.state.final and not anyone_serves(database, job.queue):
        typer.echo(f"textmill: {nobody(job.queue)}", err=True)
