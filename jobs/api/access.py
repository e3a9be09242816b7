"""Who asks, and what they may: keys, tenants, and pages of other sites that ask in a browser's name."""

import threading
import time
from collections import OrderedDict
from collections.abc import Collection
from hashlib import sha256
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from jobs.api.problems import HttpProblem
from jobs.schemas import Key, Scope

if TYPE_CHECKING:
    from jobs.store.keys import Keys

TRUST_S = 5.0
"""How long a key that was looked up is taken for valid: a revoked one works for so long at most."""
KEYS_KEPT = 10_000
EVERYTHING: frozenset[Scope] = frozenset({"read", "submit", "admin"})
_IMPLIED: dict[Scope, frozenset[Scope]] = {
    "read": frozenset({"read"}),
    "submit": frozenset({"read", "submit"}),
    "admin": EVERYTHING,
}
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
SAFE = ("GET", "HEAD", "OPTIONS")


class Caller(NamedTuple):
    """Who asks."""

    tenant: str
    scopes: frozenset[Scope]
    key_id: str | None = None

    def need(self, scope: Scope) -> None:
        """Raises HttpProblem (403) without the scope."""
        if scope not in self.scopes:
            had = ", ".join(sorted(self.scopes))
            raise HttpProblem(403, "forbidden", f"this needs a key with scope {scope!r}; yours has: {had}")


ANYONE = Caller("default", EVERYTHING)
"""Who asks where no key was ever made: whoever reaches this machine's own address."""


class Access:
    """Tells who asks by the key they show. May be shared by threads. `open_to_all`: as long as there is no key."""

    def __init__(self, keys: "Keys", *, open_to_all: bool) -> None:
        self._keys, self._open = keys, open_to_all
        self._known: OrderedDict[bytes, tuple[float, Key | None]] = OrderedDict()
        self._any_until, self._any = 0.0, False
        self._lock = threading.Lock()

    def caller(self, authorization: str | None) -> Caller:
        """Raises HttpProblem (401) without a key in force, StoreUnavailable."""
        if authorization is None:
            if self._open and not self._keys_exist():
                return ANYONE
            raise _unauthorized("a key is needed: Authorization: Bearer tm_...")
        scheme, _, secret = authorization.partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise _unauthorized("the Authorization header is: Bearer tm_...")
        key = self._find(secret.strip())
        if key is None:
            # The OpenAI SDK cannot go without a key: where none was ever made, any will do.
            if self._open and not self._keys_exist():
                return ANYONE
            raise _unauthorized("the key is unknown, revoked or expired")
        return Caller(key.tenant, frozenset().union(*(_IMPLIED[scope] for scope in key.scopes)), key.id)

    def _find(self, secret: str) -> Key | None:
        digest, now = sha256(secret.encode("utf-8", "surrogateescape")).digest(), time.monotonic()
        with self._lock:
            until, key = self._known.get(digest, (0.0, None))
        if now < until:
            return key
        key = self._keys.find(secret)
        with self._lock:
            self._known[digest] = (now + TRUST_S, key)
            while len(self._known) > KEYS_KEPT:
                self._known.popitem(last=False)
        return key

    def _keys_exist(self) -> bool:
        """Keys are never deleted, so that one that exists will do for ever."""
        now = time.monotonic()
        if not self._any and now >= self._any_until:
            self._any, self._any_until = self._keys.any(), now + TRUST_S
        return self._any


def check_origin(method: str, host: str | None, origin: str | None, allowed: Collection[str]) -> None:
    """Raises HttpProblem for a Host that is none of ours (DNS rebinding), and for a change that another site asks for.

    `allowed`: names of this server beside its own loopback ones; `*` for any.
    """
    names = {*LOCAL_NAMES, *allowed}
    if "*" not in names and _name(host) not in names:
        raise HttpProblem(
            421, "wrong_host", f"this server is not called {_name(host)!r}; the setting api_hosts lists its names"
        )
    if origin is not None and method not in SAFE and _of_url(origin) != _name(host):
        raise HttpProblem(403, "wrong_origin", f"pages of {origin[:200]} may not change anything here")


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _name(host: str | None) -> str:
    """A Host header without its port."""
    try:
        return (urlsplit(f"//{host or ''}").hostname or "").lower()
    except ValueError:
        return ""


def _of_url(url: str) -> str:
    """The host that a URL names; empty: none."""
    try:
        return _name(urlsplit(url).netloc)
    except ValueError:
        return ""


def _unauthorized(detail: str) -> HttpProblem:
    return HttpProblem(401, "unauthorized", detail, {"WWW-Authenticate": "Bearer"})
