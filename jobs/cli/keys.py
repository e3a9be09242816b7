"""`textmill keys`: who may use the HTTP API."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from jobs.cli.group import InOrder
from jobs.cli.session import store
from jobs.cli.table import table

if TYPE_CHECKING:
    from jobs.schemas import Key


@click.group(cls=InOrder)
def keys() -> None:
    """The keys of the HTTP API."""


@keys.command()
@click.argument("name", help="What it is for; shown in lists.")
@click.option("--tenant", default="default", metavar="NAME", help="Whose jobs it sees.")
@click.option(
    "--scope",
    type=click.Choice(["read", "submit", "admin"]),
    default="submit",
    help="read: look at jobs and results. submit: submit and steer jobs, too. admin: keys and machines, too.",
)
@click.option("--days", type=click.FloatRange(min=0, min_open=True), help="It is of no use after so many [for ever].")
def create(name: str, tenant: str, scope: str, days: float | None) -> None:
    """A new key. Its secret goes to standard output, this once; from the first key on the API asks for one."""
    expires_at = datetime.now(UTC) + timedelta(days=days) if days else None
    with store() as opened:
        key, secret = opened.keys.create(tenant, name, [scope], expires_at=expires_at)  # type: ignore[list-item]
    click.echo(f"textmill: {key.id} of tenant {tenant!r}, scope {scope}; it is not shown again:", err=True)
    click.echo(secret)


@keys.command("list")
@click.option("--tenant", metavar="NAME", help="Only this tenant's.")
def index(tenant: str | None) -> None:
    """The keys, without their secrets."""
    with store() as opened:
        found = opened.keys.list(tenant)
    rows = [(key.id, key.tenant, key.name, " ".join(key.scopes), f"{key.created_at:%F}", _state(key)) for key in found]
    click.echo(table(("KEY", "TENANT", "NAME", "SCOPE", "CREATED", "STATE"), rows) if rows else "no key was ever made")


@keys.command()
@click.argument("key")
def revoke(key: str) -> None:
    """Make a key useless; servers notice within seconds."""
    with store() as opened:
        revoked = opened.keys.revoke(key)
    click.echo(f"{revoked.id} ({revoked.name}) is revoked")


def _state(key: "Key") -> str:
    if key.revoked_at is not None:
        return f"revoked {key.revoked_at:%F}"
    if key.expires_at is None:
        return "in force"
    return f"{'until' if key.expires_at > datetime.now(UTC) else 'expired'} {key.expires_at:%F}"
