"""`textmill tenants`: what each tenant may do."""

from typing import TYPE_CHECKING

import click

from jobs.cli.group import InOrder
from jobs.cli.session import store
from jobs.cli.table import table

if TYPE_CHECKING:
    from jobs.schemas import Tenant


@click.group(cls=InOrder)
def tenants() -> None:
    """What each tenant may do; one that is not listed has no limits."""


@tenants.command("set")
@click.argument("name")
@click.option("--weight", type=click.FloatRange(min=0, min_open=True, max=1000), default=1.0, help="Share of the work.")
@click.option("--max-items", type=click.IntRange(min=0), metavar="N", help="Most items in line [no limit].")
@click.option("--max-tokens", type=click.IntRange(min=0), metavar="N", help="Most estimated tokens in line [no limit].")
@click.option("--requests", type=click.IntRange(min=1), metavar="N", help="Most HTTP requests a minute [no limit].")
@click.option("--model", multiple=True, metavar="NAME", help="It may use only these, `*` in them for anything [all].")
def put(
    name: str,
    weight: float,
    max_items: int | None,
    max_tokens: int | None,
    requests: int | None,
    model: tuple[str, ...],
) -> None:
    """Set what a tenant may do. What is not given is as for a tenant that is not listed."""
    from pydantic import ValidationError

    from jobs.errors import InvalidParams
    from jobs.schemas import Tenant
    from jobs.tasks import explain

    try:
        wanted = Tenant(
            name=name,
            weight=weight,
            max_items=max_items,
            max_tokens=max_tokens,
            requests_per_minute=requests,
            models=model or None,
        )
    except ValidationError as error:
        raise InvalidParams("\n".join(explain(error))) from error
    with store() as opened:
        opened.tenants.put(wanted)
    click.echo(_said([wanted]))


@tenants.command("list")
def index() -> None:
    """The tenants that something was set for."""
    with store() as opened:
        found = opened.tenants.list()
    click.echo(_said(found) if found else "every tenant has weight 1 and no limits")


@tenants.command()
@click.argument("name")
def show(name: str) -> None:
    """What a tenant may do, and what it has in line."""
    with store() as opened:
        found, used = opened.tenants.get(name), opened.tenants.used(name)
    click.echo(_said([found]))
    click.echo(f"in line: {used.items:,} items, about {used.tokens:,} tokens")


@tenants.command()
@click.argument("name")
def remove(name: str) -> None:
    """No limits for this tenant from now on; its jobs and keys stay."""
    with store() as opened:
        known = opened.tenants.remove(name)
    click.echo(f"{name} has no limits" if known else f"{name} had none")


def _said(found: "list[Tenant]") -> str:
    rows = [
        (
            each.name,
            f"{each.weight:g}",
            *("" if most is None else f"{most:,}" for most in (each.max_items, each.max_tokens)),
            "" if each.requests_per_minute is None else f"{each.requests_per_minute:,}",
            "all" if each.models is None else " ".join(each.models),
        )
        for each in found
    ]
    return table(("TENANT", "WEIGHT", "MAX ITEMS", "MAX TOKENS", "REQUESTS/MIN", "MODELS"), rows)
