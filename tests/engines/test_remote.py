"""An engine in a process and an environment of its own: the same answers, and a death that costs nobody anything."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobs.errors import DeviceLost, ModelFailed
from jobs.models import ModelSpec
from jobs.tasks.base import Classify, Embed, Failed, Generate, Message, Sampling, Score, Similarity
from tests.engines.conftest import Subject
from tests.engines.test_port import Fake, drain, works
from tests.engines.tiny import Tiny

Remote = Callable[[ModelSpec], Subject]


@pytest.fixture
def remote(other_python: str) -> Any:
    subjects: list[Subject] = []

    def start(spec: ModelSpec, **changes: Any) -> Subject:
        fields = {"remote": {"python": other_python, "engine": spec.engine}, **changes}
        made = Subject(ModelSpec.model_validate({**spec.model_dump(), "engine": "remote", **fields}))
        subjects.append(made)
        return made

    yield start
    for subject in subjects:
        subject.model.close()


def child_of(subject: Subject) -> Any:
    return subject.model._child  # type: ignore[attr-defined]


def test_every_kind_of_request_comes_back_as_the_engine_itself_answers_it(remote: Any) -> None:
    requests = [
        Classify("sun", pair="rain"),
        Embed("sun", pooling="cls", dimensions=4),
        Similarity("sun", ("rain", "fox")),
        Generate(messages=(Message("user", "über \x00 \u2028"),), stop=("a",), n=2, seed=3),
        Generate(prompt="rain", sampling=Sampling(temperature=0.5, max_new_tokens=5)),
        Score((" a", " b c"), prompt="sun"),
        Classify("word " * 600),
    ]

    found = remote(Fake.spec)(*requests)

    assert found == Subject(Fake.spec)(*requests)
    assert isinstance(found[-1], Failed)


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_a_real_model_answers_from_another_environment(remote: Any, tiny: Tiny, name: str) -> None:
    spec = tiny(name)
    wishes = Sampling(max_new_tokens=4, temperature=0)
    make: dict[str, Callable[[str], Any]] = {
        "bert": Classify,
        "embedder": Embed,
        "gpt2": lambda text: Generate(prompt=text, sampling=wishes),
        "t5": lambda text: Generate(source=text, sampling=wishes),
    }
    requests = [make[name](text) for text in ("rain", "the quick brown fox", "sun")]

    subject = remote(spec)

    assert subject(*requests) == Subject(spec)(*requests)
    assert psutil.Process(child_of(subject).pid).exe() == os.path.realpath(sys.executable)
    assert child_of(subject).pid != os.getpid()


def test_a_child_that_dies_once_costs_nobody_anything(remote: Any) -> None:
    subject = remote(Fake.spec)
    subject.model.add(works(subject, [Classify(f"text {number}") for number in range(20)]))
    first = child_of(subject)

    os.kill(first.pid, signal.SIGKILL)
    found = drain(subject)

    assert len(found) == 20
    assert not any(isinstance(outcome, Failed) for outcome in found.values())
    assert child_of(subject).pid != first.pid


def test_a_text_that_kills_every_child_is_a_lost_device(remote: Any) -> None:
    subject = remote(Fake.spec)
    subject.model.add(works(subject, [Classify("[[kill]]")]))

    with pytest.raises(DeviceLost, match=r"SIGKILL.*second time"):
        drain(subject)


def test_deaths_with_answers_in_between_are_each_the_first(remote: Any) -> None:
    subject = remote(Fake.spec)

    for _ in range(3):
        os.kill(child_of(subject).pid, signal.SIGKILL)
        child_of(subject).wait()
        (outcome,) = subject(Classify("text"))
        assert not isinstance(outcome, Failed)


def test_a_closed_model_leaves_no_process(remote: Any) -> None:
    subject = remote(Fake.spec)

    subject.model.close()

    assert child_of(subject).poll() is not None


def test_the_child_ends_when_its_parent_is_killed(other_python: str, tmp_path: Path) -> None:
    code = (
        "import sys, time; from jobs.models import ModelSpec; from worker.engines import engine;"
        "from worker.engines.base import Room, Work; from jobs.tasks.base import Classify;"
        "spec = ModelSpec(name='m', path='fake', kind='any', tasks=(), engine='remote', head='classify',"
        " generation={'markers': True}, remote={'python': sys.argv[1], 'engine': 'fake'});"
        "found = engine('remote'); codec = found.codec(spec); model = found.load(spec, codec, Room('cpu', 0, 1, 4096));"
        "print(model._child.pid, flush=True);"
        "model.add([Work(0, codec.encode([Classify('[[hang]]')])[0])]); model.step()"
    )
    with subprocess.Popen([sys.executable, "-c", code, other_python], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert psutil.pid_exists(child)

        parent.kill()

    deadline = time.monotonic() + 20
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the child outlives its parent"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"remote": None}, "needs the registry to name a Python"),
        ({"remote": {"python": "/no/such/python", "engine": "fake"}}, "/no/such/python cannot be started"),
        ({"remote": {"python": "/bin/true", "engine": "fake"}}, r"its process ended \(exit code 0\)"),
        ({"generation": {"load_error": "no such luck"}}, "no such luck"),
    ],
)
def test_what_cannot_start_fails_the_model_with_the_reason(remote: Any, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ModelFailed, match=reason):
        remote(Fake.spec, **changes)


def test_an_engine_that_only_the_other_environment_has_fails_there_with_its_name(remote: Any, tiny: Tiny) -> None:
    with pytest.raises(ModelFailed, match="unknown engine 'vllm'"):
        remote(tiny("gpt2", engine="vllm"))
