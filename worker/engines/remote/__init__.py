"""Engine `remote`: another engine in a process, and an environment, of its own.

For engines that pin other versions than ours (vLLM has its own torch and Transformers). The registry's `remote` names
the environment's Python and the engine there. Texts are tokenized on both sides: here for limits and windows, there
for the model.
"""

import logging
import os
import signal
import subprocess
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from typing import Any

from jobs.errors import DeviceLost, ModelFailed
from jobs.models import ModelSpec
from jobs.tasks.base import Outcome
from worker.engines.base import BeforeBatch, Engine, EngineCodec, Key, Model, Room, Work
from worker.engines.remote.wire import outcome_in, receive, request_out, room_out, send

log = logging.getLogger("textmill.worker")

CHILD = ("-P", "-m", "worker.engines.remote.child")
OURS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
"""Variables that lead a Python to this environment's packages."""
CLOSE_S = 10.0
"""A child that has not ended so long after it was told to is killed."""


class RemoteEngine:
    """Implements the engine port with a child process for each model."""

    name = "remote"

    def codec(self, spec: ModelSpec) -> EngineCodec:
        """The engine's own text side where it can be loaded here, too, else the built-in engine's."""
        inner = _inner(spec)
        return _text_engine(inner).codec(inner)

    def size(self, spec: ModelSpec) -> int:
        inner = _inner(spec)
        return _text_engine(inner).size(inner)

    def precisions(self, spec: ModelSpec, device: str) -> tuple[str, ...]:
        """Nothing by itself: it takes an interpreter that only a registry entry names."""
        return ()

    def load(self, spec: ModelSpec, codec: EngineCodec, room: Room) -> Model:
        return RemoteModel(spec, room)


ENGINE = RemoteEngine


class RemoteModel:
    """A model in a child process. A child that dies is started once more with all it was asked; one that dies again
    without an answer in between is a lost device."""

    def __init__(self, spec: ModelSpec, room: Room) -> None:
        self._spec, self._room = spec, room
        self._work: dict[int, Work] = {}
        self._numbers: dict[Hashable, int] = {}
        self._next, self._died = 0, 0
        self._refused: list[tuple[int, Outcome]] = []
        self._state: dict[str, Any] = {"wants": 0, "stats": {}}
        self._before: BeforeBatch = lambda keys: None
        self._child = self._start()

    def wants(self) -> int:
        wanted: int = self._state["wants"]
        return wanted

    def add(self, work: Sequence[Work]) -> None:
        for number, item in enumerate(work, self._next):
            self._work[number], self._numbers[item.key] = item, number
        numbers = range(self._next, self._next + len(work))
        self._next += len(work)
        self._lively("add", work=self._said(numbers))

    def before_batch(self, call: BeforeBatch) -> None:
        self._before = call

    def step(self) -> list[tuple[Key, Outcome]]:
        if not self._work:
            return []
        answer = self._lively("step")
        found = [*self._refused, *((number, outcome_in(said)) for number, said in answer.get("outcomes", []))]
        self._refused = []
        self._died = 0 if found else self._died
        return [(self._forget(number).key, outcome) for number, outcome in found if number in self._work]

    def cancel(self, keys: Sequence[Key]) -> None:
        gone = [self._numbers[key] for key in keys if key in self._numbers]
        for number in gone:
            self._forget(number)
        if gone:
            self._lively("cancel", keys=gone)

    def pending(self) -> int:
        return len(self._work)

    def stats(self) -> dict[str, Any]:
        return {**self._state["stats"], "pending": len(self._work)}

    def close(self) -> None:
        self._work, self._numbers, self._refused = {}, {}, []
        _end(self._child)

    # ----- the child -----

    def _start(self) -> "subprocess.Popen[bytes]":
        """A child with the model loaded. Raises ModelFailed, DeviceLost."""
        python = _python(self._spec)
        environment = {name: value for name, value in os.environ.items() if name not in OURS}
        try:
            child = subprocess.Popen([python, *CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        except OSError as error:
            raise ModelFailed(f"model {self._spec.name!r}: {python} cannot be started: {error}") from error
        try:
            answer = _ask(child, "load", spec=_inner(self._spec).model_dump(mode="json"), room=room_out(self._room))
        except BaseException:
            _end(child)
            raise
        if answer is None or "failed" in answer:
            _end(child)
            reason = answer["failed"] if answer else f"its process ended ({_how(child)}); its own words are in the log"
            raise ModelFailed(f"model {self._spec.name!r} in {python}: {reason}")
        self._state = answer
        return child

    def _lively(self, name: str, **given: Any) -> dict[str, Any]:
        """The child's answer, from a second child if the first one died. Raises DeviceLost."""
        answer = _ask(self._child, name, self._runs, **given)
        while answer is None:
            self._revive()
            # What was to be added is among the work that the new child was given already; to step is what matters.
            answer = _ask(self._child, name, self._runs, **given) if name == "step" else self._state
        if "failed" in answer:
            raise DeviceLost(f"the engine of model {self._spec.name!r} broke its promises: {answer['failed']}")
        if name != "step":
            self._refuse(answer)
        self._state = answer
        return answer

    def _revive(self) -> None:
        self._died += 1
        _end(self._child)
        how = f"the process of model {self._spec.name!r} ended ({_how(self._child)})"
        if self._died > 1:
            raise DeviceLost(f"{how}, for the second time with the same work")
        log.warning("%s; it is started once more", how)
        try:
            self._child = self._start()
        except ModelFailed as error:
            raise DeviceLost(f"{how} and cannot be started again: {error}") from error
        answer = _ask(self._child, "add", work=self._said(self._work))
        if answer is not None:
            self._state = answer
            self._refuse(answer)

    def _runs(self, numbers: list[int]) -> None:
        self._before([self._work[number].key for number in numbers if number in self._work])

    def _refuse(self, answer: dict[str, Any]) -> None:
        self._refused += [(number, outcome_in(said)) for number, said in answer.pop("outcomes", [])]

    def _said(self, numbers: Any) -> list[Any]:
        return [[number, self._work[number].seq, request_out(self._work[number].encoded.request)] for number in numbers]

    def _forget(self, number: int) -> Work:
        item = self._work.pop(number)
        if self._numbers.get(item.key) == number:
            del self._numbers[item.key]
        return item


def _ask(
    child: "subprocess.Popen[bytes]", name: str, runs: Callable[[list[int]], None] = lambda _: None, **given: Any
) -> dict[str, Any] | None:
    """The child's answer; None: it is dead. `runs` is told what the child is about to run. Raises DeviceLost when its
    device is."""
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        send(child.stdin, {"do": name, **given})
        while (answer := receive(child.stdout)) is not None and "runs" in answer:
            runs(answer["runs"])
    except (OSError, ValueError):  # ValueError: a pipe that was closed, half a frame
        return None
    if answer is not None and "lost" in answer:
        raise DeviceLost(answer["lost"])
    return answer


def _end(child: "subprocess.Popen[bytes]") -> None:
    """End the child, gently first: a closed pipe tells it."""
    for stream in (child.stdin, child.stdout):
        if stream is not None:
            with suppress(OSError):
                stream.close()
    try:
        child.wait(CLOSE_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _how(child: "subprocess.Popen[bytes]") -> str:
    code = child.returncode
    if code is None or code >= 0:
        return f"exit code {code}"
    return signal.Signals(-code).name


def _python(spec: ModelSpec) -> str:
    if spec.remote is None:
        raise ModelFailed(f"model {spec.name!r}: engine 'remote' needs the registry to name a Python in 'remote'")
    return spec.remote.python


def _inner(spec: ModelSpec) -> ModelSpec:
    """The entry as the child sees it."""
    _python(spec)
    assert spec.remote is not None
    return spec.model_copy(update={"engine": spec.remote.engine, "remote": None})


def _text_engine(inner: ModelSpec) -> Engine:
    """Whose text side stands for the child's on this side of the pipe."""
    from worker.engines import engine

    try:
        return engine(inner.engine)
    except ModelFailed:
        return engine("torch")
