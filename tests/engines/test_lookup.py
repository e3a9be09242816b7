"""Engines by name: shipped ones by module, others by entry point."""

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

import worker.engines
from jobs.errors import ModelFailed
from worker.engines import engine, names

FOREIGN = EntryPoint("foreign", "worker.engines.fake:FakeEngine", "textmill.engines")


def test_the_shipped_engines_are_found_by_their_module() -> None:
    assert engine("fake").name == "fake"
    assert engine("torch").name == "torch"


def test_every_name_that_is_known_is_an_engine() -> None:
    assert {engine(name).name for name in names()} == set(names()) >= {"ctranslate2", "fake", "openvino", "torch"}


@pytest.mark.parametrize("name", ["nonsense", "base", "batch", "converted", "loop", "routes", "../fake", "os"])
def test_an_unknown_name_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ModelFailed, match=r"known engines: .*fake.*torch"):
        engine(name)


def test_an_engine_of_another_distribution_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker.engines, "entry_points", lambda group: [FOREIGN])

    assert engine("foreign").name == "fake"
    with pytest.raises(ModelFailed, match="foreign"):
        engine("unknown")


def test_an_entry_point_does_not_replace_a_shipped_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    impostor = EntryPoint("fake", "worker.engines.torch:TorchEngine", "textmill.engines")
    monkeypatch.setattr(worker.engines, "entry_points", lambda group: [impostor])

    assert engine("fake").name == "fake"


def test_an_engine_whose_libraries_are_missing_fails_its_models(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = EntryPoint("broken", "no_such_distribution:Engine", "textmill.engines")
    monkeypatch.setattr(worker.engines, "entry_points", lambda group: [broken])

    with pytest.raises(ModelFailed, match="no_such_distribution"):
        engine("broken")


@pytest.mark.parametrize(
    ("name", "extra"), [("openvino", "openvino"), ("ctranslate2", "ctranslate2"), ("torch", "worker")]
)
def test_a_shipped_engine_without_its_libraries_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, name: str, extra: str
) -> None:
    def missing(_: str) -> None:
        raise ModuleNotFoundError("No module named 'library'")

    monkeypatch.setattr(worker.engines, "_module", missing)

    with pytest.raises(ModelFailed, match=rf"install textmill\[{extra}\]"):
        engine(name)


def test_the_fake_engine_needs_no_model_library() -> None:
    code = (
        "import sys; from worker.engines import engine; from jobs.models import ModelSpec;"
        "spec = ModelSpec(name='fake', path='fake', kind='any', tasks=(), engine='fake', head='classify');"
        "engine('fake').codec(spec);"
        "print(sorted({'torch', 'numpy', 'transformers', 'tokenizers', 'celery', 'sqlalchemy'} & set(sys.modules)))"
    )

    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)

    assert said.stdout.strip() == "[]"
