"""`textmill run`: one command that does a whole job on this machine, and goes on where it was left."""

import json
from typing import Annotated

import typer

from jobs.cli import ERROR
from jobs.cli.params import on_invalid_of, parse, words
from jobs.errors import TextmillError


def add_to(app: typer.Typer) -> None:
    app.command("run")(run)


def run(
    task: Annotated[
        str, typer.Argument(metavar="TASK", help="What to do: classify, summarize, ...; see `textmill tasks`.")
    ],
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT...", help="JSONL, CSV or text files (a text a line), folders, or - for stdin."),
    ],
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="OUT", help="A .jsonl or .csv file; - is stdout.")
    ] = "-",
    model: Annotated[
        str | None, typer.Option(help="A name from `textmill models list`, a model's folder, or its Hub id.")
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", "-p", metavar="K=V", help="A parameter of the task; may be repeated."),
    ] = None,
    text_field: Annotated[str | None, typer.Option(metavar="F", help="The input's field that holds the text.")] = None,
    id_field: Annotated[str | None, typer.Option(metavar="F", help="The input's field that names each item.")] = None,
    keep: Annotated[str | None, typer.Option(metavar="A,B", help="Input fields to carry over to the results.")] = None,
    form: Annotated[
        str | None,
        typer.Option("--format", metavar="jsonl|csv|text", help="Of the inputs, if their names do not tell."),
    ] = None,
    on_invalid: Annotated[
        str, typer.Option(metavar="reject|skip", help="What to do about lines that cannot be items.")
    ] = "reject",
    priority: Annotated[int, typer.Option(min=-100, max=100, help="Higher goes first among this home's jobs.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Progress and summary as JSON lines on stderr.")] = False,
) -> None:
    """Run a task over inputs, here and now. Everything is embedded: broker, database, worker.

    Whatever interrupts it, the same command goes on where it was left; a finished one writes its results again.

    Exit codes: 0 all ok, 1 error, 2 wrong command line, 3 finished with failed items, 130 interrupted.
    """
    from jobs.cli.local_run import LocalRun, Wish

    wish = Wish(
        task=task,
        inputs=tuple(inputs),
        output=output,
        model=model,
        params=parse(param or ()),
        text_field=text_field,
        id_field=id_field,
        format=form,
        keep=words(keep),
        on_invalid=on_invalid_of(on_invalid),
        priority=priority,
        as_json=as_json,
    )
    try:
        raise typer.Exit(LocalRun(wish).go())
    except (TextmillError, OSError) as error:
        if not as_json:
            raise
        typer.echo(json.dumps({"error": str(error)}), err=True)
        raise typer.Exit(ERROR) from error
