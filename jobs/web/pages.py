"""How a page is made: templates, what each is given, the headers it is sent with, and the parts of it that live."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse

from jobs.api.access import Caller
from jobs.api.service import Serves, Service
from jobs.schemas import Scope
from jobs.web.drawing import environment
from jobs.web.live import EVERY_S, STREAM
from jobs.web.session import Asks

CSP = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CSP,
    # Not `no-referrer`: browsers then send `Origin: null` with a form, and where it came from could not be checked.
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}
LIVE = "/live"
"""Before a page's path: its parts as they change."""


class Look(NamedTuple):
    """A request for a page, and who asks."""

    request: Request
    service: Service
    caller: Caller

    def asked(self, name: str, otherwise: str = "") -> str:
        """A value of the query."""
        return self.request.query_params.get(name, otherwise)

    def number(self, name: str, otherwise: int, *, least: int = 0, most: int = 2**53) -> int:
        """A whole number of the query; what is none counts as not given."""
        text = self.asked(name)
        return min(max(int(text), least), most) if text.isascii() and text.isdigit() and len(text) < 17 else otherwise

    @property
    def steers(self) -> bool:
        """Whether the caller may submit and steer jobs."""
        return "submit" in self.caller.scopes

    @property
    def rules(self) -> bool:
        """Whether the caller may manage keys, webhooks and schedules."""
        return "admin" in self.caller.scopes


Gather = Callable[[Look], Mapping[str, Any]]
"""What a template is given."""


def looks(request: Request, service: Serves, caller: Asks) -> Look:
    return Look(request, service, caller)


Looks = Annotated[Look, Depends(looks)]


def page(
    router: APIRouter,
    path: str,
    template: str,
    *,
    parts: Sequence[str] = (),
    every_s: float = EVERY_S,
    need: Scope = "read",
) -> Callable[[Gather], Gather]:
    """Make what a function gathers a page at this path. `parts`: the template's blocks that are sent anew as they
    change; the outermost element of each has the block's name as its id."""

    def register(gather: Gather) -> Gather:
        def gathered(look: Look) -> Mapping[str, Any]:
            look.caller.need(need)
            return gather(look)

        @router.get(path, name=template)
        def show(look: Looks) -> Response:
            query = f"?{look.request.url.query}" if look.request.url.query else ""
            live = f"{LIVE}{look.request.url.path.rstrip('/') or '/'}{query}" if parts else None
            return rendered(template, look.request, look, live=live, **gathered(look))

        if parts:

            @router.get(LIVE + path)
            async def live(look: Looks) -> Response:
                request, caller = look.request, look.caller
                caller.need(need)

                def drawn() -> dict[str, str]:
                    given = context(request, look, **gathered(look))
                    return {name: _block(template, name, given) for name in parts}

                key = (request.url.path, request.url.query, caller.tenant, caller.scopes)
                shows = request.app.state.live
                if STREAM not in request.headers.get("accept", ""):
                    return JSONResponse(await shows.once(key, every_s, drawn), headers=HEADERS)
                headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
                return StreamingResponse(shows.stream(key, every_s, drawn), media_type=STREAM, headers=headers)

        return gather

    return register


def rendered(name: str, request: Request, look: Look | None, *, status: int = 200, **given: Any) -> Response:
    """A page. `look` None: nobody was asked who they are."""
    text = environment().get_template(name).render(context(request, look, **given))
    return HTMLResponse(text, status, headers=HEADERS)


def moved(to: str) -> Response:
    """To be looked at there, after a form was taken."""
    return RedirectResponse(to, 303, headers={"Cache-Control": "no-store"})


def context(request: Request, look: Look | None, **given: Any) -> dict[str, Any]:
    return {"look": look, "path": request.url.path, "live": None, **given}


def _block(template: str, name: str, given: dict[str, Any]) -> str:
    found = environment().get_template(template)
    return "".join(found.blocks[name](found.new_context(given)))
