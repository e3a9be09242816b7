"""`python -m worker.engines.remote.child`: runs one model of one engine for a parent that holds both ends of a pipe.

The environment needs Textmill (without extras) and what the engine itself needs. Ends when the parent does.
"""

import os
import sys
import threading
from queue import SimpleQueue
from typing import IO, Any

from jobs.errors import DeviceLost, TextmillError
from jobs.models import ModelSpec
from jobs.tasks.base import Failed
from worker.engines import engine
from worker.engines.base import BeforeBatch, EngineCodec, Model, Work
from worker.engines.remote.wire import outcome_out, receive, request_in, room_in, send


def main() -> None:
    """Answer each of the parent's messages with one of ours, until it closes the pipe."""
    given, answers = sys.stdin.buffer, own_stdout()
    messages: SimpleQueue[dict[str, Any]] = SimpleQueue()
    threading.Thread(target=_listen, args=(given, messages), name="parent", daemon=True).start()
    runner = Runner(lambda numbers: send(answers, {"runs": numbers}))
    while True:
        message = messages.get()
        send(answers, _answer(runner, message))


class Runner:
    """The model, driven by messages. Every method is one of them. `runs` tells the parent what is about to run."""

    codec: EngineCodec
    model: Model

    def __init__(self, runs: BeforeBatch) -> None:
        self._runs = runs

    def load(self, spec: dict[str, Any], room: dict[str, Any]) -> dict[str, Any]:
        entry = ModelSpec.model_validate(spec)
        found = engine(entry.engine)
        self.codec = found.codec(entry)
        self.model = found.load(entry, self.codec, room_in(room))
        self.model.before_batch(self._runs)
        return {}

    def add(self, work: list[list[Any]]) -> dict[str, Any]:
        """Take requests; what this side's codec refuses comes back at once."""
        encoded = self.codec.encode([request_in(said) for _, _, said in work])
        taken, refused = [], []
        for (key, seq, _), each in zip(work, encoded, strict=True):
            if isinstance(each, Failed):
                refused.append([key, outcome_out(each)])
            else:
                taken.append(Work(key, each, seq))
        self.model.add(taken)
        return {"outcomes": refused}

    def step(self) -> dict[str, Any]:
        return {"outcomes": [[key, outcome_out(outcome)] for key, outcome in self.model.step()]}

    def cancel(self, keys: list[int]) -> dict[str, Any]:
        self.model.cancel(keys)
        return {}


def own_stdout() -> IO[bytes]:
    """Frames alone go where stdout went; what libraries print joins the log."""
    frames = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return frames


def _answer(runner: Runner, message: dict[str, Any]) -> dict[str, Any]:
    """What came of the message: always with the model's state, so that the parent need not ask."""
    name = message.pop("do")
    try:
        answer: dict[str, Any] = getattr(runner, name)(**message)
        return {**answer, "wants": runner.model.wants(), "stats": runner.model.stats()}
    except DeviceLost as error:
        return {"lost": str(error)}
    except TextmillError as error:
        return {"failed": str(error)}
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}"}


def _listen(given: IO[bytes], messages: "SimpleQueue[dict[str, Any]]") -> None:
    """Whatever runs meanwhile, the end of the parent is the end of this process."""
    while (message := receive(given)) is not None:
        messages.put(message)
    os._exit(0)


if __name__ == "__main__":
    main()
