"""The models, as OpenAI lists them."""

from typing import Any

from fastapi import APIRouter

from jobs.api.openai.paging import page
from jobs.api.service import Reader, Serves

router = APIRouter(prefix="/models")


@router.get("")
def index(service: Serves, caller: Reader) -> dict[str, Any]:
    return page([_shown(spec.name) for spec in service.client.registry_of(caller.tenant).list()])


@router.get("/{name:path}")
def retrieve(name: str, service: Serves, caller: Reader) -> dict[str, Any]:
    return _shown(service.client.registry_of(caller.tenant).get(name).name)


def _shown(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "textmill"}
