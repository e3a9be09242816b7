"""`textmill evaluate` on jobs that ran."""

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


def test_a_job_is_evaluated_compared_and_drawn(home: Home) -> None:
    texts = [
        {"custom_id": f"n{at}", "text": f"text {at}", "gold": ("POSITIVE", "NEGATIVE")[at % 2]} for at in range(60)
    ]
    (home.folder / "in.jsonl").write_text("\n".join(map(json.dumps, texts)), encoding="utf-8")
    (home.folder / "gold.jsonl").write_text(
        "\n".join(json.dumps({"id": each["custom_id"], "right": each["gold"]}) for each in texts[:50]), encoding="utf-8"
    )
    home.run("run", "classify", "in.jsonl", "--model", "fake", "--keep", "gold", "-o", "out.jsonl")
    home.run("run", "classify", "in.jsonl", "--model", "fake", "--keep", "gold", "-o", "again.jsonl", "-p", "top_k=1")
    second, first = (json.loads(line)["id"] for line in home.run("list", "--json").stdout.splitlines())

    kept = home.run("evaluate", first, "--plot", "plot.svg", "--json")
    words = home.run("evaluate", first, "--against", second)
    filed = home.run("evaluate", first, "--gold-file", "gold.jsonl", "--gold", "right", "--id-field", "id")

    right = sum(row["output"]["labels"][0]["label"] == row["kept"]["gold"] for row in home.results("out.jsonl"))
    report = json.loads(kept.stdout)
    assert report["figures"]["accuracy"]["value"] == pytest.approx(right / 60)
    assert (home.folder / "plot.svg").read_text(encoding="utf-8").startswith("<svg")
    assert "same output:" in words.stdout
    assert "100.0%" in words.stdout
    assert "10 of 60 results" in filed.stderr
    assert "items: 50" in filed.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--gold", "label"), "kept: nothing (submit with --keep label, or name a --gold-file)"),
        (("--plot", "plot.png"), "plots are .svg files"),
        (("--gold-file", "none.csv"), "none.csv: No such file"),
    ],
)
def test_what_cannot_be_evaluated_is_said(home: Home, arguments: tuple[str, ...], said: str) -> None:
    home.texts("t.txt", 3)
    home.run("run", "classify", "t.txt", "--model", "fake", "-o", "out.jsonl")
    job = json.loads(home.run("list", "--json").stdout)["id"]

    found = home.run("evaluate", job, *arguments)

    assert found.returncode
    assert said in found.stderr
    assert "Traceback" not in found.stderr
