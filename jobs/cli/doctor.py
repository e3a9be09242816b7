"""`textmill doctor`: what is in force here, and what is wrong with it."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jobs.cli.session import store
from jobs.cli.table import facts
from jobs.cli.workers import census
from jobs.errors import TextmillError
from jobs.urls import hide

if TYPE_CHECKING:
    from jobs.settings import Settings

PACKAGES = ("textmill", "celery", "redis", "sqlalchemy", "psycopg", "torch", "transformers")
LITTLE_SPACE = 2**30
"""Bytes of free disk below which something is said."""
DEVICES = """
import torch
names = [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
names += ["mps"] if torch.backends.mps.is_available() else []
print(", ".join([*names, f"cpu ({torch.get_num_threads()} threads)"]))
"""
DEVICE_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one look: what was seen, and whether it is wrong."""

    name: str
    text: str
    wrong: bool = False


@click.command()
def doctor() -> None:
    """What is in force, and what is wrong. Secrets are hidden; exit code 1 when something is wrong."""
    from jobs.settings import load_settings

    settings = load_settings()
    click.echo(f"settings\n{_settings(settings)}\n\nversions\n{_versions()}\n\nchecks")
    wrong = 0
    for finding in _checks(settings):
        wrong += finding.wrong
        click.echo(f"  {'WRONG' if finding.wrong else 'ok':<5}  {finding.name}: {finding.text}")
    if wrong:
        click.echo(f"\n{wrong} thing(s) wrong")
        raise click.exceptions.Exit(1)
    click.echo("\nnothing wrong")


def _settings(settings: "Settings") -> str:
    from jobs.local.embedded import EMBEDDED_LEASE_S

    shown = settings.model_dump(mode="json")
    shown["database_url"] = hide(settings.effective_database_url)
    shown["redis_url"] = hide(settings.redis_url) if settings.redis_url else "(the embedded broker of the home)"
    chosen = settings.model_fields_set
    if "lease_s" not in chosen:
        shown["lease_s"] = f"{settings.lease_s} ({EMBEDDED_LEASE_S} under `textmill run` and `textmill up`)"
    return facts([(f"  {name}", f"{value}{' *' if name in chosen else ''}") for name, value in shown.items()]) + (
        "\n  (* set by you; the others are defaults)"
    )


def _versions() -> str:
    found = [(f"  {name}", _version(name)) for name in PACKAGES]
    return facts([("  python", sys.version.split()[0]), *found])


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _checks(settings: "Settings") -> Iterator[Finding]:
    yield _look("home", lambda: _home(settings.home))
    yield _look("disk", lambda: _disk(settings.home))
    yield _look("database", lambda: _database(settings))
    yield _look("workers", lambda: _workers(settings))
    yield _look("redis", lambda: _redis(settings))
    yield _look("device", lambda: _devices(settings))
    yield from _models(settings)


def _look(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, check())
    except (TextmillError, OSError) as error:
        return Finding(name, str(error), wrong=True)


def _home(home: Path) -> str:
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    probe = home / f".doctor-{id(home)}"
    probe.touch()
    probe.unlink()
    return f"{home} is writable"


def _disk(home: Path) -> str:
    free = shutil.disk_usage(home).free
    text = f"{free / 2**30:,.1f} GiB free below {home}"
    if free < LITTLE_SPACE:
        raise TextmillError(text)
    return text


def _database(settings: "Settings") -> str:
    with store(settings) as opened:
        opened.check_schema()
        opened.check_room()
        return f"{hide(settings.effective_database_url)} answers, revision {opened.revision()}"


def _workers(settings: "Settings") -> str:
    with store(settings) as opened:
        return census(opened)


def _redis(settings: "Settings") -> str:
    from jobs.local import broker
    from jobs.queue import Queue

    if settings.redis_url is None and broker.find(settings.home) is None:
        return f"embedded ({broker.binary()}); not running, `textmill run` and `textmill up` start it"
    queue = Queue(settings)
    try:
        waiting = queue.depth(settings.queues[0])
    finally:
        queue.close()
    return f"{hide(settings.redis_url) if settings.redis_url else 'the embedded broker'} answers, {waiting} hints wait"


def _devices(settings: "Settings") -> str:
    """torch is asked in a process of its own: importing it takes seconds and half a gigabyte."""
    if _version("torch") == "not installed":
        return "torch is not installed, so only the fake model runs here; pip install 'textmill[worker]'"
    asked = subprocess.run(
        [sys.executable, "-c", DEVICES], capture_output=True, text=True, timeout=DEVICE_TIMEOUT_S, check=False
    )
    if asked.returncode:
        raise TextmillError(f"torch does not load: {asked.stderr.strip().splitlines()[-1:] or asked.returncode}")
    found = asked.stdout.strip()
    if settings.device not in ("auto", "cpu") and settings.device.split(":")[0] not in found:
        raise TextmillError(f"the device setting is {settings.device!r}, and there is only: {found}")
    return found


def _models(settings: "Settings") -> Iterator[Finding]:
    try:
        with store(settings) as opened:
            specs = opened.models.list()
    except TextmillError:
        return
    for spec in specs:
        missing = Path(spec.path).is_absolute() and not Path(spec.path).is_dir()
        text = f"its folder {spec.path} is missing" if missing else (spec.path or "built in")
        yield Finding(f"model {spec.name}", text, wrong=missing)
