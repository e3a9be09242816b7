"""What the consumer takes for a hint, and what it sets aside."""

import base64

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.queue import message
from worker.consumer import MAX_BYTES, NotAHint, parse

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def test_a_hint_as_the_queue_writes_it_is_read_back() -> None:
    hint = parse(message("gpu-2", task_id="abc"))

    assert (hint.queue, hint.task_id) == ("gpu-2", "abc")


def test_a_message_as_celery_sends_it_is_a_hint() -> None:
    body = base64.b64encode(orjson.dumps([["default"], {}, {"callbacks": None}])).decode()
    headers = {"task": "textmill.shift", "id": "1", "eta": "not a date", "expires": -1, "retries": 2**63}
    outer = {"body": body, "content-type": "application/json", "content-encoding": "utf-8", "headers": headers}

    hint = parse(orjson.dumps({**outer, "properties": {}}))

    assert hint.queue == "default"


@given(st.binary(max_size=200) | JSON.map(lambda value: orjson.dumps(value, default=str)))
def test_anything_else_is_refused_with_a_reason(raw: bytes) -> None:
    with pytest.raises(NotAHint, match=r"\w"):
        parse(raw)


@given(st.sampled_from(["body", "headers", "content-type"]), JSON)
def test_a_hint_with_a_part_replaced_is_read_or_refused_and_nothing_else(part: str, value: object) -> None:
    outer = {**orjson.loads(message("default")), part: value}

    try:
        hint = parse(orjson.dumps(outer))
    except NotAHint:
        return

    assert isinstance(hint.task_id, str)


def test_an_oversized_entry_is_refused_unread() -> None:
    with pytest.raises(NotAHint, match="too large"):
        parse(b"[" * (MAX_BYTES + 1))
