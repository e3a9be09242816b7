"""When schedules are due: cron, intervals, summer time, missed times, jitter."""

from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import pytest

from jobs.errors import InvalidParams
from jobs.schedules import times
from jobs.schemas import Schedule, ScheduleSpec


def spec(**given: Any) -> ScheduleSpec:
    return ScheduleSpec(**{"task": "classify", "inputs": ("a.txt",), **given})


def schedule(next_due_at: datetime, **given: Any) -> Schedule:
    made = spec(**given)
    return Schedule(
        id="sch_1", tenant="default", name="s", spec=made, paused=False, next_due_at=next_due_at, created_at=next_due_at
    )


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def first(count: int, moment: str, **given: Any) -> list[str]:
    return [f"{each:%m-%d %H:%M}" for each in islice(times.after(spec(**given), at(moment)), count)]


def test_cron_times_are_those_of_the_zone() -> None:
    assert first(3, "2026-11-27T05:00", cron="0 7 * * mon-fri", timezone="Europe/Berlin") == [
        "11-27 06:00",
        "11-30 06:00",
        "12-01 06:00",
    ]


def test_a_time_that_summer_skips_is_due_right_after_it() -> None:
    assert first(3, "2026-03-28T00:00", cron="30 2 * * *", timezone="Europe/Berlin") == [
        "03-28 01:30",
        "03-29 01:00",  # 3:00 in Berlin; there is no 2:30
        "03-30 00:30",
    ]


def test_a_time_that_comes_twice_is_due_once() -> None:
    assert first(3, "2026-10-24T12:00", cron="30 2 * * *", timezone="Europe/Berlin") == [
        "10-25 00:30",
        "10-26 01:30",
        "10-27 01:30",
    ]


def test_every_half_hour_goes_on_through_the_hour_that_comes_twice() -> None:
    assert first(6, "2026-10-24T23:45", cron="*/30 * * * *", timezone="Europe/Berlin") == [
        *("10-25 00:00", "10-25 00:30", "10-25 01:00", "10-25 01:30", "10-25 02:00", "10-25 02:30")
    ]


def test_intervals_are_from_due_time_to_due_time() -> None:
    assert first(3, "2026-11-27T05:00", every_s=5400) == ["11-27 06:30", "11-27 08:00", "11-27 09:30"]


def test_nothing_is_due_after_the_end() -> None:
    assert first(9, "2026-11-27T05:00", every_s=3600, ends_at=at("2026-11-27T07:00")) == ["11-27 06:00", "11-27 07:00"]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({}, "one of cron, every_s and on_change_s; given: none"),
        ({"cron": "* * * * *", "every_s": 5}, "given: cron, every_s"),
        ({"cron": "61 * * * *"}, "Bad minute; it is five fields"),
        ({"cron": "banana"}, "five fields"),
        ({"cron": "0 0 30 2 *", "timezone": "Mars/Olympus"}, "timezone 'Mars/Olympus' is unknown"),
        ({"every_s": 60, "timezone": "../../etc/passwd"}, "unknown"),
    ],
)
def test_what_can_never_be_is_refused_and_told_why(given: Any, why: str) -> None:
    with pytest.raises(InvalidParams, match=why):
        times.check(spec(**given))


def test_it_is_said_in_plain_words() -> None:
    assert times.explained(spec(cron="0 7 * * mon-fri", timezone="Europe/Berlin")) == (
        "At 07:00 on Monday through Friday (Europe/Berlin)"
    )
    assert times.explained(spec(every_s=7200)) == "Every 2 hours"
    assert times.explained(spec(on_change_s=60)) == "Every minute, if the inputs have changed"


def test_a_due_time_that_has_just_come_is_fired_whatever_the_policy() -> None:
    for misfire in ("skip", "last", "all"):
        plan = times.plan(schedule(at("2026-11-27T05:00"), every_s=3600, misfire=misfire), at("2026-11-27T05:00:30"))
        assert plan == ([at("2026-11-27T05:00")], [], at("2026-11-27T06:00"))


@pytest.mark.parametrize(
    ("misfire", "fired", "missed"), [("skip", [], [5, 6, 7]), ("last", [7], [5, 6]), ("all", [5, 6, 7], [])]
)
def test_missed_times_are_left_out_or_made_up_for(misfire: str, fired: list[int], missed: list[int]) -> None:
    plan = times.plan(schedule(at("2026-11-27T05:00"), every_s=3600, misfire=misfire), at("2026-11-27T07:30"))
    assert [each.hour for each in plan.fired] == fired
    assert [each.hour for each in plan.missed] == missed
    assert plan.next_due_at == at("2026-11-27T08:00")


def test_a_deployment_that_was_away_for_years_does_not_count_every_minute() -> None:
    plan = times.plan(schedule(at("2020-01-01T00:00"), cron="* * * * *"), at("2026-11-27T07:30:20"))
    assert len(plan.fired) + len(plan.missed) == times.MOST_MISSED
    assert plan.next_due_at == at("2026-11-27T07:31")


def test_jitter_is_the_same_whoever_asks_and_differs_from_run_to_run() -> None:
    made = schedule(at("2026-11-27T05:00"), every_s=3600, jitter_s=600)
    later = [times.begins_at(made, at("2026-11-27T05:00") + timedelta(hours=n)) for n in range(20)]
    again = [times.begins_at(made, at("2026-11-27T05:00") + timedelta(hours=n)) for n in range(20)]
    waits = [(each - at("2026-11-27T05:00") - timedelta(hours=n)).total_seconds() for n, each in enumerate(later)]
    assert later == again
    assert all(0 <= wait < 600 for wait in waits)
    assert len(set(waits)) == 20
