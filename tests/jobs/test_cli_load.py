"""What `watch` says of the devices."""

from datetime import UTC, datetime

from jobs.cli.load import in_words
from jobs.store.values import WorkerRow

NOW = datetime(2026, 11, 25, tzinfo=UTC)


def worker(**load: float) -> WorkerRow:
    return WorkerRow(
        "w", "host", 1, "boot", "cpu", (), ("default",), "working", load or None, False, None, None, NOW, NOW
    )


def test_one_device_tells_what_it_does() -> None:
    words = in_words([worker(busy=0.934, padding=0.021, occupancy=0.88, tokens_per_s=4100.4)])

    assert words == "device 93 % busy, 2 % padding, 88 % of decode rows in use, 4,100 useful tokens/s"


def test_what_does_not_occur_is_left_out() -> None:
    assert in_words([worker(busy=1.0, tokens_per_s=12.0)]) == "device 100 % busy, 12 useful tokens/s"


def test_shares_of_several_devices_are_means_and_rates_are_sums() -> None:
    words = in_words([worker(busy=0.5, tokens_per_s=10.0), worker(), worker(busy=1.0, tokens_per_s=20.0)])

    assert words == "2 devices 75 % busy, 30 useful tokens/s"


def test_idle_workers_say_nothing() -> None:
    assert in_words([worker()]) == ""
    assert in_words([]) == ""
