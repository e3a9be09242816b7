"""The webhooks of the caller's tenant, and what was sent to them."""

from typing import Annotated

from fastapi import APIRouter, Query

from jobs.api.native.shapes import DeliveryPage, NewWebhook, WebhookWanted
from jobs.api.problems import documented
from jobs.api.service import Admin, Serves
from jobs.schemas import Delivery, Webhook
from jobs.states import DeliveryState
from jobs.webhooks.guard import Guard

MOST = 100

router = APIRouter(prefix="/webhooks", tags=["webhooks"])


@router.get("", summary="The webhooks, without their secrets")
def index(service: Serves, caller: Admin) -> list[Webhook]:
    return service.store.webhooks.list(caller.tenant)


@router.post("", status_code=201, summary="A new webhook; its secret is shown this once")
def create(wanted: WebhookWanted, service: Serves, caller: Admin) -> NewWebhook:
    Guard(service.settings.webhook_networks).check(wanted.url)
    webhook, secret = service.store.webhooks.create(caller.tenant, wanted.url, wanted.events)
    return NewWebhook(**webhook.model_dump(), secret=secret)


@router.get("/{webhook_id}", responses=documented(404))
def look(webhook_id: str, service: Serves, caller: Admin) -> Webhook:
    return service.store.webhooks.get(webhook_id, caller.tenant)


@router.delete("/{webhook_id}", status_code=204, responses=documented(404), summary="Delete it, and what waits for it")
def delete(webhook_id: str, service: Serves, caller: Admin) -> None:
    service.store.webhooks.delete(webhook_id, caller.tenant)


@router.post("/{webhook_id}/enable", responses=documented(404), summary="Go on with one that was disabled")
def enable(webhook_id: str, service: Serves, caller: Admin) -> Webhook:
    return service.store.webhooks.enable(webhook_id, caller.tenant)


@router.post("/{webhook_id}/disable", responses=documented(404), summary="Send it nothing for the time being")
def disable(webhook_id: str, service: Serves, caller: Admin) -> Webhook:
    return service.store.webhooks.disable(webhook_id, "by hand", caller.tenant)


@router.post(
    "/{webhook_id}/test", status_code=201, responses=documented(404), summary="Send it an event `webhook.test`"
)
def test(webhook_id: str, service: Serves, caller: Admin) -> Delivery:
    return service.store.webhooks.test(webhook_id, caller.tenant)


@router.get("/{webhook_id}/deliveries", responses=documented(404), summary="What was sent, newest first")
def deliveries(
    webhook_id: str,
    service: Serves,
    caller: Admin,
    state: DeliveryState | None = None,
    limit: Annotated[int, Query(ge=1, le=MOST)] = 20,
    before: Annotated[str | None, Query(pattern=r"^msg_[0-9a-f]{32}$", description="`next` of the last page.")] = None,
) -> DeliveryPage:
    service.store.webhooks.get(webhook_id, caller.tenant)
    found = service.store.webhooks.deliveries(webhook_id, state=state, limit=limit + 1, before=before)
    return DeliveryPage(data=found[:limit], next=found[limit - 1].id if len(found) > limit else None)


@router.post(
    "/{webhook_id}/deliveries/{delivery_id}/redeliver", responses=documented(404), summary="Send it again, at once"
)
def redeliver(webhook_id: str, delivery_id: str, service: Serves, caller: Admin) -> Delivery:
    service.store.webhooks.get(webhook_id, caller.tenant)
    return service.store.webhooks.redeliver(webhook_id, delivery_id)
