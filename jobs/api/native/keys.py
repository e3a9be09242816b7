"""The keys of the caller's tenant."""

from fastapi import APIRouter

from jobs.api.native.shapes import KeyWanted, NewKey
from jobs.api.problems import documented
from jobs.api.service import Admin, Serves
from jobs.schemas import Key

router = APIRouter(prefix="/keys", tags=["keys"])


@router.get("", summary="The keys, without their secrets")
def index(service: Serves, caller: Admin) -> list[Key]:
    return service.store.keys.list(caller.tenant)


@router.post("", status_code=201, summary="A new key; its secret is shown this once")
def create(wanted: KeyWanted, service: Serves, caller: Admin) -> NewKey:
    key, secret = service.store.keys.create(caller.tenant, wanted.name, wanted.scopes, expires_at=wanted.expires_at)
    return NewKey(**key.model_dump(), secret=secret)


@router.delete("/{key_id}", responses=documented(404), summary="Revoke a key")
def revoke(key_id: str, service: Serves, caller: Admin) -> Key:
    return service.store.keys.revoke(key_id, caller.tenant)
