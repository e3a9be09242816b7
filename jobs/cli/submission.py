"""Submits a corpus to a deployment: the registry decides what a model's name means, never the file system."""

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from jobs.cli.choice import only_one
from jobs.cli.inputs import Noticed, open_inputs
from jobs.cli.loading import filtered, left_out
from jobs.corpus import Fields, Rows
from jobs.settings import load_settings
from jobs.tasks import resolve

if TYPE_CHECKING:
    from jobs.client import Client
    from jobs.schemas import Job


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What was typed after `textmill submit`."""

    task: str
    inputs: tuple[str, ...]
    model: str | None
    params: dict[str, Any]
    text_field: str | None
    id_field: str | None
    rows: Rows
    format: str | None
    query: str | None
    on_invalid: Literal["reject", "skip"]
    options: dict[str, Any] = field(default_factory=dict)
    """Further arguments of `Client.submit`."""


def submitted(client: "Client", wish: Submission) -> "Job":
    """The job, sealed. Raises what is wrong with the wish."""
    task, params = resolve(wish.task, wish.params)
    fields = Fields(main=task.main_field, text=wish.text_field, id=wish.id_field, rows=wish.rows)
    settings = load_settings()
    with open_inputs(wish.inputs, settings, fields, form=wish.format, query=wish.query, say=_say) as source:
        handle = client.submit(
            task.name,
            Noticed(source, _say),
            model=wish.model or only_one(client.registry.list(), task.name),
            params=params,
            on_invalid=wish.on_invalid,
            **{**wish.options, "labels": {**source.labels, **wish.options.get("labels", {})}},
        )
    for notice in (*filtered(source), *left_out(handle, settings)):
        _say(notice)
    return handle.refresh()


def estimate(client: "Client", wish: Submission, *, as_json: bool) -> int:
    """Print what the wish would be as a job; the exit code."""
    from jobs.cli.dry_run import estimated, exit_code, told

    task, _ = resolve(wish.task, wish.params)
    found = estimated(
        client,
        wish.model or only_one(client.registry.list(), task.name),
        task=wish.task,
        inputs=wish.inputs,
        params=wish.params,
        text_field=wish.text_field,
        id_field=wish.id_field,
        rows=wish.rows,
        form=wish.format,
        query=wish.query,
        keep=wish.options["keep"],
    )
    print(found.model_dump_json() if as_json else told(found))
    return exit_code(found, wish.on_invalid)


def interrupted(key: str | None) -> str:
    """What became of a submit that was told to end."""
    return "interrupted; nothing was submitted" if key is None else "interrupted; the same command goes on"


def _say(text: str) -> None:
    print(f"textmill: {text}", file=sys.stderr, flush=True)
