"""One try to hand a delivery to a webhook's server."""

import socket
import ssl
import threading
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from typing import NamedTuple

from jobs.webhooks.guard import Guard, Place, Refused

CONNECT_S, ANSWER_S = 5.0, 15.0
"""A server that has not answered for so long after the beginning did not take the delivery."""


class Answer(NamedTuple):
    """What came of a try."""

    status: int | None
    """None: there was no answer."""
    error: str | None
    """Why it was not taken; None: it was."""
    retry_after: str | None = None


class _Connection(HTTPConnection):
    """Connects to the address that was judged, whatever the name means by now."""

    def __init__(self, place: Place, context: ssl.SSLContext | None) -> None:
        super().__init__(place.host, place.port, timeout=CONNECT_S)
        self.default_port = 443 if place.secure else 80
        self._address, self._context = place.address, context

    def connect(self) -> None:
        self.sock = socket.create_connection((self._address, self.port), self.timeout)
        if self._context is not None:
            self.sock = self._context.wrap_socket(self.sock, server_hostname=self.host)

    def cut(self) -> None:
        """End it from another thread, however slowly its answer drips."""
        try:
            if self.sock is not None:
                self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


class Post:
    """Sends. May be shared by threads."""

    def __init__(self, guard: Guard, context: ssl.SSLContext | None = None, answer_s: float = ANSWER_S) -> None:
        self._guard, self._answer_s = guard, answer_s
        self._context = context or ssl.create_default_context()

    def __call__(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Never raises for what the URL or its server is to blame for."""
        try:
            place = self._guard.place(url)
        except Refused as error:
            return Answer(None, str(error))
        except (OSError, UnicodeError) as error:
            return Answer(None, f"its host is not known: {error}")
        connection = _Connection(place, self._context if place.secure else None)
        timer = threading.Timer(self._answer_s, connection.cut)
        timer.daemon = True
        timer.start()
        try:
            connection.request("POST", place.path, body, {"User-Agent": "textmill", **headers})
            assert connection.sock is not None
            connection.sock.settimeout(self._answer_s)
            response = connection.getresponse()
            status, again = response.status, response.getheader("Retry-After")
        except (OSError, ValueError) as error:
            return Answer(None, f"{type(error).__name__}: {error}"[:300])
        except HTTPException as error:  # its text is the server's: who owns the webhook must not read what is there
            return Answer(None, f"what it answered is no HTTP ({type(error).__name__})")
        finally:
            timer.cancel()
            connection.close()
        return Answer(status, _why(status), again)


def _why(status: int) -> str | None:
    if 200 <= status < 300:
        return None
    return f"answered {status}; redirects are not followed" if 300 <= status < 400 else f"answered {status}"
