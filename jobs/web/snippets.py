"""A job as a command that would submit the like of it: for curl, for the command line, for Python."""

import json
import shlex
from typing import Any, NamedTuple

from jobs.schemas import Job


class Snippet(NamedTuple):
    name: str
    text: str


def of(job: Job, base_url: str) -> list[Snippet]:
    """All of them. What the items were is not known here: the names of files stand for them."""
    return [
        Snippet("command line", _command(job)),
        Snippet("Python", _python(job, base_url)),
        Snippet("curl", _curl(job, base_url)),
    ]


def _command(job: Job) -> str:
    words = ["textmill", "submit", job.task, "items.jsonl", "--model", job.model]
    for name, value in job.params.items():
        words += ["--param", f"{name}={value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"]
    for name, label in job.labels.items():
        words += ["--label", f"{name}={label}"]
    if job.queue != "default":
        words += ["--queue", job.queue]
    if job.keep:
        words += ["--keep", ",".join(job.keep)]
    if job.priority:
        words += ["--priority", str(job.priority)]
    return shlex.join(words)


def _python(job: Job, base_url: str) -> str:
    given = "".join(f",\n    {name}={value!r}" for name, value in _wanted(job).items() if name != "task")
    url = base_url.rstrip("/")
    return (
        "from jobs import Client\n\n"
        f'client = Client({url!r}, api_key="tm_...")\n'
        f"job = client.submit(\n    {job.task!r},\n    items{given},\n)\n"
        "job.wait(progress=True)\n"
        "for result in job.results():\n    ..."
    )


def _curl(job: Job, base_url: str) -> str:
    body = json.dumps({**_wanted(job), "items": ["..."]}, ensure_ascii=False)
    return (
        f"curl {shlex.quote(base_url.rstrip('/') + '/api/v1/jobs')} \\\n"
        "  -H 'Authorization: Bearer tm_...' -H 'Content-Type: application/json' \\\n"
        f"  -d {shlex.quote(body)}"
    )


def _wanted(job: Job) -> dict[str, Any]:
    """What was asked for beside the items, but for what is so by default."""
    given: dict[str, Any] = {"task": job.task, "model": job.model}
    given |= {"params": job.params} if job.params else {}
    given |= {"labels": job.labels} if job.labels else {}
    given |= {"keep": list(job.keep)} if job.keep else {}
    given |= {"queue": job.queue} if job.queue != "default" else {}
    given |= {"priority": job.priority} if job.priority else {}
    return given
