"""`textmill models bench` from the outside: what it measures, what it recommends, how it refuses."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engines.tiny import Tiny
from tests.integration.commands import Home

FAST = ("--rounds", "1", "--new-tokens", "4")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return Tiny(tmp_path_factory.mktemp("tiny"))


def bench(home: Home, *arguments: str) -> "subprocess.CompletedProcess[str]":
    with home.start("models", "bench", *arguments) as process:
        try:
            out, err = process.communicate(timeout=170)
        finally:
            process.kill()
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def report_of(home: Home, *arguments: str) -> dict[str, Any]:
    done = bench(home, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_the_fake_model_is_measured_on_sample_texts(home: Home) -> None:
    done = bench(home, "fake", *FAST)

    assert done.returncode == 0, done.stderr
    assert "ITEMS/S" in done.stdout
    assert "Recommended: fake float32" in done.stdout
    assert not home.processes()


def test_an_encoder_is_measured_in_every_engine_that_runs_it(home: Home, tiny: Tiny) -> None:
    folder = tiny("bert").path
    home.texts("texts.txt", 30)

    report = report_of(home, folder, "texts.txt", *FAST, "--items", "20")

    assert report["items"] == 20
    assert report["reference"] == {"engine": "torch", "dtype": "float32"}
    assert {("torch", "float32"), ("openvino", "float32"), ("openvino", "int8")} <= {
        (row["engine"], row["dtype"]) for row in report["rows"]
    }
    assert report["rows"][0]["agreement"] == 1
    for row in report["rows"]:
        assert min(row[name] for name in ("items_per_s", "tokens_per_s", "memory_bytes", "load_s")) > 0
    assert report["recommended"] in report["rows"]
    assert report["command"].startswith(f"textmill models add bert {folder} --engine ")


def test_the_recommended_command_registers_what_it_says(home: Home, tiny: Tiny) -> None:
    home.texts("texts.txt", 6)
    report = report_of(home, tiny("marian").path, "texts.txt", *FAST)
    engines = {(row["engine"], row["dtype"]) for row in report["rows"]}

    added = home.run(*report["command"].split()[1:])

    assert {("torch", "float32"), ("ctranslate2", "float32"), ("ctranslate2", "int8")} <= engines
    assert added.returncode == 0, added.stderr
    listed = json.loads(home.run("models", "list", "--json").stdout.splitlines()[-1])
    best = report["recommended"]
    assert (listed["name"], listed["engine"], listed["dtype"]) == ("marian", best["engine"], best["dtype"])
    assert listed["tasks"] == ["translate", "generate"]


def test_a_field_without_texts_is_named(home: Home) -> None:
    (home.folder / "in.jsonl").write_text('{"body": "a text"}\n', encoding="utf-8")

    refused = bench(home, "fake", "in.jsonl")
    taken = bench(home, "fake", "in.jsonl", "--text-field", "body", *FAST)

    assert refused.returncode == 1
    assert "no item has a text in 'text'" in refused.stderr
    assert taken.returncode == 0, taken.stderr


def test_what_is_no_model_is_refused(home: Home) -> None:
    unknown = bench(home, "nonsense")
    nowhere = bench(home, "./nowhere")

    assert unknown.returncode == nowhere.returncode == 1
    assert "unknown model 'nonsense'" in unknown.stderr
    assert "no such folder" in nowhere.stderr


def test_a_model_that_runs_nowhere_says_why(home: Home) -> None:
    store = home.store()
    spec = {"name": "broken", "path": "fake", "kind": "any", "tasks": ["classify"], "engine": "fake"}
    from jobs.models import ModelSpec

    store.models.put(ModelSpec.model_validate(spec | {"head": "classify", "generation": {"load_error": "no luck"}}))
    store.close()

    done = bench(home, "broken")

    assert done.returncode == 1
    assert "no luck" in done.stderr
