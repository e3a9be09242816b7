"""API keys and webhooks of the caller's tenant."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Form
from fastapi.responses import Response

from jobs.api.problems import HttpProblem
from jobs.schemas import Key, Scope
from jobs.web.pages import Look, Looks, moved, page, rendered

SCOPES: dict[Scope, str] = {
    "read": "look at jobs and results",
    "submit": "submit and steer jobs, too",
    "admin": "manage keys and see the machines, too",
}
LONGEST_NAME = 100
MOST_DAYS = 3650

router = APIRouter()


@page(router, "/keys", "keys.html", need="admin")
def keys(look: Look) -> Mapping[str, Any]:
    return {"keys": look.service.store.keys.list(look.caller.tenant), "standing": _standing, "scopes": SCOPES}


@router.post("/keys")
def create(
    look: Looks,
    name: Annotated[str, Form()],
    scope: Annotated[Scope, Form()],
    days: Annotated[str, Form()] = "",
) -> Response:
    """A new key, shown this once."""
    look.caller.need("admin")
    if not name.strip() or len(name) > LONGEST_NAME or "\0" in name:
        raise HttpProblem(422, "invalid_request", f"a key's name has 1 to {LONGEST_NAME} characters")
    if days and not (days.isascii() and days.isdigit() and 1 <= int(days[:6]) <= MOST_DAYS):
        raise HttpProblem(422, "invalid_request", f"days is {days[:20]!r}; it is 1 to {MOST_DAYS:,}, or left out")
    expires_at = datetime.now(UTC) + timedelta(days=int(days)) if days else None
    made, secret = look.service.store.keys.create(look.caller.tenant, name.strip(), [scope], expires_at=expires_at)
    return rendered("key.html", look.request, look, key=made, secret=secret)


@router.post("/keys/{key_id}/revoke")
def revoke(key_id: str, look: Looks) -> Response:
    look.caller.need("admin")
    look.service.store.keys.revoke(key_id, look.caller.tenant)
    return moved("/keys")


def _standing(key: Key) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= datetime.now(UTC) else "in force"
