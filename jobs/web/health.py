"""Health: what is in force, in which versions, and whether the rows are in order."""

import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from jobs.store import migrate
from jobs.urls import hide
from jobs.web.pages import Look, Looks, page, rendered

PACKAGES = ("textmill", "celery", "redis", "sqlalchemy", "psycopg", "fastapi", "torch", "transformers")
TOLD = 50
"""Things that `db check` found and that are listed."""

router = APIRouter()


@page(router, "/health", "health.html", need="admin")
def health(look: Look) -> Mapping[str, Any]:
    return {**_facts(look), "found": None}


@router.post("/health/check")
def check(look: Looks) -> Response:
    """Look at all rows: takes as long as they are many."""
    look.caller.need("admin")
    found = look.service.store.check()
    return rendered("health.html", look.request, look, **_facts(look), found=found[:TOLD], n_found=len(found))


def _facts(look: Look) -> dict[str, Any]:
    settings, store = look.service.settings, look.service.store
    shown = settings.model_dump(mode="json")
    shown["database_url"] = hide(settings.effective_database_url)
    shown["redis_url"] = hide(settings.redis_url) if settings.redis_url else "the embedded broker of the home"
    if settings.files_url:
        shown["files_url"] = hide(settings.files_url)
    revision = store.revision()
    return {
        "settings": shown,
        "chosen": settings.model_fields_set,
        "dialect": store.dialect,
        "revision": revision,
        "head": migrate.HEAD,
        "versions": {"python": sys.version.split()[0], **{name: _version(name) for name in PACKAGES}},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
