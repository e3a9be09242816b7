"""Signing in with an API key, and out."""

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Form, Request
from fastapi.responses import Response

from jobs.api.problems import HttpProblem
from jobs.api.service import Serves
from jobs.web.pages import moved, rendered
from jobs.web.session import COOKIE, check_form

KEPT_S = 7 * 86_400
"""How long a browser keeps a key."""

router = APIRouter()


@router.get("/login", name="login")
def ask(request: Request) -> Response:
    return rendered("login.html", request, None, wrong=None, next=_inside(request.query_params.get("next", "/")))


@router.post("/login")
def enter(
    request: Request, service: Serves, key: Annotated[str, Form()] = "", next: Annotated[str, Form()] = "/"
) -> Response:
    """Keep the key, if it is one; where none was ever made, whatever is typed will do, and is not kept."""
    check_form(request)
    target = _inside(next)
    try:
        caller = service.access.caller(f"Bearer {key.strip()}")
        caller.need("read")
    except HttpProblem as problem:
        return rendered("login.html", request, None, status=problem.status, wrong=problem.detail, next=target)
    answer = moved(target)
    if caller.key_id is None:
        return answer
    secure = request.url.scheme == "https"
    answer.set_cookie(COOKIE, key.strip(), max_age=KEPT_S, httponly=True, samesite="lax", secure=secure)
    return answer


@router.post("/logout")
def leave(request: Request) -> Response:
    """Forget the key."""
    check_form(request)
    answer = moved("/login")
    answer.delete_cookie(COOKIE, httponly=True, samesite="lax")
    return answer


def _inside(target: str) -> str:
    """A page of ours: a path alone, never another host."""
    try:
        found = urlsplit(target)
    except ValueError:
        return "/"
    odd = found.scheme or found.netloc or not target.startswith("/") or "\\" in target or target.startswith("//")
    return "/" if odd or any(ord(char) < 32 for char in target) else target
