"""Webhooks and what is on its way to them."""

import base64
import builtins
import secrets
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Row, delete, exists, or_, select, update

from jobs.errors import InvalidParams, UnknownWebhook
from jobs.schemas import EVENTS, Delivery, Webhook
from jobs.states import DeliveryState
from jobs.store import outbox
from jobs.store.clock import later, now
from jobs.store.dialect import Database
from jobs.store.encoding import storable
from jobs.store.tables import deliveries, webhooks

SECRET_PREFIX = "whsec_"
GONE = "its server answered 410 Gone"
PRUNED_AT_ONCE = 1000
MOST_OF_A_TENANT = 100
"""An end of a job is written down for each of them, while others wait for theirs."""

_SHOWN = [webhooks.c[name] for name in Webhook.model_fields]
_DELIVERY = [deliveries.c[name] for name in Delivery.model_fields]
_IS_DUE = (deliveries.c.state == DeliveryState.PENDING) & (deliveries.c.due_at <= now())


class Target(NamedTuple):
    """A webhook that something is due for."""

    id: str
    url: str
    secret: str
    failures: int
    """Failed tries since the last one that was taken."""


class Due(NamedTuple):
    """A delivery that this sender has taken: nobody else tries it until its time is over."""

    id: str
    body: str
    attempts: int
    """This one included."""


class Webhooks:
    """The webhooks of all tenants; `tenant` None looks at all of them.

    A webhook is locked before its deliveries, always.
    """

    def __init__(self, database: Database) -> None:
        self._db = database

    def create(self, tenant: str, url: str, events: Sequence[str] = EVENTS) -> tuple[Webhook, str]:
        """The new webhook, and the secret that signs what is sent to it. The URL was checked before.

        Raises InvalidParams for one more than a tenant may have.
        """
        if len(self.list(tenant)) >= MOST_OF_A_TENANT:
            raise InvalidParams(f"tenant {tenant!r} has {MOST_OF_A_TENANT} webhooks, and may have no more")
        secret = SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()
        values = {"id": f"wh_{secrets.token_hex(8)}", "tenant": tenant, "url": url, "secret": secret}
        made = self._db.insert(webhooks).values(**values, events=list(dict.fromkeys(events)), created_at=now())
        return _shown(self._db.write(lambda connection: connection.execute(made.returning(*_SHOWN)).one())), secret

    def get(self, webhook_id: str, tenant: str | None = None) -> Webhook:
        """Raises UnknownWebhook, also for one of another tenant."""
        row = self._db.read(
            lambda connection: connection.execute(select(*_SHOWN).where(_mine(webhook_id, tenant))).one_or_none()
        )
        return _shown(_there(row, webhook_id))

    def list(self, tenant: str | None = None) -> builtins.list[Webhook]:
        """The oldest first."""
        wanted = select(*_SHOWN).order_by(webhooks.c.created_at, webhooks.c.id)
        if tenant is not None:
            wanted = wanted.where(webhooks.c.tenant == tenant)
        return [_shown(row) for row in self._db.read(lambda connection: connection.execute(wanted).all())]

    def enable(self, webhook_id: str, tenant: str | None = None) -> Webhook:
        """The webhook, tried again from now on with all that has waited for it. Safe to repeat."""
        values = {"disabled_at": None, "disabled_because": None, "failures": 0, "not_before": None}
        return self._change(webhook_id, tenant, values)

    def disable(self, webhook_id: str, because: str, tenant: str | None = None) -> Webhook:
        """The webhook, which nothing is sent to any more."""
        return self._change(webhook_id, tenant, {"disabled_at": now(), "disabled_because": because})

    def delete(self, webhook_id: str, tenant: str | None = None) -> None:
        """Take it away, with what was on its way to it. Raises UnknownWebhook."""

        def work(connection: Any) -> None:
            found = connection.execute(select(webhooks.c.id).where(_mine(webhook_id, tenant)).with_for_update())
            _there(found.one_or_none(), webhook_id)
            connection.execute(delete(deliveries).where(deliveries.c.webhook_id == webhook_id))
            connection.execute(delete(webhooks).where(webhooks.c.id == webhook_id))

        self._db.write(work)

    def test(self, webhook_id: str, tenant: str | None = None) -> Delivery:
        """A delivery that tells of nothing, on its way."""
        self.get(webhook_id, tenant)
        made = self._db.write(lambda connection: outbox.tried(self._db, connection, webhook_id))
        return self.delivery(webhook_id, made)

    def deliveries(
        self, webhook_id: str, *, state: DeliveryState | None = None, limit: int = 100, before: str | None = None
    ) -> builtins.list[Delivery]:
        """What was sent to it, or will be, newest first; `before` is the id to go on from."""
        wanted = select(*_DELIVERY).where(deliveries.c.webhook_id == webhook_id).order_by(deliveries.c.id.desc())
        if state is not None:
            wanted = wanted.where(deliveries.c.state == str(state))
        if before is not None:
            wanted = wanted.where(deliveries.c.id < before)
        found = self._db.read(lambda connection: connection.execute(wanted.limit(limit)).all())
        return [_delivery(row) for row in found]

    def delivery(self, webhook_id: str, delivery_id: str) -> Delivery:
        """Raises UnknownWebhook."""
        wanted = select(*_DELIVERY).where(_of(webhook_id, delivery_id))
        row = self._db.read(lambda connection: connection.execute(wanted).one_or_none())
        return _delivery(_there(row, delivery_id))

    def redeliver(self, webhook_id: str, delivery_id: str) -> Delivery:
        """The delivery, to be sent again at once, however it ended. Raises UnknownWebhook."""
        again = {"state": DeliveryState.PENDING, "due_at": now(), "ended_at": None, "attempts": 0}
        anew = update(deliveries).where(_of(webhook_id, delivery_id)).values(**again).returning(*_DELIVERY)
        soon = update(webhooks).where(webhooks.c.id == webhook_id).values(not_before=None)

        def work(connection: Any) -> Row[Any] | None:
            connection.execute(soon)
            row: Row[Any] | None = connection.execute(anew).one_or_none()
            return row

        return _delivery(_there(self._db.write(work), delivery_id))

    def due(self, limit: int, busy: Collection[str] = ()) -> builtins.list[Target]:
        """Webhooks that something is due for, but for those that are `busy`."""
        waits = exists().where(deliveries.c.webhook_id == webhooks.c.id, _IS_DUE)
        rested = or_(webhooks.c.not_before.is_(None), webhooks.c.not_before <= now())
        wanted = select(*(webhooks.c[name] for name in Target._fields)).where(
            webhooks.c.disabled_at.is_(None), rested, webhooks.c.id.not_in(sorted(busy)), waits
        )
        # Those that fail wait behind those that do not.
        fair = wanted.order_by(webhooks.c.failures, webhooks.c.not_before).limit(limit)
        return [Target._make(row) for row in self._db.read(lambda connection: connection.execute(fair).all())]

    def take(self, webhook_id: str, hold_s: float) -> Due | None:
        """The delivery that has been due longest; if its sender dies, it is due again after so long."""
        open_hook = exists().where(webhooks.c.id == webhook_id, webhooks.c.disabled_at.is_(None))
        first = select(deliveries.c.id).where(deliveries.c.webhook_id == webhook_id, _IS_DUE, open_hook)
        oldest = first.order_by(deliveries.c.due_at, deliveries.c.id).limit(1)
        one = oldest.with_for_update(skip_locked=True, of=deliveries)
        taken = (
            update(deliveries)
            .where(deliveries.c.id == one.scalar_subquery())
            .values(due_at=later(hold_s), attempts=deliveries.c.attempts + 1)
            .returning(deliveries.c.id, deliveries.c.body, deliveries.c.attempts)
        )
        row = self._db.write(lambda connection: connection.execute(taken).one_or_none())
        return None if row is None else Due._make(row)

    def delivered(self, webhook_id: str, due: Due, status: int) -> None:
        """It was taken by the webhook's server."""
        ended = {"state": DeliveryState.DELIVERED, "due_at": None, "ended_at": now(), "status": status, "error": None}
        well = update(webhooks).where(webhooks.c.id == webhook_id, webhooks.c.failures > 0)

        def work(connection: Any) -> None:
            connection.execute(well.values(failures=0, not_before=None))
            connection.execute(_held(due).values(**ended))

        self._db.write(work)

    def failed(
        self, webhook_id: str, due: Due, error: str, *, status: int | None, again_s: float | None, rest_s: float
    ) -> None:
        """It was not taken: tried again in `again_s` (None: never), and the webhook left alone for `rest_s`."""
        over: dict[str, Any] = {"state": DeliveryState.FAILED, "due_at": None, "ended_at": now()}
        values = over if again_s is None else {"due_at": later(again_s)}
        rest = {"failures": webhooks.c.failures + 1, "not_before": later(rest_s)}

        def work(connection: Any) -> None:
            connection.execute(update(webhooks).where(webhooks.c.id == webhook_id).values(**rest))
            connection.execute(_held(due).values(**values, status=status, error=storable(error)[:1000]))

        self._db.write(work)

    def prune(self, older_s: float) -> int:
        """How many deliveries that are so old were forgotten."""
        old = select(deliveries.c.id).where(deliveries.c.created_at < later(-older_s)).limit(PRUNED_AT_ONCE)
        gone = delete(deliveries).where(deliveries.c.id.in_(old))
        return self._db.write(lambda connection: connection.execute(gone).rowcount)

    def _change(self, webhook_id: str, tenant: str | None, values: dict[str, Any]) -> Webhook:
        changed = update(webhooks).where(_mine(webhook_id, tenant)).values(**values).returning(*_SHOWN)
        row = self._db.write(lambda connection: connection.execute(changed).one_or_none())
        return _shown(_there(row, webhook_id))


def _mine(webhook_id: str, tenant: str | None) -> Any:
    found = webhooks.c.id == webhook_id
    return found if tenant is None else found & (webhooks.c.tenant == tenant)


def _of(webhook_id: str, delivery_id: str) -> Any:
    return (deliveries.c.webhook_id == webhook_id) & (deliveries.c.id == delivery_id)


def _held(due: Due) -> Any:
    """The delivery, as long as this try is its last one."""
    mine = (deliveries.c.id == due.id) & (deliveries.c.attempts == due.attempts)
    return update(deliveries).where(mine, deliveries.c.state == DeliveryState.PENDING)


def _there(row: Row[Any] | None, wanted: str) -> Row[Any]:
    if row is None:
        raise UnknownWebhook(f"no webhook or delivery {wanted[:100]!r}")
    return row


def _shown(row: Row[Any]) -> Webhook:
    return Webhook(**row._mapping)


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(**row._mapping)
