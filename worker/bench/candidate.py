"""`python -m worker.bench.candidate`: one engine in one precision, measured in a process of its own."""

import gc
import sys
import time
from pathlib import Path
from typing import Any

from jobs.errors import DeviceLost, TextmillError
from jobs.models import ModelSpec
from jobs.tasks.base import Outcome
from worker.bench.order import Order, encoded
from worker.engines import engine
from worker.engines.base import Encoded, EngineCodec, Model, Room, Work
from worker.engines.remote.child import own_stdout
from worker.engines.remote.wire import outcome_out, receive, room_in, send


def main() -> None:
    """Load, answer once, and then once more for each message."""
    given, answers = sys.stdin.buffer, own_stdout()
    opening = receive(given)
    if opening is None:
        return
    try:
        bout = Bout(Order.model_validate(opening["order"]), room_in(opening["room"]))
        send(answers, bout.opening())
        while receive(given) is not None:
            send(answers, {"seconds": bout.round()[0]})
    except (TextmillError, DeviceLost) as error:
        send(answers, {"failed": str(error)})
    except Exception as error:
        send(answers, {"failed": f"{type(error).__name__}: {error}"})


class Bout:
    """A loaded model, and the requests it answers each round."""

    def __init__(self, order: Order, room: Room) -> None:
        self._load_s, codec, self._model = _loaded(order.spec, room)
        self._encoded = encoded(order, codec)

    def opening(self) -> dict[str, Any]:
        """What is measured once, with the answers that all are compared by."""
        seconds, outcomes = self.round()
        gc.collect()
        return {
            "load_s": self._load_s,
            "first_s": seconds,
            "memory_bytes": _memory(self._model),
            "outcomes": [outcome_out(outcome) for outcome in outcomes],
        }

    def round(self) -> tuple[float, list[Outcome]]:
        """All requests once: the seconds, and the answers in order."""
        found: dict[Any, Outcome] = {}
        left: list[tuple[int, Encoded]] = list(enumerate(self._encoded))
        started = time.perf_counter()
        while left or self._model.pending():
            wanted = self._model.wants()
            taken = []
            while left and wanted > 0:
                at, each = left.pop(0)
                taken.append(Work(at, each, at))
                wanted -= max(1, each.length)
            self._model.add(taken)
            found.update(self._model.step())
        return time.perf_counter() - started, [found[at] for at in range(len(self._encoded))]


def _loaded(spec: ModelSpec, room: Room) -> tuple[float, EngineCodec, Model]:
    """The seconds it takes, once the model has been converted if it has to be."""
    found = engine(spec.engine)
    codec = found.codec(spec)
    kept = _entries(room.cache)
    seconds, model = _timed(lambda: found.load(spec, codec, room))
    if _entries(room.cache) != kept:
        model.close()
        seconds, model = _timed(lambda: found.load(spec, codec, room))
    return seconds, codec, model


def _timed(load: Any) -> tuple[float, Model]:
    started = time.perf_counter()
    model = load()
    return time.perf_counter() - started, model


def _entries(cache: Path | None) -> set[str]:
    return {entry.name for entry in cache.iterdir()} if cache and cache.is_dir() else set()


def _memory(model: Model) -> int:
    """Of this process; where the system does not say, what the model says of itself."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return int(model.stats().get("memory_bytes") or 0)
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


if __name__ == "__main__":
    main()
