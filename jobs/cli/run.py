"""`textmill run`: one command that does a whole job on this machine, and goes on where it was left."""

import json
from typing import TYPE_CHECKING, Any

import click

from jobs.cli import ERROR, options
from jobs.cli.params import parse, words
from jobs.errors import TextmillError

if TYPE_CHECKING:
    from jobs.corpus import Rows


@click.command()
@options.output
@options.model(options.ANY_MODEL)
@options.task_over_inputs
@options.rows
@options.query
@options.incremental
@options.priority("Higher goes first among this home's jobs.")
@options.before_paying
@options.as_json("Progress and summary as JSON lines on stderr.")
def run(
    task: str,
    inputs: tuple[str, ...],
    output: str,
    model: str | None,
    param: tuple[str, ...],
    text_field: str | None,
    id_field: str | None,
    rows: "Rows",
    keep: str | None,
    form: str | None,
    query: str | None,
    on_invalid: options.OnInvalid,
    incremental: str | None,
    priority: int,
    dry_run: bool,
    as_json: bool,
    **supervised: Any,
) -> None:
    """Run a task over inputs, here and now. Everything is embedded: broker, database, worker.

    Whatever interrupts it, the same command goes on where it was left; a finished one writes its results again. With
    --incremental only new and changed items are run; if there is none, OUT stays as it is.

    Exit codes: 0 all ok, 1 error, 2 wrong command line, 3 finished with failed items, 4 waits for approval, 130
    interrupted.
    """
    from jobs.cli.local_run import LocalRun, Wish

    wish = Wish(
        task=task,
        inputs=inputs,
        output=output,
        model=model,
        params=parse(param),
        text_field=text_field,
        id_field=id_field,
        rows=rows,
        format=form,
        query=query,
        keep=words(keep),
        on_invalid=on_invalid,
        priority=priority,
        supervised=supervised,
        incremental=incremental,
        as_json=as_json,
    )
    try:
        made = LocalRun(wish)
        raise click.exceptions.Exit(made.estimate() if dry_run else made.go())
    except (TextmillError, OSError) as error:
        if not as_json:
            raise
        click.echo(json.dumps({"error": str(error)}), err=True)
        raise click.exceptions.Exit(ERROR) from error
