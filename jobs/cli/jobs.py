"""`textmill status`, `watch`, `results`, `list`, `pause`, ...: the jobs there are, of any deployment."""

import sys
import time
from typing import TYPE_CHECKING, Literal

import click

from jobs.cli import options
from jobs.cli.session import client, store
from jobs.cli.workers import Absence
from jobs.states import Control

if TYPE_CHECKING:
    from jobs.schemas import Job

WATCH_S = 0.5


@click.command()
@options.job
@options.as_json()
def status(job: str, as_json: bool) -> None:
    """One job as it stands now."""
    from jobs.cli.view import view

    with store() as database, client(database) as opened:
        found = opened.get(job).refresh()
        click.echo(found.model_dump_json() if as_json else view(found, database.exports.get(found.id)))


@click.command()
@options.job
def deliver(job: str) -> None:
    """Have upkeep write an ended job's results to its sink once more, those of retries laid over them."""
    with store() as database, client(database) as opened:
        export = database.exports.again(opened.get(job).id)
    click.echo(f"{export.job_id}: its results go to {export.target}; see: textmill status {export.job_id}")


@click.command()
@options.job
@options.as_json()
def watch(job: str, as_json: bool) -> None:
    """Follow a job to its end. Exit code as for `run`; Ctrl-C stops watching and leaves the job alone."""
    from jobs.cli.load import load_of
    from jobs.cli.progress import waiting, waits
    from jobs.cli.reporters import reporter
    from jobs.cli.view import exit_code

    with store() as database, client(database) as opened:
        handle = opened.get(job)
        shown = reporter(sys.stdout, as_json=as_json)
        absence, told = Absence(database, handle.refresh().queue), False
        try:
            while not (now := handle.refresh()).state.final:
                shown.show(now, load_of(database, now.queue))
                if now.control == Control.RUN and (missing := absence.noticed()):
                    shown.note(missing)
                if waits(now) and not told:
                    shown.note(waiting(now))
                told = waits(now)
                time.sleep(WATCH_S)
            shown.show(now)
        finally:
            shown.close()
    raise click.exceptions.Exit(exit_code(now))


@click.command()
@options.job
@options.output
@click.option("--status", "only", metavar="ok|error", type=click.Choice(["ok", "error"]), help="Only these.")
@click.option("--latest", is_flag=True, help="Lay the results of retries over the job's own.")
def results(job: str, output: str, only: Literal["ok", "error"] | None, latest: bool) -> None:
    """A job's results so far, in the order of its items."""
    from jobs.cli.output import open_sink, write
    from jobs.tasks import find

    with client() as opened:
        handle = opened.get(job)
        found = handle.refresh()
        sink = open_sink(output, find(found.task), found.keep)
        rows = handle.latest_rows() if latest else handle.rows(only)
        tally = write((row for row in rows if only in (None, row.status)), sink)
    if output != "-":
        click.echo(f"{tally.ok + sum(tally.errors.values()):,} results in {output}", err=True)
    if not found.state.final:
        click.echo(f"textmill: {found.id} is {found.state}; these are the results so far", err=True)


@click.command("list")
@click.option("--state", metavar="STATE", multiple=True, help="Only these states; may be repeated.")
@click.option("--task", metavar="TASK", help="Only this task.")
@click.option("--limit", metavar="N", type=click.IntRange(1, 10_000), default=20, help="At most so many.")
@options.as_json()
def list_jobs(state: tuple[str, ...], task: str | None, limit: int, as_json: bool) -> None:
    """Jobs, newest first."""
    from jobs.cli.view import listing, states_of
    from jobs.tasks import find

    with client() as opened:
        chosen = states_of(state) if state else None
        found = opened.list(states=chosen, task=find(task).name if task else None, limit=limit)
    if as_json:
        for job in found:
            click.echo(job.model_dump_json())
    else:
        click.echo(listing(found))


@click.command()
@options.job
@options.as_json()
def pause(job: str, as_json: bool) -> None:
    """Stop handing out a job's work; what runs is put back."""
    with client() as opened:
        _tell(opened.pause(job), as_json=as_json)


@click.command()
@options.job
@options.as_json()
def resume(job: str, as_json: bool) -> None:
    """Go on with a paused job."""
    with client() as opened:
        _tell(opened.resume(job), as_json=as_json)


@click.command()
@options.job
@options.as_json()
def approve(job: str, as_json: bool) -> None:
    """Let the rest of a job follow its canary."""
    with client() as opened:
        _tell(opened.approve(job), as_json=as_json)


@click.command()
@options.job
@options.as_json()
def cancel(job: str, as_json: bool) -> None:
    """End a job; its results so far are kept."""
    with client() as opened:
        _tell(opened.cancel(job), as_json=as_json)


def _tell(job: "Job", *, as_json: bool) -> None:
    now = "paused" if job.control == Control.PAUSE and not job.state.final else str(job.state)
    click.echo(job.model_dump_json() if as_json else f"{job.id} {now}")
