"""The filter box over the list of jobs: `task:classify state:running label:team=news after:2026-11-01 job_01...`."""

import shlex
from datetime import UTC, datetime
from typing import NamedTuple

from jobs.states import JobState
from jobs.store.finding import JobFilter

QUALIFIERS = ("task", "model", "queue", "state", "label", "after", "before")
PAUSED = "paused"
LONGEST = 500


class Asked(NamedTuple):
    """A filter as it was typed."""

    filter: JobFilter
    wrong: list[str]
    """What of it could not be understood, and was left out."""


def parse(text: str) -> Asked:
    """The filter that these words make. Never raises: what is wrong is said beside the list."""
    states: list[str] = []
    labels: dict[str, str | None] = {}
    given: dict[str, str] = {}
    times: dict[str, datetime] = {}
    wrong: list[str] = []
    paused = False
    for word in _words(text[:LONGEST], wrong):
        name, colon, value = word.partition(":")
        if not colon:
            given["text"] = word
        elif name not in QUALIFIERS:
            wrong.append(f"{name!r} is no qualifier; there are: {', '.join(QUALIFIERS)}")
        elif not value:
            wrong.append(f"{name}: needs a value")
        elif name == "state":
            paused = _state(value, states, wrong) or paused
        elif name == "label":
            label, equals, wanted = value.partition("=")
            labels[label] = wanted if equals else None
        elif name in ("after", "before"):
            _time(name, value, times, wrong)
        else:
            given[name] = value
    if paused and states:
        wrong.append(f"state: {PAUSED} goes with no other")
        states = []
    made = JobFilter(
        states=states or None,
        # A paused job is in some state, too; whoever asks for a state means those that go on.
        paused=True if paused else False if states else None,
        task=given.get("task"),
        model=given.get("model"),
        queue=given.get("queue"),
        labels=labels,
        created_after=times.get("after"),
        created_before=times.get("before"),
        text=given.get("text", ""),
    )
    return Asked(made, wrong)


def with_state(text: str, state: str | None) -> str:
    """The same filter with another state, or none."""
    kept = [word for word in _words(text[:LONGEST], []) if not word.startswith("state:")]
    return " ".join(shlex.quote(word) for word in ([f"state:{state}"] if state else []) + kept)


def _words(text: str, wrong: list[str]) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        wrong.append("a quotation mark is not closed")
        return text.replace('"', " ").replace("'", " ").split()


def _state(value: str, states: list[str], wrong: list[str]) -> bool:
    """Whether paused ones are wanted."""
    for each in value.split(","):
        if each == PAUSED:
            return True
        if each in list(JobState):
            states.append(each)
        else:
            wrong.append(f"state {each!r} is unknown; there are: {', '.join([*JobState, PAUSED])}")
    return False


def _time(name: str, value: str, times: dict[str, datetime], wrong: list[str]) -> None:
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        wrong.append(f"{name}:{value} is no date; write 2026-11-27 or 2026-11-27T13:00")
        return
    times[name] = found if found.tzinfo else found.replace(tzinfo=UTC)
