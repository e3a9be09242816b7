"""Errors in the shape that the OpenAI SDK reads."""

from collections.abc import Mapping

from fastapi.responses import JSONResponse

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class BadRequest(Exception):
    """Something of a request body that cannot be; `param` names it."""

    def __init__(self, message: str, param: str | None = None, code: str = "invalid_request") -> None:
        self.message, self.param, self.code = message, param, code
        super().__init__(message)


def body(status: int, message: str, *, param: str | None = None, code: str | None = None) -> dict[str, object]:
    """The error as an object; lines of error files have the same."""
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def answer(
    status: int,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """The response that says so. What the SDK must not try again says that, too."""
    told = dict(headers or {})
    if status == 409:
        told["x-should-retry"] = "false"
    return JSONResponse(body(status, message, param=param, code=code), status, headers=told)
