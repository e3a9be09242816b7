"""Arguments and options that several commands take, written once; each is a decorator of a command's function."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Literal, TypeVar, cast

import click

Function = TypeVar("Function", bound=Callable[..., Any])
OnInvalid = Literal["reject", "skip"]

ANY_MODEL = "A name from `textmill models list`, a model's folder, or its Hub id."

job = click.argument("job", help="A job's id, or its beginning.")
output = click.option("-o", "--output", metavar="OUT", default="-", help="A .jsonl or .csv file; - is stdout.")
text_field = click.option("--text-field", metavar="F", help="The input's field that holds the text.")

query = click.option(
    "--query", metavar="SQL", help="What to read of an input that is a database's URL: a SELECT, or a table's name."
)
incremental = click.option(
    "--incremental",
    metavar="NAME",
    help="Leave out what was done under that NAME; see `textmill seen`.",
)


def model(says: str) -> Callable[[Function], Function]:
    """`--model`, with what may be named there."""
    return click.option("--model", metavar="MODEL", help=says)


def priority(says: str) -> Callable[[Function], Function]:
    """`--priority`, with what it goes before."""
    return click.option("--priority", metavar="N", type=click.IntRange(-100, 100), default=0, help=says)


def as_json(says: str = "JSON, one object a line.") -> Callable[[Function], Function]:
    """`--json`, with what is JSON then."""
    return click.option("--json", "as_json", is_flag=True, help=says)


def before_paying(function: Function) -> Function:
    """What a user wants to know before a job is run as a whole, and what is to stop it. All but `dry_run` are called as
    `Client.submit` calls them."""
    for each in reversed(_BEFORE_PAYING):
        function = each(function)
    return function


_BEFORE_PAYING = (
    click.option(
        "--dry-run", is_flag=True, help="Only count: items, tokens, long texts, duplicates, time. Stores nothing."
    ),
    click.option(
        "--canary",
        metavar="N",
        type=click.IntRange(1, 1000),
        help="Run N items of all lengths first; the rest waits for `textmill approve`.",
    ),
    click.option("--go-on", is_flag=True, help="The rest follows the canary by itself, unless too much of it failed."),
    click.option(
        "--max-error-share",
        metavar="SHARE",
        type=click.FloatRange(0, 1, max_open=True),
        help="Stop when more of the items than this fail: 0.05 is one in twenty.",
    ),
    click.option(
        "--errors-after", metavar="N", type=click.IntRange(1), default=100, help="... counted from N results on."
    ),
    click.option(
        "--on-errors",
        metavar="pause|fail",
        type=click.Choice(["pause", "fail"]),
        default="pause",
        help="How it is stopped.",
    ),
)


def task_over_inputs(function: Function) -> Function:
    """TASK INPUT..., the task's parameters, and how the inputs are read."""
    for each in reversed(_TASK_OVER_INPUTS):
        function = each(function)
    return function


def rows(function: Function) -> Function:
    """Which of the inputs' rows become items, and of what; the function takes them as `rows`, a `jobs.corpus.Rows`."""

    @wraps(function)
    def gathered(*, map: tuple[str, ...], template: str | None, seed: int | None, **given: Any) -> Any:
        from jobs.cli.params import rows

        asked = {name: given.pop(name) for name in ("where", "limit", "sample")}
        return function(rows=rows(map, template, seed, **asked), **given)

    wrapped: Any = gathered
    for each in reversed(_ROWS):
        wrapped = each(wrapped)
    return cast(Function, wrapped)


_TASK_OVER_INPUTS = (
    click.argument("task", help="What to do: classify, summarize, ...; see `textmill tasks`."),
    click.argument(
        "inputs",
        metavar="INPUT...",
        nargs=-1,
        required=True,
        help="Files (JSONL, CSV, Parquet, text), 'data/**/*.jsonl', folders, URLs, job:ID, or - for stdin.",
    ),
    click.option("-p", "--param", metavar="K=V", multiple=True, help="A parameter of the task; may be repeated."),
    text_field,
    click.option("--id-field", metavar="F", help="The input's field that names each item."),
    click.option("--keep", metavar="A,B", help="Input fields to carry over to the results."),
    click.option("--format", "form", metavar="jsonl|csv|text", help="Of the inputs, if their names do not tell."),
    click.option(
        "--on-invalid",
        metavar="reject|skip",
        type=click.Choice(["reject", "skip"]),
        default="reject",
        help="What to do about lines that cannot be items.",
    ),
)

_ROWS = (
    click.option(
        "--map",
        metavar="FIELD=COLUMN",
        multiple=True,
        help="A field of the items is that column; doc.body goes inside.",
    ),
    click.option("--template", metavar="T", help="The text, of several columns: 'Title: {title}\\n\\n{body}'."),
    click.option("--where", metavar="EXPR", help="Only rows of which it is true: \"lang = 'en' and stars >= 4\"."),
    click.option("--limit", metavar="N", type=click.IntRange(1), help="Only the first N rows."),
    click.option("--sample", metavar="N", type=click.IntRange(1), help="Only N rows, drawn by chance."),
    click.option("--seed", metavar="S", type=int, help="Of the sample; 0 by default."),
)


def placed(function: Function) -> Function:
    """Where and how soon a job is worked on, and who is told."""
    for each in reversed(_PLACED):
        function = each(function)
    return function


_PLACED = (
    click.option("--queue", metavar="QUEUE", default="default", help="Which workers' queue."),
    priority("Higher goes first."),
    click.option("--weight", metavar="N", type=float, default=1.0, help="Share of the work beside other jobs."),
    click.option("--label", metavar="K=V", multiple=True, help="May be repeated."),
    click.option("--webhook", metavar="ID", help="Tell it how the job ended (`textmill webhooks add`)."),
    click.option("--sink", metavar="OUT", help="Where upkeep writes the results then: a file, a URL, a table."),
)
