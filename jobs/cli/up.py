"""`textmill up`: everything on this machine, in the foreground, for jobs that other commands submit."""

import signal
import threading
from typing import TYPE_CHECKING

import click

from jobs import tracing
from jobs.cli.serving import server
from jobs.cli.session import registry, store
from jobs.cli.table import facts
from jobs.errors import HomeBusy
from jobs.urls import hide

if TYPE_CHECKING:
    from jobs.api.server import ApiServer
    from jobs.local.embedded import Room
    from jobs.local.mill import Mill
    from jobs.settings import Settings
    from jobs.store import Store

CHECK_S = 0.5


@click.command()
@click.option("--port", metavar="N", type=click.IntRange(1, 65535), help="Port of the embedded broker [any free one].")
def up(port: int | None) -> None:
    """Run everything in the foreground. Broker, database, worker, upkeep, HTTP API and dashboard, until Ctrl-C; jobs
    are kept."""
    from jobs.local.embedded import Room, mill
    from jobs.settings import load_settings

    settings, stop = load_settings(), threading.Event()
    with store(settings) as opened:
        opened.check_schema()
        registry(opened, settings)
        tracing.start("up")
        machine = mill(settings, opened, role="up", say=_say, port=port)
        served = _api(settings, opened)
        for sign in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sign, lambda *_: stop.set())
        _start(machine, settings)
        try:
            if served is not None:
                served.start()
            click.echo(_greeting(settings, machine, served.url if served is not None else None), err=True)
            _wait(machine, stop, Room(settings.home))
        finally:
            if served is not None:
                served.stop()
            _stop(machine, settings)


def _api(settings: "Settings", opened: "Store") -> "ApiServer | None":
    """The HTTP API and the dashboard, where they are installed."""
    from jobs.api.server import ApiNotInstalled
    from jobs.api.spool import spool_all_in
    from jobs.queue import Queue

    try:
        served = server(settings, opened, Queue(settings))
    except ApiNotInstalled:
        return None
    spool_all_in(settings.home)
    return served


def _start(machine: "Mill", settings: "Settings") -> None:
    # Twice: whoever only looks at the lock holds it for an instant.
    if machine.try_start() or (machine.owner() is None and machine.try_start()):
        return
    owner = machine.owner() or "another process"
    raise HomeBusy(f"{owner} already works in {settings.home}; submit jobs to it, or take another home with --home")


def _wait(machine: "Mill", stop: threading.Event, room: "Room") -> None:
    while not stop.wait(CHECK_S):
        if full := room.noticed():
            _say(full)
        if machine.failure is not None:
            raise machine.failure


def _stop(machine: "Mill", settings: "Settings") -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _say(f"stopping; the worker may finish what it holds ({settings.grace_s:g} s at most, Ctrl-C ends it now)")
    machine.stop()
    _say("stopped; jobs and results are kept, `textmill up` goes on with them")


def _greeting(settings: "Settings", machine: "Mill", api: str | None) -> str:
    where = "" if settings.redis_url else " (embedded)"
    about = facts(
        [
            ("  home", settings.home),
            ("  database", hide(settings.effective_database_url)),
            ("  broker", hide(machine.broker_url) + where),
            (
                "  worker",
                f"process {machine.worker_pid}, device {settings.device}, queues {', '.join(settings.queues)}",
            ),
            ("  dashboard", api or "not installed (pip install 'textmill[api]')"),
            ("  HTTP API", f"{api}/api/v1" if api else "not installed (pip install 'textmill[api]')"),
            ("  logs", settings.home / "logs"),
        ]
    )
    return (
        f"textmill is up\n{about}\n\nin another terminal:\n"
        "  textmill submit classify texts.txt --model fake\n"
        "  textmill list\n\nCtrl-C stops it; jobs are kept."
    )


def _say(text: str) -> None:
    click.echo(f"textmill: {text}", err=True)
