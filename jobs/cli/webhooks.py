"""`textmill webhooks`: who is told when a job has ended."""

from typing import TYPE_CHECKING

import click

from jobs.cli.group import InOrder
from jobs.cli.session import store
from jobs.cli.table import table

if TYPE_CHECKING:
    from jobs.schemas import Delivery, Webhook

DELIVERIES_SHOWN = 50


@click.group(cls=InOrder)
def webhooks() -> None:
    """Who is told when a job has ended."""


@webhooks.command()
@click.argument("url")
@click.option("--tenant", default="default", metavar="NAME", help="Whose jobs it hears of.")
@click.option(
    "--event",
    multiple=True,
    metavar="EVENT",
    help="job.completed, job.failed, job.expired, job.cancelled, batch.completed, ...; may be repeated [all].",
)
@click.option("--only-named", is_flag=True, help="Listen to jobs alone that name it: submit --webhook ID.")
def add(url: str, tenant: str, event: tuple[str, ...], only_named: bool) -> None:
    """Tell this URL of events. The secret that signs what is sent goes to standard output, this once."""
    from jobs.schemas import EVENTS
    from jobs.settings import load_settings
    from jobs.webhooks.guard import Guard

    if wrong := sorted(set(event) - set(EVENTS)):
        raise click.BadParameter(f"unknown event {wrong[0]!r}; known: {', '.join(EVENTS)}")
    settings = load_settings()
    Guard(settings.webhook_networks).check(url)
    with store(settings) as opened:
        made, secret = opened.webhooks.create(tenant, url, () if only_named else event or EVENTS)
    click.echo(f"textmill: {made.id} of tenant {tenant!r}; its secret is not shown again:", err=True)
    click.echo(secret)


@webhooks.command("list")
@click.option("--tenant", metavar="NAME", help="Only this tenant's.")
def index(tenant: str | None) -> None:
    """The webhooks, without their secrets."""
    with store() as opened:
        found = opened.webhooks.list(tenant)
    rows = [(each.id, each.tenant, each.url, _events(each), _state(each)) for each in found]
    click.echo(table(("WEBHOOK", "TENANT", "URL", "EVENTS", "STATE"), rows) if rows else "there are no webhooks")


@webhooks.command()
@click.argument("webhook")
def remove(webhook: str) -> None:
    """Take it away, with what waits for it."""
    with store() as opened:
        opened.webhooks.delete(webhook)
    click.echo(f"{webhook} is removed")


@webhooks.command()
@click.argument("webhook")
def enable(webhook: str) -> None:
    """Go on with one that was disabled: what has waited for it is sent."""
    with store() as opened:
        found = opened.webhooks.enable(webhook)
    click.echo(f"{found.id} is enabled")


@webhooks.command()
@click.argument("webhook")
def test(webhook: str) -> None:
    """Send it an event that tells of nothing; `deliveries` shows what came of it."""
    with store() as opened:
        made = opened.webhooks.test(webhook)
    click.echo(f"{made.id} is on its way; see: textmill webhooks deliveries {webhook}")


@webhooks.command()
@click.argument("webhook")
def deliveries(webhook: str) -> None:
    """What was sent to it lately, newest first."""
    with store() as opened:
        opened.webhooks.get(webhook)
        found = opened.webhooks.deliveries(webhook, limit=DELIVERIES_SHOWN)
    rows = [(each.id, each.event, each.subject, str(each.state), str(each.attempts), _came_of(each)) for each in found]
    heads = ("DELIVERY", "EVENT", "ABOUT", "STATE", "TRIES", "LAST ANSWER")
    click.echo(table(heads, rows) if rows else "nothing was sent to it")


@webhooks.command()
@click.argument("webhook")
@click.argument("delivery")
def redeliver(webhook: str, delivery: str) -> None:
    """Send a delivery again, at once, however it ended."""
    with store() as opened:
        opened.webhooks.redeliver(webhook, delivery)
    click.echo(f"{delivery} is on its way")


def _events(webhook: "Webhook") -> str:
    from jobs.schemas import EVENTS

    if not webhook.events:
        return "jobs that name it"
    return "all" if set(webhook.events) == set(EVENTS) else " ".join(webhook.events)


def _state(webhook: "Webhook") -> str:
    if webhook.disabled_at is not None:
        return f"disabled {webhook.disabled_at:%F}: {webhook.disabled_because}"
    return f"failing ({webhook.failures} tries)" if webhook.failures else "in force"


def _came_of(delivery: "Delivery") -> str:
    return delivery.error or ("" if delivery.status is None else str(delivery.status))
