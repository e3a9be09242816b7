"""Keeps one worker process per GPU running: starts each anew when it dies or hangs, and says why it did."""

import logging
import os
import signal
import threading
import time
from collections.abc import Sequence

from jobs import systemd
from jobs.endings import shell_code
from jobs.pulse import Pulse
from jobs.settings import Settings
from jobs.telemetry import address
from worker.child import Child

log = logging.getLogger("textmill.supervisor")

TICK_S = 0.1
SHOW_S = 1.0
QUIET_S = 30.0
"""A supervisor that has shown nothing for so long hangs."""
LATE_S = 10.0
"""How long after its grace period a worker that was told to stop is killed; it leaves by itself before."""
HURRY_S = 10.0
"""The same for a worker that was told twice."""


class Supervisor:
    """The children, and what signals ask of them. `run` returns the exit code of this process."""

    def __init__(self, settings: Settings, environments: Sequence[dict[str, str]]) -> None:
        self._settings = settings
        self._children = [Child(settings, environment) for environment in environments]
        self._pulse = Pulse(settings.home, "supervisor")
        self._asked = 0
        """How often it was told to stop: once, hurry, now."""
        self._woken = threading.Event()
        self._shown = 0.0

    def run(self) -> int:
        """Until told to stop, or until every child has given up."""
        self._listen()
        systemd.notify(systemd.READY)
        try:
            while not self._asked:
                for child in self._children:
                    child.look()
                if all(child.gave_up is not None for child in self._children):
                    return self._give_up()
                self._show()
                self._woken.wait(TICK_S)
            return self._stop()
        finally:
            self._pulse.close()

    def _listen(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup made it so
                signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _: object) -> None:
        self._asked = max(2, self._asked + 1) if number == signal.SIGQUIT else self._asked + 1

    def _show(self) -> None:
        """To health checks and systemd: this process goes on, and so do its workers."""
        if time.monotonic() < self._shown + SHOW_S:
            return
        self._shown = time.monotonic()
        down = [child.state() for child in self._children if not child.running]
        self._pulse.beat(
            QUIET_S + (self._settings.grace_s + LATE_S if self._asked else 0.0),
            state="stopping" if self._asked else "",
            down=down,
            restarts=sum(child.restarts for child in self._children),
            last_end=next((child.last_end for child in self._children if child.last_end), None),
        )
        running = len(self._children) - len(down)
        systemd.notify(systemd.ALIVE, status="; ".join([f"{running} of {len(self._children)} workers run", *down]))

    def _give_up(self) -> int:
        codes = [child.gave_up for child in self._children if child.gave_up is not None]
        log.critical("no worker can run here; giving up with exit code %d", codes[0])
        return codes[0]

    # ----- the end -----

    def _stop(self) -> int:
        """Pass the signal on and wait: once for the grace period, told twice only for work to be put back."""
        systemd.notify(systemd.STOPPING)
        obeyed, deadline = 0, time.monotonic() + self._settings.grace_s + LATE_S
        while any(child.running for child in self._children):
            if obeyed < self._asked:
                obeyed = self._asked
                if obeyed >= 2:
                    deadline = min(deadline, time.monotonic() + (HURRY_S if obeyed == 2 else 0.0))
                for child in self._children:
                    child.signal(signal.SIGTERM if obeyed == 1 else signal.SIGQUIT)
            if time.monotonic() >= deadline:
                for child in self._children:
                    child.kill("it did not end in time")
            for child in self._children:
                child.look_for_end()
            self._show()
            time.sleep(TICK_S)
        return max(self._codes(), default=0)

    def _codes(self) -> list[int]:
        """Of what went wrong, as a shell would tell it."""
        return [shell_code(child.final) for child in self._children if child.final] + [
            child.gave_up for child in self._children if child.gave_up
        ]


def supervise(settings: Settings, gpus: Sequence[str]) -> int:
    """Keep one worker a GPU (or the one there is) running until told to stop; the exit code."""
    inherited = {name: value for name, value in os.environ.items() if name not in systemd.VARIABLES}
    chosen = [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus] or [{}]
    environments = [{**inherited, **one, **_metrics(settings, at)} for at, one in enumerate(chosen)]
    return Supervisor(settings, environments).run()


def _metrics(settings: Settings, number: int) -> dict[str, str]:
    """A port of its own for each worker's metrics."""
    if settings.metrics_address is None:
        return {}
    host, port = address(settings.metrics_address, number)
    return {"TEXTMILL_METRICS_ADDRESS": f"[{host}]:{port}" if ":" in host else f"{host}:{port}"}
