"""Loaded models and codecs of this process: what is used stays, within the device's share of memory."""

import fcntl
import logging
import tempfile
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from jobs import telemetry
from jobs.errors import ModelFailed, TextmillError
from jobs.models import ModelSpec
from jobs.settings import Settings
from worker.devices import Device, batch_tokens
from worker.engines import engine
from worker.engines.base import BeforeBatch, Engine, EngineCodec, Model, Room
from worker.meter import COUNTERS

log = logging.getLogger("textmill.worker")

SPEC_S = 10.0
"""How long an entry of the registry is taken as it was read."""
FAILURE_S = 15.0
"""How long a model that did not load is not tried again: its jobs fail with the same text."""


class Loaded(NamedTuple):
    spec: ModelSpec
    model: Model
    size: int
    """Bytes that it may take in all: of its weights, and of keys and values beside them."""


class Residency:
    """Codecs for the reader, models for the device loop. `find` reads the registry; it raises UnknownModel.

    `codec` and `spec` are safe from several threads; `model` and `make_room` belong to the device loop.
    """

    def __init__(
        self,
        settings: Settings,
        device: Device,
        find: Callable[[str], ModelSpec],
        before_batch: BeforeBatch = lambda keys: None,
    ) -> None:
        """`before_batch` is told the keys of every batch of every model."""
        self._settings, self._device, self._find, self._before_batch = settings, device, find, before_batch
        self._lock = threading.Lock()
        self._engines: dict[str, Engine] = {}
        self._specs: dict[str, tuple[ModelSpec, float]] = {}
        self._codecs: dict[str, tuple[ModelSpec, EngineCodec]] = {}
        self._failures: dict[str, tuple[ModelSpec, str, float]] = {}
        self._loaded: OrderedDict[str, Loaded] = OrderedDict()
        self.trouble: str | None = None
        """Why the model that was tried last does not load."""
        self._closing = threading.Lock()
        self._closed: Counter[str] = Counter()
        """What models that were unloaded have counted."""

    def spec(self, name: str) -> ModelSpec:
        """The registry's entry, read at most every few seconds. Raises UnknownModel, StoreUnavailable."""
        known = self._specs.get(name)
        if known is None or time.monotonic() >= known[1]:
            known = self._specs[name] = (self._find(name), time.monotonic() + SPEC_S)
        return known[0]

    def codec(self, name: str) -> EngineCodec:
        """The model's text side. Raises ModelFailed, UnknownModel."""
        spec = self.spec(name)
        with self._lock:
            known = self._codecs.get(name)
            if known is None or known[0] != spec:
                with self._trying(name):
                    known = self._codecs[name] = (spec, self._engine(spec).codec(spec))
            return known[1]

    def names(self) -> list[str]:
        """The models that are loaded, the one used last at the end."""
        return list(self._loaded)

    def sizes(self) -> dict[str, int]:
        """The loaded models, and the bytes each may take. Safe from any thread."""
        with self._closing:
            return {name: loaded.size for name, loaded in list(self._loaded.items())}

    def get(self, name: str) -> Model | None:
        """The model if it is loaded."""
        loaded = self._loaded.get(name)
        return loaded.model if loaded else None

    def model(self, name: str) -> Model | None:
        """The loaded model; None while models with work in them take the room it needs.

        Raises ModelFailed when it does not load, UnknownModel, and DeviceLost.
        """
        spec = self.spec(name)
        loaded = self._loaded.get(name)
        if loaded is not None and (loaded.spec == spec or loaded.model.pending()):
            self._loaded.move_to_end(name)
            return loaded.model
        if loaded is not None:
            self._close(name)
        self._raise_known_failure(spec)
        return self._load(spec)

    def worked(self) -> list[Mapping[str, Any]]:
        """The statistics of the loaded models, and what those that were unloaded have counted. Safe from any thread."""
        with self._closing:
            return [dict(self._closed), *(loaded.model.stats() for loaded in list(self._loaded.values()))]

    def close(self) -> None:
        for name in self.names():
            self._close(name)

    def _load(self, spec: ModelSpec) -> Model | None:
        codec = self.codec(spec.name)
        try:
            with self._trying(spec.name):
                size = self._engine(spec).size(spec)
                if not self._make_room(size):
                    return None
                started = time.monotonic()
                with _alone_on(self._device):
                    model = self._engine(spec).load(spec, codec, self._room(spec))
        except ModelFailed as error:
            telemetry.MODEL_LOADS.labels(spec.name, "failed").inc()
            self._failures[spec.name] = (spec, str(error), time.monotonic() + FAILURE_S)
            raise
        self.trouble = None
        model.before_batch(self._before_batch)
        took_s = time.monotonic() - started
        telemetry.MODEL_LOADS.labels(spec.name, "loaded").inc()
        telemetry.MODEL_LOAD_SECONDS.observe(took_s)
        log.info("model %s loaded on %s in %.1f s", spec.name, self._device.name, took_s, extra={"model": spec.name})
        self._loaded[spec.name] = Loaded(spec, model, _bytes_of(model) or size)
        return model

    @contextmanager
    def _trying(self, name: str) -> Iterator[None]:
        try:
            with _as_model_failed(name):
                yield
        except ModelFailed as error:
            self.trouble = str(error)
            raise

    def _make_room(self, size: int) -> bool:
        """Close idle models, least used first, until the new one fits. False: busy ones are in the way."""
        while self._taken() + size > self._budget():
            idle = next((name for name, loaded in self._loaded.items() if not loaded.model.pending()), None)
            if idle is None:
                return not self._loaded
            self._close(idle)
        return True

    def _taken(self) -> int:
        return sum(loaded.size for loaded in self._loaded.values())

    def _budget(self) -> int:
        return int(self._device.memory_bytes * self._settings.memory_share)

    def _room(self, spec: ModelSpec) -> Room:
        return Room(
            device=spec.device or self._device.name,
            memory_bytes=max(0, self._budget() - self._taken()),
            threads=self._settings.threads or self._device.threads,
            max_batch_tokens=batch_tokens(self._settings, spec.device or self._device.name),
            dtype=spec.dtype or self._settings.dtype,
            cache=self._settings.home / "converted",
        )

    def _close(self, name: str) -> None:
        log.info("model %s is unloaded", name)
        with self._closing:
            model = self._loaded.pop(name).model
            stats = model.stats()
            self._closed.update({counter: stats.get(counter, 0) for counter in COUNTERS})
        model.close()

    def _engine(self, spec: ModelSpec) -> Engine:
        if spec.engine not in self._engines:
            self._engines[spec.engine] = engine(spec.engine)
        return self._engines[spec.engine]

    def _raise_known_failure(self, spec: ModelSpec) -> None:
        failed = self._failures.get(spec.name)
        if failed and failed[0] == spec and time.monotonic() < failed[2]:
            raise ModelFailed(failed[1])
        self._failures.pop(spec.name, None)


def _bytes_of(model: Model) -> int:
    stats = model.stats()
    return sum(int(stats.get(part) or 0) for part in ("memory_bytes", "cache_bytes"))


@contextmanager
def _as_model_failed(name: str) -> Iterator[None]:
    """Whatever an engine's libraries raise while loading fails the model, not the worker."""
    try:
        yield
    except TextmillError:
        raise
    except Exception as error:
        log.exception("model %s cannot be loaded", name)
        raise ModelFailed(f"model {name!r} cannot be loaded: {type(error).__name__}: {error}") from error


@contextmanager
def _alone_on(device: Device) -> Iterator[None]:
    """One process at a time loads on a device: two that measure its free memory together would both take it."""
    if not device.shared:
        yield
        return
    path = Path(tempfile.gettempdir()) / f"textmill-load-{device.key}.lock"
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
