"""Serves the API: in a process of its own, or in a thread of `textmill up`."""

import errno
import logging
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from jobs.errors import InvalidSettings, TextmillError

if TYPE_CHECKING:
    from fastapi import FastAPI
    from uvicorn import Server

    from jobs.queue import Queue
    from jobs.settings import Settings
    from jobs.store import Store

NOT_INSTALLED = "the HTTP API is not installed here: pip install 'textmill[api]'"
GRACE_S = 5
"""How long open requests may take to end; long polls and event streams are cut."""
BACKLOG = 2048
log = logging.getLogger("textmill.api")


class ApiNotInstalled(TextmillError):
    """Raised when FastAPI or uvicorn are not there."""


class ApiServer:
    """The API on a port that is bound at once, so that a port that is taken is told before anything starts."""

    def __init__(
        self,
        settings: "Settings",
        store: "Store",
        queue: "Queue",
        beside: "Callable[[FastAPI], None]" = lambda app: None,
    ) -> None:
        """`beside`: adds to the application what is served beside the API.

        Raises ApiNotInstalled, and InvalidSettings for an address that cannot, or must not, be listened on.
        """
        try:
            import uvicorn

            from jobs.api.access import is_loopback
            from jobs.api.app import create_app
        except ImportError as error:
            raise ApiNotInstalled(f"{NOT_INSTALLED} ({error})") from error
        loopback = is_loopback(settings.api_host)
        if not loopback and not store.keys.any():
            raise InvalidSettings(
                f"api_host {settings.api_host!r} can be reached from other machines, and no key was ever made: "
                "make one with `textmill keys create NAME`, or listen on 127.0.0.1"
            )
        self._socket = _bound(settings)
        app = create_app(settings, store, queue, open_to_all=loopback)
        beside(app)
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_S,
            backlog=BACKLOG,
        )
        self._server: Server = uvicorn.Server(config)
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = self._socket.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def run(self) -> None:
        """Serve until SIGTERM or Ctrl-C."""
        self._server.run([self._socket])

    def start(self) -> None:
        """Serve in a thread."""
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="api", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and what it was answering."""
        if self._thread is not None:
            self._server.should_exit = True
            self._thread.join(GRACE_S * 2)
        self._socket.close()


def _bound(settings: "Settings") -> socket.socket:
    """A socket at the address. A port that nobody chose gives way to any free one."""
    host, port = settings.api_host, settings.api_port
    try:
        return _listening(host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE and "api_port" not in settings.model_fields_set:
            return _listening(host, 0)
        raise InvalidSettings(f"api_host {host!r}, api_port {port}: cannot be listened on: {error.strerror}") from error


def _listening(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    found = socket.socket(family, kind, protocol)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(BACKLOG)
    except OSError:
        found.close()
        raise
    return found
