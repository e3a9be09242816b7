"""Measures what an order names: candidates in turns, medians, agreement with the reference, a recommendation."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from pydantic import ValidationError

from jobs.errors import ModelFailed, TextmillError
from jobs.models import FAKE, ModelSpec
from jobs.settings import Settings, load_settings
from jobs.tasks.base import Outcome
from worker.bench.agreement import compared
from worker.bench.order import Order
from worker.devices import batch_tokens, device
from worker.engines import engine, names
from worker.engines.base import Room
from worker.engines.remote.wire import outcome_in, receive, room_out, send

REFERENCE = ("torch", "float32")
NOISE = 0.95
"""What share of the fastest rate is as fast."""
CANDIDATE = (sys.executable, "-P", "-m", "worker.bench.candidate")


def main() -> int:
    """An order on stdin, the report as JSON on stdout, progress on stderr; 0, or 1 with the reason on stderr."""
    try:
        report = bench(Order.model_validate_json(sys.stdin.buffer.read()), load_settings())
    except (TextmillError, ValidationError) as error:
        _say(f"error: {error}")
        return 1
    print(json.dumps(report), flush=True)
    return 0


@dataclass(slots=True)
class Candidate:
    """An engine in a precision, and what was measured of it."""

    engine: str
    dtype: str
    process: "subprocess.Popen[bytes]"
    load_s: float = 0.0
    memory_bytes: int = 0
    outcomes: list[Outcome] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    failed: str | None = None

    def ask(self, **message: Any) -> dict[str, Any]:
        """The process's answer; a dead one is a failure like any other."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            send(self.process.stdin, message)
            answer = receive(self.process.stdout)
        except OSError:
            answer = None
        answer = answer or {"failed": f"its process ended (exit code {self.process.wait()})"}
        self.failed = answer.get("failed")
        return answer


def bench(order: Order, settings: Settings) -> dict[str, Any]:
    """The report. Raises ModelFailed when not one engine runs the model."""
    room = _room(settings, order.spec)
    offers, missing = _offers(order.spec, room.device)
    with ExitStack() as stack:
        candidates = [stack.enter_context(_started(*offer)) for offer in offers]
        for candidate in candidates:
            _open(candidate, order, room)
        for turn in range(order.rounds):
            _say(f"round {turn + 1} of {order.rounds}")
            for candidate in candidates:
                if candidate.failed is None:
                    candidate.seconds.append(candidate.ask(turn=turn).get("seconds", 0.0))
    return _report(order, room, candidates, missing)


def _room(settings: Settings, spec: ModelSpec) -> Room:
    here = device(settings)
    return Room(
        device=spec.device or here.name,
        memory_bytes=int(here.memory_bytes * settings.memory_share),
        threads=settings.threads or here.threads,
        max_batch_tokens=batch_tokens(settings, spec.device or here.name),
        cache=settings.home / "converted",
    )


def _offers(spec: ModelSpec, device: str) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """Engines and precisions that can run the model here, the reference first; engines that are not installed."""
    offers: list[tuple[str, str]] = []
    missing: dict[str, str] = {}
    for name in [FAKE] if spec.engine == FAKE else [name for name in names() if name != FAKE]:
        try:
            offers += [(name, dtype) for dtype in engine(name).precisions(spec, device)]
        except ModelFailed as error:
            missing[name] = str(error)
    if not offers:
        reasons = "".join(f"\n  {text}" for text in missing.values())
        raise ModelFailed(f"no engine here runs model {spec.name!r}{reasons}")
    return sorted(offers, key=lambda offer: offer != REFERENCE), missing


@contextmanager
def _started(name: str, dtype: str) -> Iterator[Candidate]:
    process = subprocess.Popen(CANDIDATE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ)
    with process:
        yield Candidate(name, dtype, process)
        assert process.stdin is not None
        process.kill()


def _open(candidate: Candidate, order: Order, room: Room) -> None:
    """Load and answer once: alone, so that loading times can be compared, too."""
    _say(f"{candidate.engine} {candidate.dtype}: loading")
    spec = order.spec.model_copy(update={"engine": candidate.engine, "dtype": candidate.dtype, "remote": None})
    if candidate.engine == FAKE:
        spec = order.spec
    asked = order.model_copy(update={"spec": spec}).model_dump(mode="json")
    answer = candidate.ask(order=asked, room=room_out(room))
    if candidate.failed is None:
        candidate.load_s, candidate.memory_bytes = answer["load_s"], answer["memory_bytes"]
        candidate.outcomes = [outcome_in(said) for said in answer["outcomes"]]
    else:
        _say(f"{candidate.engine} {candidate.dtype}: {candidate.failed}")


def _report(order: Order, room: Room, candidates: Sequence[Candidate], missing: dict[str, str]) -> dict[str, Any]:
    ran = [candidate for candidate in candidates if candidate.failed is None and candidate.outcomes]
    if not ran:
        reasons = "; ".join(f"{each.engine} {each.dtype}: {each.failed or 'no text fits'}" for each in candidates)
        raise ModelFailed(f"model {order.spec.name!r} ran in no engine: {reasons}")
    reference = ran[0]
    rows = [_row(candidate, reference) for candidate in ran]
    fit = [row for row in rows if row["agreement"] >= order.bound]
    return {
        "model": order.spec.name,
        "device": room.device,
        "threads": room.threads,
        "items": len(reference.outcomes),
        "rounds": order.rounds,
        "reference": {"engine": reference.engine, "dtype": reference.dtype},
        "bound": order.bound,
        "rows": rows,
        "failed": [
            {"engine": each.engine, "dtype": each.dtype, "reason": each.failed} for each in candidates if each.failed
        ],
        "missing": missing,
        "recommended": _best(fit),
    }


def _best(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The fastest; among those as fast but for noise, the one whose answers are nearest, then the first."""
    fastest = max(row["items_per_s"] for row in rows)
    return max((row for row in rows if row["items_per_s"] >= NOISE * fastest), key=lambda row: row["agreement"])


def _row(candidate: Candidate, reference: Candidate) -> dict[str, Any]:
    seconds = median(candidate.seconds)
    tokens = sum(outcome.input_tokens + outcome.output_tokens for outcome in candidate.outcomes)
    agreement = compared(reference.outcomes, candidate.outcomes)
    return {
        "engine": candidate.engine,
        "dtype": candidate.dtype,
        "items_per_s": len(candidate.outcomes) / seconds,
        "tokens_per_s": tokens / seconds,
        "memory_bytes": candidate.memory_bytes,
        "load_s": candidate.load_s,
        "agreement": agreement.equal,
        "closeness": agreement.closeness,
    }


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
