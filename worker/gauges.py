"""A worker's device and models for Prometheus, read when somebody scrapes."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from worker.devices import batch_tokens

if TYPE_CHECKING:
    from worker.machine import Machine

COUNTED = {
    "shift": ("textmill_shift_seconds", "Time in which there was work"),
    "step": ("textmill_device_busy_seconds", "Time in which the device computed"),
    "tokens": ("textmill_device_tokens", "Tokens that went through models and meant something"),
    "padded_tokens": ("textmill_device_padded_tokens", "The same with padding"),
    "batches": ("textmill_device_batches", "Passes through models"),
    "decode_rows": ("textmill_decode_rows", "Rows that decoded, summed over steps"),
    "decode_slots": ("textmill_decode_slots", "Rows that could have decoded while work remained"),
}


class Gauges:
    """A collector of one machine's figures."""

    def __init__(self, machine: "Machine") -> None:
        self._machine = machine

    def describe(self) -> list[Metric]:
        """Nothing beforehand."""
        return []

    def collect(self) -> Iterator[Metric]:
        machine = self._machine
        totals = machine.meter.totals(machine.residency.worked())
        for name, (metric, said) in COUNTED.items():
            yield CounterMetricFamily(metric, said, value=totals[name])
        budget = "Most tokens of one pass: with tokens and passes, how well batches are filled"
        yield GaugeMetricFamily(
            "textmill_device_batch_tokens_limit", budget, value=batch_tokens(machine.settings, machine.device.name)
        )
        memory = GaugeMetricFamily(
            "textmill_device_memory_bytes", "Memory of the device: all of it, and what models may take", labels=["kind"]
        )
        memory.add_metric(["total"], machine.device.memory_bytes)
        memory.add_metric(["for_models"], machine.device.memory_bytes * machine.settings.memory_share)
        yield memory
        loaded = GaugeMetricFamily("textmill_model_memory_bytes", "What a loaded model takes", labels=["model"])
        for name, size in machine.residency.sizes().items():
            loaded.add_metric([name], size)
        yield loaded
        yield CounterMetricFamily(
            "textmill_hints_ignored", "Hints for queues that this worker does not serve", value=machine.ignored
        )
