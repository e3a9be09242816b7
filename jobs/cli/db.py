"""`textmill db`: the database's schema, its truth, copies of it, and what is deleted."""

import sys
from pathlib import Path

import click

from jobs.cli import ERROR
from jobs.cli.group import InOrder
from jobs.cli.session import store

DAY_S = 86_400.0


@click.group(cls=InOrder)
def db() -> None:
    """The database: its schema, checks, copies, old jobs."""


@db.command()
def upgrade() -> None:
    """Bring the database to this version's schema. Safe to repeat; several at once wait for each other."""

    with store() as opened:
        before = opened.revision()
        opened.upgrade()
        after = opened.revision()
    click.echo(f"the database is at revision {after}" + ("" if before == after else f" (was {before or 'empty'})"))


@db.command()
def check() -> None:
    """Whether the schema is this version's and the rows are as they must be; exit code 1 when not. Safe at any time."""

    with store() as opened:
        opened.check_schema()
        click.echo(f"the database is at revision {opened.revision()}, as this version needs it")
        problems = opened.check()
    for problem in problems:
        click.echo(problem, err=True)
    if problems:
        sys.exit(ERROR)
    click.echo("every job's items, chunks and results agree")


@db.command()
@click.argument("file", type=click.Path(path_type=Path), help="A new file.")
def backup(file: Path) -> None:
    """Copy a SQLite database to FILE while it is in use. PostgreSQL: use pg_dump.

    To restore, stop Textmill and put the copy in the database's place. Jobs that ran go on where the copy has them.
    """

    with store() as opened:
        opened.backup(file)
    click.echo(f"{file}: {file.stat().st_size / 1e6:,.1f} MB")


@db.command()
@click.option(
    "--older-than", "days", metavar="DAYS", type=click.FloatRange(0, min_open=True), required=True, help="Days."
)
@click.option("--dry-run", is_flag=True, help="Only say how many jobs that would be.")
def prune(days: float, dry_run: bool) -> None:
    """Delete jobs that ended so many days ago, with their items and results, in small pieces.

    Upkeep does it by itself when TEXTMILL_RETENTION_DAYS is set.
    """

    with store() as opened:
        if dry_run:
            click.echo(f"{_jobs(opened.retention.due(days * DAY_S))} would be deleted")
            return
        jobs = rows = 0
        while marked := opened.retention.mark(days * DAY_S):
            jobs += marked
        while swept := opened.retention.sweep():
            rows += swept
    click.echo(f"{_jobs(jobs)} deleted, {rows:,} rows")


def _jobs(number: int) -> str:
    return f"{number:,} job" + ("s" if number != 1 else "")
