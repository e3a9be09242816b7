"""TLS before a local server that has none itself: a certificate of our own, and fronts that end the encryption."""

import contextlib
import socket
import ssl
import threading
from pathlib import Path
from typing import Self

import trustme

SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
"""What a PostgreSQL client sends before anything else when it wants TLS; the server answers with one letter."""


class Authority:
    """Vouches for 127.0.0.1 and localhost; `path` is the certificate that clients are told to trust."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.path = folder / "authority.pem"
        authority.cert_pem.write_to_path(str(self.path))
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1", "localhost").configure_cert(self.context)


class Front:
    """Listens with TLS, and passes what it deciphers on to a server of this machine."""

    def __init__(self, target_port: int, authority: Authority, *, postgresql: bool = False) -> None:
        self._target, self._context, self._postgresql = target_port, authority.context, postgresql
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        self.plain = 0
        """Clients that wanted no TLS; they were turned away."""
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.settimeout(120)
            if self._postgresql and not self._asked(client):
                return
            with (
                self._context.wrap_socket(client, server_side=True) as inner,
                socket.create_connection(("127.0.0.1", self._target)) as server,
            ):
                threading.Thread(target=_pass_on, args=(server, inner), daemon=True).start()
                _pass_on(inner, server)

    def _asked(self, client: socket.socket) -> bool:
        """Whether a PostgreSQL client asks for TLS before it says anything else."""
        if client.recv(len(SSL_REQUEST)) == SSL_REQUEST:
            client.sendall(b"S")
            return True
        self.plain += 1
        return False


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
