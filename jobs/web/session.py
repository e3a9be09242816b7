"""Who looks at the pages: an API key, kept by the browser in a cookie that no script reads."""

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request

from jobs.api.access import SAFE, Caller
from jobs.api.problems import HttpProblem
from jobs.api.service import Serves

COOKIE = "textmill_key"


def asks(request: Request, service: Serves) -> Caller:
    """Raises HttpProblem: 401 without a key in force where one is needed, 403 for a form of another site, 429."""
    check_form(request)
    secret = request.cookies.get(COOKIE)
    caller = service.access.caller(f"Bearer {secret}" if secret else request.headers.get("authorization"))
    service.limits.count(caller.tenant)
    caller.need("read")
    return caller


Asks = Annotated[Caller, Depends(asks)]


def check_form(request: Request) -> None:
    """Raises HttpProblem (403) for a form that is not one of our own pages.

    Stricter than the API's check, which lets programs without an `Origin` pass: a form always comes from a browser.
    """
    if request.method in SAFE:
        return
    origin = request.headers.get("origin")
    if origin is None:
        own = request.headers.get("sec-fetch-site") == "same-origin"
    else:
        own = urlsplit(origin).netloc.lower() == request.headers.get("host", "").lower()
    if not own:
        raise HttpProblem(403, "wrong_origin", f"forms are taken from this server's own pages, not from {origin!r}")
