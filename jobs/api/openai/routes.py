"""All routes of the OpenAI-compatible API."""

from fastapi import APIRouter

from jobs.api.openai import batches, direct, files, models, uploads

PREFIX = "/v1"

router = APIRouter(prefix=PREFIX, include_in_schema=False)
for each in (files, uploads, batches, direct, models):
    router.include_router(each.router)
