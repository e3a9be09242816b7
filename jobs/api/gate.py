"""What every request passes before a route sees it: where it comes from, how large it is, what it is called."""

import re
import secrets
from collections.abc import Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobs.api.access import check_origin
from jobs.api.problems import HttpProblem, rendered

REQUEST_ID = b"x-request-id"


class Gate:
    """Refuses requests for other hosts, from other sites, and with bodies of more than `most` bytes, told or not (but
    for paths that a pattern of `streamed` matches: there of more than `most_streamed`, where it is told). Names each
    request."""

    def __init__(
        self, app: ASGIApp, *, hosts: Collection[str], most: int, streamed: Collection[str], most_streamed: int
    ) -> None:
        self._app, self._hosts, self._most = app, hosts, most
        self._streamed, self._most_streamed = re.compile("|".join(streamed)), most_streamed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        name = f"req_{secrets.token_hex(8)}".encode()

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = [(REQUEST_ID, name), (b"x-content-type-options", b"nosniff")]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        try:
            check_origin(scope["method"], headers.get(b"host"), headers.get(b"origin"), self._hosts)
        except HttpProblem as problem:
            await rendered(scope["path"], problem)(scope, receive, named)
            return
        told = headers.get(b"content-length", "0")
        if not self._streamed.fullmatch(scope["path"]):
            await self._limited(scope, receive, named, told=told)
        elif told.isdigit() and int(told) > self._most_streamed:
            most = f"{self._most_streamed:,} bytes (setting max_job_bytes)"
            refusal = HttpProblem(413, "too_large", f"the body has more than {most}", {"Connection": "close"})
            await rendered(scope["path"], refusal)(scope, receive, named)
        else:
            await self._app(scope, receive, named)

    async def _limited(self, scope: Scope, receive: Receive, send: Send, *, told: str) -> None:
        read, started, too_large = 0, False, told.isdigit() and int(told) > self._most

        async def counted() -> Message:
            nonlocal read, too_large
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._most:
                too_large = True
                raise ValueError("too large")  # whatever is made of it is replaced below
            return message

        async def unless_too_large(message: Message) -> None:
            nonlocal started
            if started or not too_large:
                started = True
                await send(message)

        if not too_large:
            await self._app(scope, counted, unless_too_large)
        if too_large and not started:
            await rendered(scope["path"], self._refusal())(scope, receive, send)

    def _refusal(self) -> HttpProblem:
        most = f"{self._most:,} bytes (setting max_request_bytes)"
        detail = f"the body has more than {most}; items without that limit go to /api/v1/jobs/upload"
        return HttpProblem(413, "too_large", detail, {"Connection": "close"})
