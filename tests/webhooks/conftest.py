"""A webhook's server, on a free port, that answers as a test says."""

import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import pytest


class Heard(NamedTuple):
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: bytes


class Receiver:
    """Keeps what it hears; `answers` are statuses to give one after the other, then 204 for ever."""

    def __init__(self, *answers: int, headers: dict[str, str] | None = None, context: ssl.SSLContext | None = None):
        self.heard: list[Heard] = []
        self.answers = list(answers)
        self._headers = headers or {}
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                received = {name.lower(): value for name, value in self.headers.items()}
                receiver.heard.append(Heard(self.path, received, body))
                self.send_response(receiver.answers.pop(0) if receiver.answers else 204)
                for name, value in receiver._headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.port}/hook"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receive() -> Iterator[Callable[..., Receiver]]:
    """Starts receivers."""
    started: list[Receiver] = []

    def start(*answers: int, **about: object) -> Receiver:
        started.append(Receiver(*answers, **about))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for receiver in started:
        receiver.close()
