"""`textmill worker`, `textmill upkeep` and `textmill health`: the parts of a deployment, and how they are."""

import json
import os
import signal
import sys
import threading
from typing import Literal

import click

from jobs.cli.options import as_json
from jobs.cli.params import words
from jobs.cli.session import store


@click.command()
@click.option("--queues", metavar="A,B", help="Serve these queues, with commas between [default].")
@click.option("--one", is_flag=True, help="One process, not started again when it ends: for your own supervisor.")
def worker(queues: str | None, *, one: bool) -> None:
    """Run workers in the foreground: one per GPU, started again if it dies or hangs. Ends with SIGTERM or Ctrl-C when
    its work is put away; told twice, it hurries."""
    from jobs.local.process import PYTHON, environment
    from jobs.settings import load_settings

    settings = load_settings(**({"queues": words(queues)} if queues else {}))
    sys.stdout.flush()
    os.execve(sys.executable, [*PYTHON, "-m", "worker", *(["--one"] if one else [])], environment(settings))


@click.command()
def upkeep() -> None:
    """Run upkeep in the foreground: reaping, hints, finishing. Any number may run; one at a time does the work."""
    from jobs.local.service import run_upkeep
    from jobs.logs import log_to_stderr
    from jobs.settings import load_settings

    settings, stop = load_settings(), threading.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: stop.set())
    log_to_stderr(settings)
    with store(settings) as opened:
        click.echo(f"upkeep: every {settings.upkeep_s:g} s; Ctrl-C ends it", err=True)
        code = run_upkeep(settings, opened, stop)
    raise click.exceptions.Exit(code)


@click.command()
@click.argument(
    "probe",
    type=click.Choice(["live", "ready"]),
    default="live",
    help="live: it goes on. ready: it could work on a job now.",
)
@click.option("--of", type=click.Choice(["worker", "upkeep"]), help="Look at one part alone.")
@as_json("One line of JSON with every process.")
def health(probe: Literal["live", "ready"], of: str | None, *, as_json: bool) -> None:
    """Is what runs here alive, or ready for work? Exit code 0: yes; 1: no, or nothing runs here."""
    from jobs.health import home, judge, roles

    verdict = judge(home(), probe, roles(of))
    click.echo(json.dumps(verdict._asdict()) if as_json else verdict.says)
    raise click.exceptions.Exit(not verdict.ok)
