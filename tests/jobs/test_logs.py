"""The log as JSON: a line for each message, whatever is in it."""

import json
import logging
from typing import Any

import pytest

from jobs.logs import JsonLines


def written(message: str, **about: Any) -> Any:
    record = logging.makeLogRecord({"name": "textmill", "levelname": "INFO", "msg": message, **about})
    line = JsonLines().format(record)
    assert "\n" not in line
    return json.loads(line)


@pytest.mark.parametrize("text", ["plain", "\ud800 of a file's name", "two\nlines", "d\u00e9j\u00e0 \0"])
def test_every_text_is_written_and_read_again(text: str) -> None:
    assert written(text)["message"] == text


@pytest.mark.parametrize(("value", "told"), [(2**80, 2**80), (b"odd", "b'odd'"), ({1: 2}, {"1": 2}), (None, None)])
def test_odd_values_keep_no_message_from_the_log(value: Any, told: Any) -> None:
    assert written("x", job=value)["job"] == told


def test_an_exception_and_a_stack_are_told() -> None:
    try:
        raise ValueError("no")
    except ValueError as error:
        line = written("x", exc_info=(type(error), error, error.__traceback__), stack_info="Stack:\n  here")

    assert line["exception"].endswith("ValueError: no")
    assert line["stack"] == "Stack:\n  here"
