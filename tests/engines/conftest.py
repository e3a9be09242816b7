"""Tiny models for the session, and a way to ask one: encode, add, step until all has come back."""

import sysconfig
import venv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.models import ModelSpec
from jobs.tasks.base import Failed, Outcome, Request
from tests.engines.tiny import Tiny
from worker.engines import engine
from worker.engines.base import EngineCodec, Model, Room, Work
from worker.engines.routes import RoutedModel


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Tiny models, each built when first asked for."""
    return Tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def other_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of another virtual environment, to which this one's packages are lent."""
    home = tmp_path_factory.mktemp("other") / "environment"
    venv.create(home, with_pip=False, symlinks=True)
    packages = next(home.glob("lib/python*/site-packages"))
    lent = [str(Path(__file__).parents[2]), sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"]]
    (packages / "lent.pth").write_text("\n".join(lent) + "\n", encoding="utf-8")
    return str(home / "bin" / "python")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Subject:
    """A loaded model with its codec."""

    def __init__(self, spec: ModelSpec, **room: Any) -> None:
        self.engine = engine(spec.engine)
        self.codec: EngineCodec = self.engine.codec(spec)
        given = {"device": "cpu", "memory_bytes": 2**30, "threads": 1, "max_batch_tokens": 4096, **room}
        given.setdefault("cache", Path(spec.path).parent / "converted")
        self.model: Model = self.engine.load(spec, self.codec, Room(**given))

    def __call__(self, *requests: Request) -> list[Outcome]:
        """All outcomes, in the order of the requests, which go in together."""
        encoded = self.codec.encode(requests)
        self.model.add([Work(at, each, at) for at, each in enumerate(encoded) if not isinstance(each, Failed)])
        found: dict[Any, Outcome] = {at: each for at, each in enumerate(encoded) if isinstance(each, Failed)}
        while self.model.pending():
            found.update(self.model.step())
        return [found[at] for at in range(len(requests))]

    def one_by_one(self, *requests: Request) -> list[Outcome]:
        """The same, each request alone in the model, with the seq it has among the others."""
        found = []
        for at, encoded in enumerate(self.codec.encode(requests)):
            self.model.add([Work(at, encoded, at)])
            while self.model.pending():
                found += [outcome for _, outcome in self.model.step()]
        return found


def module_of(model: Any) -> Any:
    """The torch module inside a model of the built-in engine."""
    net = (model.second if isinstance(model, RoutedModel) else model)._net
    return net._model if hasattr(net, "_model") else net._generator._model


Ask = Callable[..., Subject]


@pytest.fixture(scope="session")
def ask(tiny: Tiny) -> Ask:
    """A tiny model by name, loaded once."""
    loaded: dict[Any, Subject] = {}

    def load(name: str, **changes: Any) -> Subject:
        key = (name, repr(sorted(changes.items())))
        if key not in loaded:
            loaded[key] = Subject(tiny(name, **changes))
        return loaded[key]

    return load


def texts_of(outcomes: Sequence[Any]) -> list[str]:
    return [sample.text for outcome in outcomes for sample in outcome.samples]


def near(logits: Sequence[float]) -> Any:
    """Equal but for rounding, which grows with the largest logit: weights this random go far beyond a real model's, and
    plain torch is up to 1e-4 from double precision then."""
    return pytest.approx(logits, rel=0, abs=2e-4 * max(1.0, *map(abs, logits)))
