"""The models that the caller's jobs may name."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter

from jobs.tasks import all_tasks
from jobs.web.pages import Look, page

router = APIRouter()


@page(router, "/models", "models.html")
def models(look: Look) -> Mapping[str, Any]:
    found = look.service.client.registry_of(look.caller.tenant).list()
    return {"models": found, "tasks": [each.name for each in all_tasks()]}
