"""Lists as the SDK pages through them."""

from typing import Any


def page(data: list[dict[str, Any]], *, more: bool = False) -> dict[str, Any]:
    """A page; `more`: others follow behind its last."""
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"object": "list", "data": data, "first_id": first, "last_id": last, "has_more": more}
