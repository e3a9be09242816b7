"""The engine port: how the shift asks a model for outcomes, and what every engine promises."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from jobs.models import ModelSpec
from jobs.tasks.base import Codec, Failed, Outcome, Request

Key = Hashable
"""Names one request among all in flight; chosen by the caller, returned with its outcome."""


BeforeBatch = Callable[[Sequence[Key]], None]
"""Told the keys of what is about to go through the model."""


class Encoded(NamedTuple):
    """A request with its text tokenized. `payload` is the engine's own (ids, prepared prompts).

    A named tuple, as Work is: a frozen dataclass takes three times as long to make, which counts here.
    """

    request: Request
    length: int
    """Tokens that go in: the unit of packing and of `input_tokens`."""
    payload: Any = None


class Work(NamedTuple):
    """One encoded request, named. Random numbers depend on the request's seed, `seq`, sample and position only."""

    key: Key
    encoded: Encoded
    seq: int = 0


@dataclass(frozen=True, slots=True)
class Room:
    """What a model may use: the device as torch names it, bytes of its memory, CPU threads, tokens in one pass."""

    device: str
    memory_bytes: int
    threads: int
    max_batch_tokens: int
    dtype: str = "float32"
    cache: Path | None = None
    """Where engines keep the models they convert."""


class EngineCodec(Codec, Protocol):
    """The codec as an engine offers it: what tasks see, and the encoding that only the shift asks for."""

    def encode(self, requests: Sequence[Request]) -> list[Encoded | Failed]:
        """One answer per request, in order. Failed is a refusal of that request alone (`too_long`, ...)."""
        ...


class Model(Protocol):
    """A loaded model. Used by one thread at a time, but for `stats`."""

    def wants(self) -> int:
        """How many tokens of further work it would take now; 0 when full."""
        ...

    def add(self, work: Sequence[Work]) -> None:
        """Take work. Every key comes back in exactly one outcome of a later `step`, unless cancelled."""
        ...

    def before_batch(self, call: BeforeBatch) -> None:
        """From now on have `call` told the keys of every batch just before it runs; of a loop's rows, whenever they
        are others than before. What runs when the process dies is what it was told last."""
        ...

    def step(self) -> list[tuple[Key, Outcome]]:
        """One bounded piece of device work (about 0.25 s); may return nothing. Raises DeviceLost only: running out of
        memory halves and queues again inside, and a culprit that stands alone becomes its own Failed."""
        ...

    def cancel(self, keys: Sequence[Key]) -> None:
        """Forget these keys; unknown ones are ignored."""
        ...

    def pending(self) -> int:
        """Requests taken and not yet returned or cancelled."""
        ...

    def stats(self) -> dict[str, Any]:
        """Counters since load: `steps`, `batches`, `tokens`, `padded_tokens`, `out_of_memory`, `memory_bytes`, ..."""
        ...

    def close(self) -> None:
        """Free the memory; the model is not used afterwards."""
        ...


class OutOfMemory(Exception):
    """Raised inside an engine when a batch does not fit the device; never leaves the engine."""


class Engine(Protocol):
    """A way of running models. Found by its file's name in `worker/engines/`, or by entry point `textmill.engines`."""

    name: str

    def codec(self, spec: ModelSpec) -> EngineCodec:
        """The text side; reads tokenizer and configuration only. Raises ModelFailed."""
        ...

    def size(self, spec: ModelSpec) -> int:
        """Estimated bytes of device memory that `load` would take, from the files on disk."""
        ...

    def precisions(self, spec: ModelSpec, device: str) -> Sequence[str]:
        """What it could compute this model in on that device, for comparisons; nothing for a model it does not run."""
        ...

    def load(self, spec: ModelSpec, codec: EngineCodec, room: Room) -> Model:
        """Weights onto the device, warmed up. Raises ModelFailed, or DeviceLost."""
        ...
