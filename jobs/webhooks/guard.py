"""Where webhooks may go: a URL is somebody else's word, and must not reach what only this machine can reach.

An address is judged after the name was resolved, and the very address that was judged is connected to, so that a name
that changes its mind (DNS rebinding) gains nothing. Redirects are never followed.
"""

import socket
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, NamedTuple
from urllib.parse import SplitResult, urlsplit

from jobs.errors import InvalidParams

MOST_CHARS = 2048
_NAT64 = ip_network("64:ff9b::/96")
_UNICAST = ip_network("2000::/3")
"""The only IPv6 addresses that are given to anybody in public; others may be private, or IPv4 in disguise."""

Resolve = Callable[..., list[tuple[Any, ...]]]
Address = IPv4Address | IPv6Address


class Refused(Exception):
    """Raised when a webhook's server may not be spoken to; the text says why."""


class Place(NamedTuple):
    """A webhook's server, as it may be spoken to now."""

    secure: bool
    host: str
    port: int
    address: str
    """The one to connect to."""
    path: str


class Guard:
    """Judges URLs. `networks`: those that may be reached although they are not public, by http as well."""

    def __init__(self, networks: Iterable[str] = (), resolve: Resolve = socket.getaddrinfo) -> None:
        self._networks = [ip_network(network) for network in networks]
        self._resolve = resolve

    def check(self, url: str) -> None:
        """Raises InvalidParams for a URL that can never be a webhook's. Names are not resolved yet."""
        try:
            parts = _parsed(url)
            address = _literal(parts.hostname or "")
            if address is not None:
                self._permit(parts.scheme, address)
        except Refused as error:
            raise InvalidParams(f"{url[:200]!r} cannot be a webhook: {error}") from error

    def place(self, url: str) -> Place:
        """Where to connect to. Raises Refused, and OSError when the name is not known."""
        parts = _parsed(url)
        host = parts.hostname or ""
        port = parts.port or (443 if parts.scheme == "https" else 80)
        found = [str(each[4][0]).partition("%")[0] for each in self._resolve(host, port, type=socket.SOCK_STREAM)]
        for each in found:
            self._permit(parts.scheme, ip_address(each))
        if not found:
            raise Refused(f"{host} has no address")
        path = parts._replace(scheme="", netloc="", fragment="").geturl() or "/"
        return Place(parts.scheme == "https", host, port, found[0], path if path.startswith("/") else f"/{path}")

    def _permit(self, scheme: str, address: Address) -> None:
        """Raises Refused."""
        real = _embedded(address)
        if any(each.version == real.version and real in each for each in self._networks):
            return
        if not _is_public(real):
            raise Refused(f"{address} is not a public address; the setting webhook_networks lists others that may be")
        if scheme != "https":
            raise Refused("a public server is spoken to by https alone")


def _parsed(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise Refused(str(error)) from error
    if len(url) > MOST_CHARS or not url.isascii() or not url.isprintable() or " " in url:
        raise Refused(f"a URL has at most {MOST_CHARS:,} printable ASCII characters and no spaces")
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise Refused("it has to begin with https:// and a host")
    if parts.username is not None or parts.password is not None:
        raise Refused("user and password do not belong into it; what is sent is signed")
    return parts


def _literal(host: str) -> Address | None:
    """The address that a host is as it stands, however oddly it is written; None for a name."""
    if host == "localhost" or host.endswith(".localhost"):
        return IPv4Address("127.0.0.1")
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(host))  # 127.1, 0x7f000001, 2130706433
    except OSError:
        return None


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv6Address) and address not in _UNICAST:
        return False
    return address.is_global and not address.is_multicast


def _embedded(address: Address) -> Address:
    """The IPv4 address that an IPv6 one only wraps."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    return IPv4Address(address.packed[-4:]) if address in _NAT64 else address
