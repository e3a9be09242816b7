"""Runs a task's items over a loaded model, as the worker does."""

from collections.abc import Mapping
from typing import Any

from jobs import tasks
from jobs.errors import ItemError
from jobs.tasks.base import Failed, More
from tests.engines.conftest import Subject


def run(subject: Subject, name: str, item: str | Mapping[str, Any], params: Mapping[str, Any] | None = None) -> Any:
    """The item's output. Raises ItemError."""
    task = tasks.find(name)
    checked = tasks.validate_params(task, params or {})
    given = task.input.model_validate({task.main_field: item} if isinstance(item, str) else item)
    asked = task.preprocess(given, checked, subject.codec)
    if checked.long_text != "error" and task.shorten and any(map(_refused, subject.codec.encode(asked.requests))):
        asked = task.shorten(given, checked, subject.codec)
    while True:
        outcomes = subject(*asked.requests)
        if failed := next(filter(_refused, outcomes), None):
            raise ItemError(failed.code, failed.message)  # type: ignore[union-attr]
        output = task.postprocess(given, asked, outcomes, checked)
        if not isinstance(output, More):
            return output
        asked = asked._replace(requests=output.requests, state=output.state)


def _refused(outcome: Any) -> bool:
    return isinstance(outcome, Failed)
