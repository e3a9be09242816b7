"""The command tree: which command is in which file."""

import os
from typing import Any

import click

from jobs.cli import INTERRUPTED
from jobs.cli.api import api
from jobs.cli.db import db
from jobs.cli.doctor import doctor
from jobs.cli.evaluate import evaluate
from jobs.cli.group import InOrder
from jobs.cli.jobs import approve, cancel, deliver, list_jobs, pause, results, resume, status, watch
from jobs.cli.keys import keys
from jobs.cli.models import models
from jobs.cli.run import run
from jobs.cli.schedules import schedule
from jobs.cli.search import search
from jobs.cli.seen import seen
from jobs.cli.services import health, upkeep, worker
from jobs.cli.submit import retry, submit
from jobs.cli.tasks import tasks
from jobs.cli.tenants import tenants
from jobs.cli.up import up
from jobs.cli.webhooks import webhooks

COMMANDS = (
    *(run, up, submit, status, watch, results, list_jobs, approve, pause, resume, cancel, retry, deliver),
    *(schedule, seen, evaluate, search),
    *(tasks, worker, upkeep, api, health, doctor, models, keys, tenants, webhooks, db),
)
"""In the order of `textmill --help`."""

EPILOG = "Settings: TEXTMILL_* variables or textmill.toml; `textmill doctor` shows those in force."


class Interruptible(InOrder):
    """Ctrl-C ends the command with a code of its own; click's is that of any error."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise click.exceptions.Exit(INTERRUPTED) from error


@click.group(
    cls=Interruptible,
    commands=COMMANDS,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
)
@click.option("--home", metavar="FOLDER", help="Where the embedded database, broker and logs live [~/.textmill].")
@click.version_option(package_name="textmill", message="%(prog)s %(version)s", help="Show the version and leave.")
def textmill(home: str | None) -> None:
    """Bulk NLP jobs on your own machines. Begin with: textmill run classify texts.txt --model fake"""
    if home is not None:
        os.environ["TEXTMILL_HOME"] = home
