"""The filter box."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.web import filters


def test_words_become_a_filter() -> None:
    asked = filters.parse(
        'task:ner model:"my model" state:running,failed label:team=news label:urgent after:2026-11-01 job_01'
    )

    assert asked.wrong == []
    assert asked.filter.task == "ner"
    assert asked.filter.model == "my model"
    assert asked.filter.states == ["running", "failed"]
    assert asked.filter.labels == {"team": "news", "urgent": None}
    assert asked.filter.created_after == datetime(2026, 11, 1, tzinfo=UTC)
    assert asked.filter.text == "job_01"


def test_what_is_not_understood_is_said_and_left_out() -> None:
    asked = filters.parse("state:hungry after:soon colour:red task:")

    assert len(asked.wrong) == 4
    assert asked.filter == filters.parse("").filter


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("label:a\0=b", "NUL"),
        ("task:a\0", "NUL"),
        ("before:0001-01-01T00:00+14:00", "is no date"),
        ("after:9999-12-31T23:59-14:00", "is no date"),
        ("task:ner task:embed", "given twice"),
        ("job_01 job_02", "given twice"),
        ("label:a=1 label:a=2", "given twice"),
        ("state:paused,running", "goes with no other"),
        ("state:running state:paused", "goes with no other"),
        ("classify", "'classify' is not the beginning of an id"),
        ("job_", "is not the beginning of an id"),
        ("task:ner " * 100, "at most 500 characters"),
    ],
)
def test_nothing_of_a_filter_is_left_out_in_silence(text: str, said: str) -> None:
    assert any(said in each for each in filters.parse(text).wrong)


@pytest.mark.parametrize(
    "text", ["state:running,failed", "state:running state:failed", "label:a label:b", "task: task:ner"]
)
def test_what_may_be_said_twice_is(text: str) -> None:
    assert not any("twice" in each for each in filters.parse(text).wrong)


def test_another_state_keeps_the_rest() -> None:
    assert filters.with_state('state:running label:"a b=c"', "failed") == "state:failed 'label:a b=c'"
    assert filters.with_state("state:running task:ner", None) == "task:ner"


@given(st.text(max_size=600))
def test_no_text_is_an_error(text: str) -> None:
    filters.parse(text)
    filters.with_state(text, "failed")
