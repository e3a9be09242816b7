"""One worker process: started on a leash, its log kept, its end explained."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from jobs.endings import UNFIT, explain
from jobs.settings import PREFIX, Settings

LOG = "worker.log"
LOG_BYTES = 10_000_000
"""A log beyond this is set aside as `worker.log.1` at the next start."""
PYTHON = (sys.executable, "-P")
"""Our interpreter, blind to the current folder: a user's own folder called `jobs` or `worker` must not be imported."""


class WorkerProcess:
    """`python -m worker` under this process; ends with it, even if it is killed."""

    def __init__(self, settings: Settings, arguments: Sequence[str] = ()) -> None:
        self._log = settings.home / "logs" / LOG
        _rotate(self._log)
        self._log_from = self._log.stat().st_size if self._log.exists() else 0
        self.started = time.monotonic()
        leash = [*PYTHON, "-m", "jobs.local.leash", str(settings.grace_s + 10)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*leash, "worker", *arguments],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment(settings),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def died(self) -> bool:
        """Whether it has ended."""
        if self._process.poll() is None:
            return False
        self._let_go()
        return True

    @property
    def unfit(self) -> bool:
        """Whether it ended saying that it cannot run here."""
        return self._process.returncode == UNFIT

    def why(self) -> str:
        """How it ended, for people."""
        return explain(self._process.returncode)

    def last_words(self, lines: int = 6) -> str:
        """The last lines it wrote to the log."""
        with suppress(OSError), self._log.open("rb") as log:
            log.seek(self._log_from)
            return "\n".join(log.read()[-20_000:].decode("utf-8", "replace").strip().splitlines()[-lines:])
        return ""

    def ask_to_stop(self) -> None:
        """SIGTERM: it stops claiming, finishes what fits its grace period, releases the rest."""
        with suppress(ProcessLookupError):
            self._process.terminate()

    def stop(self, timeout_s: float) -> bool:
        """Wait for its end, killing it after `timeout_s` or at Ctrl-C. False: it had to be killed."""
        self.ask_to_stop()
        try:
            self._process.wait(timeout_s)
            return True
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            self.kill()
            return False
        finally:
            self._let_go()

    def kill(self) -> None:
        """End it at once. Its chunks are taken up again when their leases have run out."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._let_go()

    def _let_go(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()


def environment(settings: Settings) -> dict[str, str]:
    """This process's environment with every setting that differs from its default."""
    chosen = {name: getattr(settings, name) for name in settings.model_fields_set | {"home"}}
    texts = {f"{PREFIX}{name.upper()}": _as_text(value) for name, value in chosen.items() if value is not None}
    return {**os.environ, **texts}


def _as_text(value: object) -> str:
    """As the settings read it from the environment."""
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value) if isinstance(value, str | Path) else json.dumps(value)


def _rotate(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_name(f"{LOG}.1"))
