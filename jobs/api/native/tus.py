"""What the tus 1.0 protocol of resumable uploads asks of every request and answer (https://tus.io/protocols)."""

import binascii
from base64 import b64decode

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobs.api.problems import HttpProblem, rendered

VERSION = "1.0.0"
EXTENSIONS = "creation,expiration,termination"
CONTENT_TYPE = "application/offset+octet-stream"
VERSION_HEADER = "Tus-Resumable"
INSTEAD_OF_POST = ("PATCH", "DELETE")


class Tus:
    """Below `prefix`: refuses other versions, takes methods out of X-HTTP-Method-Override, says its version."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app, self._prefix = app, prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not f"{scope['path']}/".startswith(f"{self._prefix}/"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        method = headers.get("x-http-method-override")
        if scope["method"] == "POST" and method in INSTEAD_OF_POST:
            scope["method"] = method

        async def versioned(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[VERSION_HEADER] = VERSION
            await send(message)

        if headers.get(VERSION_HEADER, VERSION) != VERSION and scope["method"] != "OPTIONS":
            refusal = HttpProblem(412, "unsupported_version", f"this is tus {VERSION}", {"Tus-Version": VERSION})
            await rendered(scope["path"], refusal)(scope, receive, versioned)
        else:
            await self._app(scope, receive, versioned)


def read_metadata(header: str | None) -> dict[str, str]:
    """What an Upload-Metadata header says: keys, each with a Base64 value or none. Raises HttpProblem (400)."""
    found = {}
    for pair in filter(None, map(str.strip, (header or "").split(","))):
        key, _, value = pair.partition(" ")
        try:
            found[key] = b64decode(value, validate=True).decode()
        except (binascii.Error, ValueError) as error:
            raise HttpProblem(
                400, "invalid_metadata", f"Upload-Metadata: {key[:100]!r} has no Base64 of a text"
            ) from error
    return found
