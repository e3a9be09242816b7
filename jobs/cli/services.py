"""`textmill worker` and `textmill upkeep`: the parts of a deployment, one process each."""

import logging
import os
import signal
import sys
import threading

import click

from jobs.cli.params import words
from jobs.cli.session import store


@click.command()
@click.option("--queues", metavar="A,B", help="Serve these queues, with commas between [default].")
def worker(queues: str | None) -> None:
    """Run one worker in the foreground: one per GPU. Ends with SIGTERM or Ctrl-C when its work is put away."""
    from jobs.local.process import PYTHON, environment
    from jobs.settings import load_settings

    settings = load_settings(**({"queues": words(queues)} if queues else {}))
    sys.stdout.flush()
    os.execve(sys.executable, [*PYTHON, "-m", "worker"], environment(settings))


@click.command()
def upkeep() -> None:
    """Run upkeep in the foreground: reaping, hints, finishing. Any number may run; one at a time does the work."""
    from jobs.local.embedded import holder
    from jobs.queue import Queue
    from jobs.settings import load_settings
    from jobs.upkeep import Upkeep

    settings, stop = load_settings(), threading.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: stop.set())
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    with store(settings) as opened:
        opened.check_schema()
        click.echo(f"upkeep: every {settings.upkeep_s:g} s; Ctrl-C ends it", err=True)
        queue = Queue(settings)
        Upkeep(opened, queue, settings, holder()).run(stop)
        queue.close()
