"""Which models stay loaded, and which make room."""

from collections.abc import Callable
from typing import Any

import pytest

from jobs.errors import ModelFailed, UnknownModel
from jobs.models import ModelSpec
from jobs.settings import Settings
from jobs.tasks.base import Classify
from worker.devices import Device
from worker.engines.base import Work
from worker.meter import Meter
from worker.residency import Residency

GIB = 2**30


@pytest.fixture
def make(settings: Callable[..., Settings]) -> Callable[..., Residency]:
    """A residency on a device of 10 GiB, of which 80 % may be taken."""

    def _make(**sizes: Any) -> Residency:
        def find(name: str) -> ModelSpec:
            if name not in sizes:
                raise UnknownModel(name)
            given = sizes[name]
            options = given if isinstance(given, dict) else {"memory_bytes": given * GIB}
            spec = {"path": "fake", "kind": "any", "tasks": ("classify",), "engine": "fake", "head": "classify"}
            return ModelSpec(name=name, generation=options, **spec)

        device = Device("cpu", "cpu", 10 * GIB, 1, shared=False)
        return Residency(settings(memory_share=0.8), device, find)

    return _make


def test_the_model_used_longest_ago_makes_room(make: Callable[..., Residency]) -> None:
    models = make(a=3, b=3, c=3)
    for name in ("a", "b", "a"):
        models.model(name)

    models.model("c")

    assert models.names() == ["a", "c"]
    assert models.get("b") is None


def test_a_model_with_work_in_it_is_never_closed(make: Callable[..., Residency]) -> None:
    models = make(a=5, b=5)
    busy = models.model("a")
    assert busy is not None
    (encoded,) = models.codec("a").encode([Classify("a text")])
    busy.add([Work("key", encoded)])  # type: ignore[arg-type]

    assert models.model("b") is None
    busy.step()

    assert models.model("b") is not None
    assert models.names() == ["b"]


def test_a_model_larger_than_the_device_is_tried_once_it_is_empty(make: Callable[..., Residency]) -> None:
    models = make(small=1, huge=50)
    models.model("small")

    assert models.model("huge") is not None
    assert models.names() == ["huge"]


def test_a_model_that_failed_is_not_loaded_again_at_once(make: Callable[..., Residency]) -> None:
    models = make(bad={"load_error": "broken weights", "load_s": 0.2})
    with pytest.raises(ModelFailed, match="broken weights"):
        models.model("bad")

    with pytest.raises(ModelFailed, match="broken weights"):
        models.model("bad")

    assert models.names() == []


def test_wrong_options_and_unknown_engines_fail_the_model_not_the_worker(make: Callable[..., Residency]) -> None:
    models = make(odd={"no_such_option": 1})

    with pytest.raises(ModelFailed, match="no_such_option"):
        models.codec("odd")
    with pytest.raises(UnknownModel):
        models.spec("nobody")


def test_an_unloaded_model_has_worked_what_it_has_worked(make: Callable[..., Residency]) -> None:
    models = make(a=5, b=5)
    meter = Meter(clock := Clock())
    first = models.model("a")
    assert first is not None
    with meter.shift():
        answer(models, "a", "so much text that the next one has less")
        clock.now += 1
        before = meter.load(models.worked())
        answer(models, "b", "a text")
        clock.now += 1
        after = meter.load(models.worked())

    assert models.names() == ["b"]
    assert (before, after) == (
        {"busy": 0.0, "padding": 0.0, "tokens_per_s": 9.0, "batch_tokens": 9.0},
        {"busy": 0.0, "padding": 0.0, "tokens_per_s": 2.0, "batch_tokens": 2.0},
    )


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def answer(models: Residency, name: str, text: str) -> None:
    model = models.model(name)
    assert model is not None
    model.add([Work("key", *models.codec(name).encode([Classify(text)]))])  # type: ignore[arg-type]
    model.step()
