"""`textmill db`: the database's schema."""

import typer

from jobs.cli.session import store


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(help="The database's schema.", no_args_is_help=True, rich_markup_mode=None)
    group.command("upgrade")(upgrade)
    group.command("check")(check)
    app.add_typer(group, name="db")


def upgrade() -> None:
    """Bring the database to this version's schema. Safe to repeat; several at once wait for each other."""

    with store() as opened:
        before = opened.revision()
        opened.upgrade()
        after = opened.revision()
    typer.echo(f"the database is at revision {after}" + ("" if before == after else f" (was {before or 'empty'})"))


def check() -> None:
    """Whether the database has this version's schema; exit code 1 when not."""

    with store() as opened:
        opened.check_schema()
        typer.echo(f"the database is at revision {opened.revision()}, as this version needs it")
