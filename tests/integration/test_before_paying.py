"""A run that shows a canary first: it waits, is approved of, and the same command goes on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.commands import Home


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path)
    yield made
    made.close()


def test_a_run_waits_for_approval_of_its_canary_and_goes_on_afterwards(home: Home) -> None:
    home.texts("t.txt", 1500)
    wanted = ("run", "classify", "t.txt", "-o", "out.jsonl", "--model", "fake")

    first = home.run(*wanted, "--canary", "10")
    job = first.stderr.partition("textmill approve ")[2].split(";")[0].strip()
    still = home.run(*wanted)
    looked = home.run("results", job)
    approved = home.run("approve", job)
    done = home.run(*wanted)

    assert (first.returncode, still.returncode) == (4, 4), first.stderr
    assert "canary of 10 items: 10 ok, 0 failed" in first.stderr
    assert "the rest takes" in first.stderr
    assert len(looked.stdout.splitlines()) == 10
    assert approved.returncode == 0
    assert done.returncode == 0, done.stderr
    assert [result["seq"] for result in home.results("out.jsonl")] == list(range(1500))


def test_a_run_with_go_on_is_one_command(home: Home) -> None:
    home.texts("t.txt", 1500)

    done = home.run("run", "classify", "t.txt", "-o", "out.jsonl", "--model", "fake", "--canary", "10", "--go-on")

    assert done.returncode == 0, done.stderr
    assert len(home.results("out.jsonl")) == 1500


def test_a_run_that_fails_too_often_stops(home: Home) -> None:
    (home.folder / "t.jsonl").write_text('{"text": " "}\n' * 1500)
    wanted = ("run", "classify", "t.jsonl", "-o", "out.jsonl", "--model", "fake")

    stopped = home.run(*wanted, "--canary", "50", "--max-error-share", "0.02", "--errors-after", "10")

    assert stopped.returncode in (1, 4), stopped.stderr
    assert "50 of 50 items failed" in stopped.stderr or "50 failed" in stopped.stderr
