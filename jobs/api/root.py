"""What lies beside the two APIs: health and metrics."""

from fastapi import APIRouter, Response

from jobs.api.metrics import TYPE
from jobs.api.service import Admin, Serves

router = APIRouter(include_in_schema=False)


@router.get("/metrics")
def metrics(service: Serves, caller: Admin) -> Response:
    """Of all tenants, so for admins."""
    return Response(service.metrics.text(), media_type=TYPE)


@router.get("/health/live")
async def live() -> dict[str, str]:
    return {"status": "live"}


@router.get("/health/ready")
def ready(service: Serves) -> dict[str, str]:
    service.store.check_schema()
    return {"status": "ready"}
