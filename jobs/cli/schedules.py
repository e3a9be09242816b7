"""`textmill schedule`: jobs that come again, over inputs that grow."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from jobs.cli import options
from jobs.cli.group import InOrder
from jobs.cli.params import labels, moment, parse, seconds, words
from jobs.cli.session import client, store
from jobs.cli.table import facts, table

if TYPE_CHECKING:
    from jobs.corpus import Rows
    from jobs.schemas import Schedule, ScheduleRun, ScheduleSpec

NEXT_SHOWN, RUNS_SHOWN = 5, 50
tenant_option = click.option("--tenant", default="default", metavar="NAME", help="Whose schedule it is.")


@click.group(cls=InOrder)
def schedule() -> None:
    """Jobs that come again."""


@schedule.command()
@click.option("--name", required=True, metavar="NAME", help="What it is called.")
@click.option("--cron", metavar="C", help="Minute, hour, day, month, weekday: '0 7 * * mon-fri'.")
@click.option("--every", metavar="TIME", type=seconds, help="An interval: 90s, 15m, 2h, 1d.")
@click.option("--on-change", metavar="TIME", type=seconds, help="Look so often whether the inputs have changed.")
@click.option("--timezone", default="UTC", metavar="ZONE", help="Of the cron expression: Europe/Berlin.")
@click.option(
    "--overlap",
    type=click.Choice(["skip", "queue", "cancel_previous"]),
    default="skip",
    help="When the run before is not over.",
)
@click.option(
    "--misfire",
    type=click.Choice(["skip", "last", "all"]),
    default="last",
    help="When times were missed because nothing ran.",
)
@click.option("--jitter", type=seconds, default="0s", metavar="TIME", help="Each run begins up to so much later.")
@click.option("--deadline", type=seconds, metavar="TIME", help="A run's job expires so long after its time.")
@click.option("--only-new", is_flag=True, help="Inputs that are as they were at the last run make no job.")
@click.option("--incremental", is_flag=True, help="Submit only items that are new or changed since earlier runs.")
@click.option("--until", type=moment, metavar="TIME", help="Nothing is due after this time (UTC).")
@options.model("A name from `textmill models list`.")
@options.task_over_inputs
@options.rows
@options.placed
@tenant_option
def add(
    name: str,
    cron: str | None,
    every: float | None,
    on_change: float | None,
    timezone: str,
    overlap: str,
    misfire: str,
    jitter: float,
    deadline: float | None,
    only_new: bool,
    incremental: bool,
    until: datetime | None,
    task: str,
    inputs: tuple[str, ...],
    model: str | None,
    param: tuple[str, ...],
    text_field: str | None,
    id_field: str | None,
    rows: "Rows",
    keep: str | None,
    form: str | None,
    on_invalid: options.OnInvalid,
    queue: str,
    priority: int,
    weight: float,
    label: tuple[str, ...],
    webhook: str | None,
    sink: str | None,
    tenant: str,
) -> None:
    """Submit these inputs again and again. Whoever leads upkeep reads them: they have to lie where that runs."""
    from jobs.schedules import making

    spec = _spec(
        task=task,
        inputs=_absolute(inputs),
        format=form,
        text_field=text_field,
        id_field=id_field,
        **asdict(rows),
        model=model,
        params=parse(param),
        queue=queue,
        priority=priority,
        weight=weight,
        labels=labels(label),
        keep=words(keep),
        on_invalid=on_invalid,
        webhook=webhook,
        sink=sink,
        cron=cron,
        every_s=every,
        on_change_s=on_change,
        timezone=timezone,
        overlap=overlap,
        misfire=misfire,
        jitter_s=jitter,
        deadline_s=deadline,
        only_new=only_new,
        incremental=incremental,
        ends_at=until,
    )
    with store() as database, client(database) as opened:
        made = making.add(database, opened, name, spec, tenant=tenant)
    click.echo(_shown(made))


@schedule.command("list")
@click.option("--tenant", metavar="NAME", help="Only this tenant's.")
def index(tenant: str | None) -> None:
    """The schedules, and when each is due next."""
    from jobs.schedules.times import explained

    with store() as opened:
        found = opened.schedules.list(tenant)
    rows = [(each.id, each.tenant, each.name, each.spec.task, explained(each.spec), _due(each)) for each in found]
    heads = ("SCHEDULE", "TENANT", "NAME", "TASK", "WHEN", "NEXT")
    click.echo(table(heads, rows) if rows else "there are no schedules: textmill schedule add --help")


@schedule.command()
@click.argument("schedule")
def show(schedule: str) -> None:
    """A schedule: what it submits, and its next times."""
    with store() as opened:
        click.echo(_shown(opened.schedules.get(schedule)))


@schedule.command()
@click.argument("schedule")
def runs(schedule: str) -> None:
    """What became of its times, the last one first."""
    with store() as opened:
        found = opened.schedules.runs(opened.schedules.get(schedule).id, limit=RUNS_SHOWN)
    rows = [(f"{each.due_at:%F %T}", str(each.state), *_came_of(each)) for each in found]
    click.echo(table(("DUE (UTC)", "STATE", "JOB", "ITEMS", "WHY"), rows) if rows else "it was never due")


@schedule.command()
@click.argument("schedule")
def pause(schedule: str) -> None:
    """Nothing of it is due any more, until it is resumed."""
    with store() as opened:
        found = opened.schedules.pause(opened.schedules.get(schedule).id)
    click.echo(f"{found.name} is paused")


@schedule.command()
@click.argument("schedule")
def resume(schedule: str) -> None:
    """Go on with its next time; those that were missed are left out."""
    from jobs.schedules import making

    with store() as database:
        found = making.resume(database, database.schedules.get(schedule).id)
    click.echo(f"{found.name} is due {_due(found)}")


@schedule.command("run")
@click.argument("schedule")
def run_now(schedule: str) -> None:
    """A run at this moment, beside those of its times."""
    with store() as opened:
        found = opened.schedules.get(schedule)
        opened.schedules.run_now(found.id)
    click.echo(f"{found.name} runs now; see: textmill schedule runs {found.name}")


@schedule.command()
@click.argument("schedule")
def remove(schedule: str) -> None:
    """Take it away with its history; its jobs stay."""
    with store() as opened:
        found = opened.schedules.get(schedule)
        opened.schedules.delete(found.id)
    click.echo(f"{found.name} is removed")


def _spec(**given: Any) -> "ScheduleSpec":
    from pydantic import ValidationError

    from jobs.errors import InvalidParams
    from jobs.schemas import ScheduleSpec
    from jobs.tasks import explain

    try:
        return ScheduleSpec(**given)
    except ValidationError as error:
        raise InvalidParams("\n".join(explain(error))) from error


def _absolute(inputs: tuple[str, ...]) -> tuple[str, ...]:
    from pathlib import Path

    from jobs.chaining import is_job
    from jobs.corpus import database, urls

    if "-" in inputs:
        raise click.BadParameter("standard input is there once; a schedule reads files and folders")
    for each in inputs:
        if is_job(each):
            raise click.BadParameter(
                f"{each}: an ended job's results never change; read them once with `textmill submit`"
            )
        if database.is_database(each):
            raise click.BadParameter(f"{urls.shown(each)}: a schedule reads files, folders and URLs, and no database")
        if urls.is_url(each) and urls.has_secret(each):
            raise click.BadParameter(
                f"{urls.shown(each)}: a schedule keeps its inputs for all to read; where they are read, give logins "
                "and keys in the environment"
            )
    return tuple(each if urls.is_url(each) else str(Path(each).absolute()) for each in inputs)


def _shown(found: "Schedule") -> str:
    from jobs.schedules.times import explained, upcoming

    spec = found.spec
    about = [
        ("schedule", f"{found.name} ({found.id}, tenant {found.tenant})"),
        ("submits", f"{spec.task} on {spec.model or 'the one model that serves it'}: {', '.join(spec.inputs)}"),
        ("rows", _rows_shown(spec)),
        ("when", explained(spec)),
        ("next", "paused" if found.paused else _next(upcoming(found, NEXT_SHOWN))),
        ("if the run before is not over", spec.overlap.replace("_", " ")),
        ("if times were missed", spec.misfire),
    ]
    return facts(about)


def _rows_shown(spec: "ScheduleSpec") -> str | None:
    """Which rows become items, and of what, as it was typed; None: every row as it is."""
    asked = [f"--map {field}={column}" for field, column in spec.map.items()]
    named = ("format", "text_field", "id_field", "template", "where", "limit", "sample")
    asked += [f"--{name.replace('_', '-')} {value}" for name in named if (value := getattr(spec, name)) is not None]
    asked += [f"--seed {spec.seed}"] if spec.sample is not None else []
    return "  ".join(asked) or None


def _next(times: list[datetime]) -> str:
    return ", ".join(f"{each:%F %T %Z}" for each in times) or "never again"


def _due(found: "Schedule") -> str:
    from jobs.durations import duration

    if found.paused:
        return "paused"
    if found.next_due_at is None:
        return "never again"
    return f"in {duration(max(0.0, (found.next_due_at - datetime.now(UTC)).total_seconds()))}"


def _came_of(run: "ScheduleRun") -> tuple[str, str, str]:
    """Its job, how many items that has, and why there is none."""
    return run.job_id or "", "" if run.n_items is None else f"{run.n_items:,}", run.note or ""
