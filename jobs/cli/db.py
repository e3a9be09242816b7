"""`textmill db`: the database's schema."""

import click

from jobs.cli.group import InOrder
from jobs.cli.session import store


@click.group(cls=InOrder)
def db() -> None:
    """The database's schema."""


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
    """Whether the database has this version's schema; exit code 1 when not."""

    with store() as opened:
        opened.check_schema()
        click.echo(f"the database is at revision {opened.revision()}, as this version needs it")
