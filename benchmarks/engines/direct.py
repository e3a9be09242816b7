"""An engine of Textmill's, asked directly: encode, add, step, until all has come back."""

from collections.abc import Sequence
from typing import Any

from jobs.models import ModelSpec
from jobs.tasks.base import Failed, Outcome, Request
from worker.engines import engine
from worker.engines.base import Room, Work


class Direct:
    """A loaded model behind the engine port, as a worker would hold it."""

    def __init__(
        self,
        spec: ModelSpec,
        *,
        threads: int,
        max_batch_tokens: int = 4096,
        memory_bytes: int = 4 * 2**30,
        device: str = "cpu",
    ) -> None:
        made = engine(spec.engine)
        self.codec = made.codec(spec)
        room = Room(device, memory_bytes, threads, max_batch_tokens, spec.dtype or "float32")
        self.model = made.load(spec, self.codec, room)

    def __call__(self, requests: Sequence[Request]) -> list[Outcome]:
        """The outcomes, in the order of the requests; tokenizing is part of it."""
        found: dict[Any, Outcome] = {}
        work = []
        for at, encoded in enumerate(self.codec.encode(requests)):
            if isinstance(encoded, Failed):
                raise RuntimeError(f"request {at} was refused: {encoded}")
            work.append(Work(at, encoded, at))
        self.model.add(work)
        while self.model.pending():
            found.update(self.model.step())
        return [found[at] for at in range(len(requests))]
