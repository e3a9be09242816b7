"""`textmill seen`: what incremental jobs know of their corpora."""

import json
from typing import TYPE_CHECKING

import click

from jobs.cli import options
from jobs.cli.session import store
from jobs.cli.table import table

if TYPE_CHECKING:
    from jobs.store import Store

TENANT = "default"
"""Whose corpora the command line's are, as its jobs are."""


@click.command()
@click.argument("name", required=False, help="A corpus; all of them, if it is left out.")
@click.option("--vanished", is_flag=True, help="List the items that the last input did not have any more.")
@click.option("--forget", is_flag=True, help="Make all its items new again.")
@options.as_json()
def seen(name: str | None, vanished: bool, forget: bool, as_json: bool) -> None:
    """What `--incremental NAME` knows: how many items there are, are done, have vanished."""
    if (vanished or forget) and (name is None or vanished == forget):
        raise click.UsageError("--vanished and --forget are each for one NAME, and for themselves")
    with store() as database:
        if name is not None and vanished:
            _list_vanished(database, name, as_json=as_json)
        elif name is not None and forget:
            click.echo(f"textmill: {database.seen.forget(TENANT, name):,} items of {name!r} are forgotten", err=True)
        else:
            _tell(database, database.seen.names(TENANT) if name is None else [name], as_json=as_json)


def _list_vanished(database: "Store", name: str, *, as_json: bool) -> None:
    """A line each: what it is called, or where its result is."""
    for item in database.seen.vanished(TENANT, name):
        told = {"custom_id": item.custom_id, "job": item.job_id, "seq": item.seq}
        click.echo(json.dumps(told) if as_json else item.custom_id or f"{item.job_id or 'deleted'}/{item.seq}")


def _tell(database: "Store", names: list[str], *, as_json: bool) -> None:
    tallies = [(name, database.seen.tally(TENANT, name)) for name in names]
    if as_json:
        for name, tally in tallies:
            click.echo(json.dumps({"name": name, **tally._asdict()}))
        return
    click.echo(table(("NAME", "ITEMS", "OK", "VANISHED"), [(name, *tally) for name, tally in tallies]))
