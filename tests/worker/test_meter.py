"""What the device did with its time, as heartbeats tell it."""

from typing import Any

from worker.meter import Meter


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_without_work_there_is_nothing_to_tell() -> None:
    clock = Clock()
    meter = Meter(clock)

    clock.now += 60

    assert meter.load([]) is None


def test_the_busy_share_is_of_the_time_there_was_work() -> None:
    clock = Clock()
    meter = Meter(clock)

    clock.now += 50
    with meter.shift():
        clock.now += 1
        with meter.step():
            clock.now += 3

    assert meter.load([{"tokens": 90, "padded_tokens": 100}]) == {"busy": 0.75, "padding": 0.1, "tokens_per_s": 22.5}


def test_a_report_in_mid_step_counts_what_has_passed_of_it_once() -> None:
    clock = Clock()
    meter = Meter(clock)

    with meter.shift(), meter.step():
        clock.now += 2
        first = meter.load([])
        clock.now += 2
    clock.now += 2
    second = meter.load([])

    assert first == {"busy": 1.0, "tokens_per_s": 0.0}
    assert second == {"busy": 1.0, "tokens_per_s": 0.0}
    assert meter.load([]) is None


def test_each_report_is_about_the_time_since_the_one_before() -> None:
    clock = Clock()
    meter = Meter(clock)
    stats: list[dict[str, Any]] = [{"decode_rows": 0, "decode_slots": 0}, {"tokens": 5}]

    with meter.shift():
        clock.now += 1
        meter.load(stats)
        stats[0] |= {"decode_rows": 18, "decode_slots": 20}
        clock.now += 1

        assert meter.load(stats) == {"busy": 0.0, "occupancy": 0.9, "tokens_per_s": 0.0}
