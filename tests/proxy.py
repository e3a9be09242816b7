"""A TCP proxy before a local server, to be put in the way: it delays, cuts, resets, or lets nothing through."""

import contextlib
import socket
import struct
import threading
import time
from typing import Self

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER on with no time: closing sends a reset."""


class Proxy:
    """Passes bytes on, unless told otherwise. `url` is what to connect to in place of the server's own."""

    def __init__(self, target_port: int) -> None:
        self._target = target_port
        self._cut: tuple[bytes, bool] | None = None
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        self.delay_s = 0.0
        """Every piece waits this long, in both directions."""
        self._open = threading.Event()
        self._open.set()
        self._lock = threading.Lock()
        self._ends: set[socket.socket] = set()
        self.accepted = 0
        """Connections so far."""
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self._open.set()
        self.reset()

    def cut_at(self, request: bytes, *, delivered: bool) -> None:
        """Cut the next connection that sends these bytes; if `delivered`, once the server has answered them."""
        self._cut = (request, delivered)

    def blackhole(self) -> None:
        """From now on every byte is swallowed on its way and connections stay open: the network is gone."""
        self._open.clear()

    def restore(self) -> None:
        """Connections made from now on work again; those of before are never heard of again."""
        with self._lock:
            self._ends.clear()  # their threads see it, and keep swallowing
        self._open.set()

    def reset(self) -> None:
        """End every connection with a reset."""
        with self._lock:
            ends, self._ends = self._ends, set()
        for end in ends:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            _shut(end)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self._target))
        except OSError:
            _shut(client)
            return
        with self._lock:
            self._ends |= {client, server}
        answers = _Answers(self, server, client)
        threading.Thread(target=answers.run, daemon=True).start()
        self._requests(client, server, answers)

    def _requests(self, client: socket.socket, server: socket.socket, answers: "_Answers") -> None:
        while data := _received(client):
            if not self.passes(client):
                continue
            cut = self._cut
            if cut is not None and cut[0] in data:
                self._cut = None
                if cut[1]:
                    answers.swallow.set()
                    server.sendall(data)
                    answers.swallowed.wait(10)
                break
            with contextlib.suppress(OSError):
                server.sendall(data)
        self.forget(client, server)

    def passes(self, end: socket.socket) -> bool:
        """Whether bytes of this connection go on; waits as long as each piece is to wait."""
        if self.delay_s:
            time.sleep(self.delay_s)
        return self._open.is_set() and end in self._ends

    def forget(self, *ends: socket.socket) -> None:
        """Close both ends of a connection."""
        with self._lock:
            self._ends -= set(ends)
        for end in ends:
            _shut(end)


class _Answers:
    """Passes what the server says on to the client, until it is told to swallow it."""

    def __init__(self, proxy: Proxy, server: socket.socket, client: socket.socket) -> None:
        self._proxy, self._server, self._client = proxy, server, client
        self.swallow, self.swallowed = threading.Event(), threading.Event()

    def run(self) -> None:
        while data := _received(self._server):
            if self.swallow.is_set():
                self.swallowed.set()
                continue
            if not self._proxy.passes(self._server):
                continue
            try:
                self._client.sendall(data)
            except OSError:
                break
        self._proxy.forget(self._client, self._server)


def _received(end: socket.socket) -> bytes:
    try:
        return end.recv(65536)
    except OSError:
        return b""


def _shut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
