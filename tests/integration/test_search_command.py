"""`textmill search` on a job that ran, with a worker for the queries."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.commands import Home


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path)
    yield made
    made.close()


def test_texts_are_found_by_themselves_by_others_and_from_standard_input(home: Home) -> None:
    home.texts("t.txt", 30)
    home.run("run", "embed", "t.txt", "--model", "fake", "-o", "out.jsonl")
    job = json.loads(home.run("list", "--json").stdout)["id"]

    asked = home.run("search", job, "text number 17", "--top", "3", "--json")
    like = home.run("search", job, "--like", "17", "--top", "2")
    typed = home.run("search", job, "--top", "1", given="text number 3\n\ntext number 4\n")
    refused = home.run("search", job, " ", "--top", "1")

    found = [json.loads(line) for line in asked.stdout.splitlines()]
    assert [hit["rank"] for hit in found] == [1, 2, 3]
    assert (found[0]["custom_id"], found[0]["item"]) == ("17", {"text": "text number 17"})
    assert found[0]["score"] == pytest.approx(1, abs=1e-5)
    assert "text number 17" not in like.stdout
    assert len(like.stdout.splitlines()) == 3
    assert [line.split()[1] for line in typed.stdout.splitlines() if "number" in line] == ["3", "4"]
    assert refused.returncode
    assert "could not be embedded: empty_text" in refused.stderr
