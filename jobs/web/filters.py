"""The filter box over the list of jobs: `task:classify state:running label:team=news after:2026-11-01 job_01...`."""

import shlex
from datetime import UTC, datetime
from typing import NamedTuple

from jobs.errors import UnknownJob
from jobs.states import JobState
from jobs.store import ids
from jobs.store.finding import JobFilter

QUALIFIERS = ("task", "model", "queue", "state", "label", "after", "before")
PAUSED = "paused"
LONGEST = 500
TEXT = "the beginning of an id"
"""What a word without a qualifier is."""


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
    if len(text) > LONGEST:
        wrong.append(f"a filter has at most {LONGEST} characters; what is behind them was not read")
    for word in _words(text[:LONGEST], wrong):
        name, colon, value = word.partition(":")
        about = name if colon else TEXT
        if "\0" in word:
            wrong.append(f"{word!r}: no job has a NUL character in it")
        elif colon and name not in QUALIFIERS:
            wrong.append(f"{name!r} is no qualifier; there are: {', '.join(QUALIFIERS)}")
        elif colon and not value:
            wrong.append(f"{name}: needs a value")
        elif name == "label" and colon:
            _label(value, labels, wrong)
        elif name == "state" and colon:
            states += _states(value, wrong)
        elif about in given or about in times:
            wrong.append(f"{about} is given twice; {word!r} was left out")
        elif about in ("after", "before"):
            _time(about, value, times, wrong)
        elif about != TEXT:
            given[about] = value
        elif _begins_an_id(word, wrong):
            given[TEXT] = word
    paused = PAUSED in states
    if paused and set(states) != {PAUSED}:
        wrong.append(f"state: {PAUSED} goes with no other; the others were left out")
    made = JobFilter(
        states=None if paused else states or None,
        # A paused job is in some state, too; whoever asks for a state means those that go on.
        paused=True if paused else False if states else None,
        task=given.get("task"),
        model=given.get("model"),
        queue=given.get("queue"),
        labels=labels,
        created_after=times.get("after"),
        created_before=times.get("before"),
        text=given.get(TEXT, ""),
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


def _begins_an_id(word: str, wrong: list[str]) -> bool:
    try:
        ids.span(word)
    except UnknownJob:
        wrong.append(
            f"{word!r} is not {TEXT} ({ids.PREFIX}...); what else is looked for has a qualifier: task:classify"
        )
        return False
    return True


def _label(value: str, labels: dict[str, str | None], wrong: list[str]) -> None:
    name, equals, wanted = value.partition("=")
    if name in labels:
        wrong.append(f"label {name!r} is given twice; {value!r} was left out")
    else:
        labels[name] = wanted if equals else None


def _states(value: str, wrong: list[str]) -> list[str]:
    """Those of the list that there are."""
    known = [*JobState, PAUSED]
    given = list(dict.fromkeys(value.split(",")))
    wrong += [f"state {each!r} is unknown; there are: {', '.join(known)}" for each in given if each not in known]
    return [each for each in given if each in known]


def _time(name: str, value: str, times: dict[str, datetime], wrong: list[str]) -> None:
    try:
        found = datetime.fromisoformat(value)
        times[name] = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):  # the second: of a time zone in which it is not yet the year 1, say
        wrong.append(f"{name}:{value} is no date; write 2026-11-27 or 2026-11-27T13:00")
