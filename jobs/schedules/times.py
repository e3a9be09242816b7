"""When a schedule is due: cron expressions (cronsim, as Debian's cron reads them), intervals, looks at the inputs.

Cron times are those of a clock on the wall of the schedule's time zone. A time that the clock skips when summer begins
is due at the moment after the gap; one that it shows twice when summer ends is due once, but for expressions that are
due every so many minutes or hours, which go on through the hour.
"""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import chain, islice
from typing import NamedTuple
from zoneinfo import ZoneInfo

from jobs.errors import InvalidParams
from jobs.schemas import Schedule, ScheduleSpec

LATE_S = 60.0
"""A due time counts as missed when it could not be fired for so long."""
MOST_MISSED = 1000
"""Missed due times that are listed one by one, and most that `all` fires at once."""


class Plan(NamedTuple):
    """What is to be done about the due times that have come."""

    fired: list[datetime]
    missed: list[datetime]
    next_due_at: datetime | None


def check(spec: ScheduleSpec) -> None:
    """Raises InvalidParams for a schedule that can never be."""
    given = [name for name in ("cron", "every_s", "on_change_s") if getattr(spec, name) is not None]
    if len(given) != 1:
        raise InvalidParams(f"a schedule has one of cron, every_s and on_change_s; given: {', '.join(given) or 'none'}")
    zone(spec)
    if spec.cron is not None:
        _cron(spec, datetime.now(UTC))


def zone(spec: ScheduleSpec) -> ZoneInfo:
    """The time zone. Raises InvalidParams."""
    try:
        return ZoneInfo(spec.timezone)
    except (KeyError, ValueError, OSError) as error:
        raise InvalidParams(
            f"timezone {spec.timezone!r} is unknown; it is a name such as Europe/Berlin or UTC"
        ) from error


def explained(spec: ScheduleSpec) -> str:
    """When it is due, in plain words."""
    from cronsim import CronSim

    if spec.cron is not None:
        return f"{CronSim(spec.cron, datetime.now()).explain()} ({spec.timezone})"
    seconds = spec.every_s or spec.on_change_s or 0.0
    return f"Every {_words(seconds)}" + ("" if spec.every_s is not None else ", if the inputs have changed")


def after(spec: ScheduleSpec, moment: datetime) -> Iterator[datetime]:
    """The due times after a moment, in UTC, up to the schedule's end."""
    for due_at in _endless(spec, moment):
        if spec.ends_at is not None and due_at > spec.ends_at:
            return
        yield due_at


def plan(schedule: Schedule, moment: datetime) -> Plan:
    """What to do at this moment about a schedule whose next due time has come."""
    first = schedule.next_due_at
    assert first is not None
    spec = schedule.spec
    upcoming = after(spec, first)
    due, following = [first], next(upcoming, None)
    while following is not None and following <= moment and len(due) < MOST_MISSED:
        due.append(following)
        following = next(upcoming, None)
    if following is not None and following <= moment:  # away for very long: go on from now
        following = next(after(spec, moment), None)
    on_time = [each for each in due if (moment - each).total_seconds() <= LATE_S]
    late = due[: len(due) - len(on_time)]
    if spec.misfire == "all":
        return Plan(due, [], following)
    if spec.misfire == "last" and not on_time:
        return Plan(late[-1:], late[:-1], following)
    return Plan(on_time, late, following)


def begins_at(schedule: Schedule, due_at: datetime) -> datetime:
    """The due time and its jitter, which is the same whoever asks."""
    if not schedule.spec.jitter_s:
        return due_at
    digest = hashlib.sha256(f"{schedule.id} {due_at.isoformat()}".encode()).digest()
    return due_at + timedelta(seconds=schedule.spec.jitter_s * int.from_bytes(digest[:4]) / 2**32)


def upcoming(schedule: Schedule, count: int) -> list[datetime]:
    """The next due times in the schedule's time zone; none while it is paused or when it is over."""
    first, spec = schedule.next_due_at, schedule.spec
    if first is None:
        return []
    return [each.astimezone(zone(spec)) for each in islice(chain((first,), after(spec, first)), count)]


def _endless(spec: ScheduleSpec, moment: datetime) -> Iterator[datetime]:
    if spec.cron is not None:
        for found in _cron(spec, moment.astimezone(zone(spec))):
            due_at = found.astimezone(UTC)
            if due_at > moment:
                yield due_at
        return
    step = timedelta(seconds=spec.every_s or spec.on_change_s or 0.0)
    while True:
        moment += step
        yield moment


def _cron(spec: ScheduleSpec, moment: datetime) -> Iterator[datetime]:
    from cronsim import CronSim, CronSimError

    try:
        return iter(CronSim(spec.cron or "", moment))
    except CronSimError as error:
        raise InvalidParams(
            f"cron {spec.cron!r}: {error}; it is five fields, minute hour day month weekday, such as '0 7 * * mon-fri'"
        ) from error


def _words(seconds: float) -> str:
    for size, name in ((86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if seconds >= size and seconds % size == 0:
            count = int(seconds // size)
            return name if count == 1 else f"{count} {name}s"
    return f"{seconds:g} seconds"
