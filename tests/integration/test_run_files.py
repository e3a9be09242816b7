"""What `textmill run` does about its files and streams: none is destroyed, lost, waited for in vain or left behind."""

import os
import shlex
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.commands import TEXTMILL, Home, poll

CLASSIFY = ("run", "classify")
FAKE = ("--model", "fake")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path)
    yield made
    made.close()


def shell(home: Home, line: str) -> "subprocess.CompletedProcess[str]":
    """A command line of `sh`, in which `textmill` is our command."""
    return subprocess.run(
        ["sh", "-c", line.replace("textmill", shlex.quote(TEXTMILL))],
        cwd=home.folder,
        env=home.env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "line",
    [
        "textmill run classify in.jsonl -o in.jsonl --model fake",
        "textmill run classify other.jsonl in.jsonl -o ./link.jsonl --model fake",
        "textmill run classify - -o in.jsonl --model fake < in.jsonl",
        "textmill run classify in.jsonl --model fake >> in.jsonl",
    ],
)
def test_an_output_that_is_an_input_is_refused_before_anything_is_run(home: Home, line: str) -> None:
    (home.folder / "in.jsonl").write_text('{"text": "precious"}\n')
    (home.folder / "other.jsonl").write_text('{"text": "other"}\n')
    (home.folder / "link.jsonl").symlink_to("in.jsonl")

    done = shell(home, line)

    assert done.returncode == 1
    assert "is the input" in done.stderr
    assert (home.folder / "in.jsonl").read_text() == '{"text": "precious"}\n'
    assert not (home.path / "textmill.db").exists()


def test_an_output_pipe_gets_the_results_when_somebody_reads_it(home: Home) -> None:
    os.mkfifo(home.folder / "pipe")
    home.texts("t.txt", 3)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.extend((home.folder / "pipe").read_text().splitlines()))
    reader.start()

    done = home.run(*CLASSIFY, "t.txt", "-o", "pipe", *FAKE)
    reader.join(timeout=10)

    assert done.returncode == 0, done.stderr
    assert len(read) == 3


def test_what_a_killed_run_left_of_its_output_is_removed_by_the_next(home: Home) -> None:
    home.env["TEXTMILL_GRACE_S"] = "0"
    command = [*CLASSIFY, home.texts("t.txt", 400), "-o", "out.jsonl", "--model", home.slow_model()]
    killed = home.start(*command)
    poll(lambda: list(home.folder.glob(".out.jsonl.*.part")))

    killed.kill()
    killed.communicate()
    left = list(home.folder.glob(".out.jsonl.*.part"))
    done = home.run(*command)

    assert left
    assert done.returncode == 0, done.stderr
    assert not list(home.folder.glob(".out.jsonl.*"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("textmill run classify - --model fake <&-", "standard input is closed"),
        ("textmill run classify t.txt --model fake >&-", "standard output is closed"),
    ],
)
def test_a_closed_stream_that_is_needed_is_named(home: Home, line: str, message: str) -> None:
    home.texts("t.txt", 2)

    done = shell(home, line)

    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_closed_streams_that_are_not_needed_harm_nothing(home: Home) -> None:
    home.texts("t.txt", 2)

    done = shell(home, "textmill run classify t.txt -o out.jsonl --model fake <&- >&- 2>&-")

    assert done.returncode == 0
    assert len(home.results("out.jsonl")) == 2


def test_the_name_of_standard_output_is_standard_output(home: Home) -> None:
    home.texts("t.txt", 2)

    done = shell(home, "textmill run classify t.txt -o /dev/stdout --model fake > out")

    assert done.returncode == 0, done.stderr
    assert len(home.results("out")) == 2


def test_a_csv_on_standard_input_is_read_as_one_on_demand_and_suspected_otherwise(home: Home) -> None:
    given = 'text,topic\n"a, b",x\nc,y\n'

    told = home.run(*CLASSIFY, "-", *FAKE, "--format", "csv", "--keep", "topic", given=given)
    untold = home.run(*CLASSIFY, "-", *FAKE, given=given)
    wrong = home.run(*CLASSIFY, "-", *FAKE, "--format", "csv", given="body\nx\n")
    unknown = home.run(*CLASSIFY, "-", *FAKE, "--format", "xml", given=given)

    assert told.stdout.count('"kept":{"topic":') == 2
    assert "begins like" not in told.stderr
    assert len(untold.stdout.splitlines()) == 3
    assert "standard input begins like a CSV with a column 'text'" in untold.stderr
    assert "standard input: no column 'text'" in wrong.stderr
    assert "unknown format 'xml'; known: arrow, csv, jsonl, parquet, text, tsv" in unknown.stderr


def test_a_json_array_on_standard_input_is_suspected(home: Home) -> None:
    done = home.run(*CLASSIFY, "-", *FAKE, given='[{"text": "a"}]\n')

    assert "begins like a JSON array" in done.stderr


def test_a_file_of_any_name_can_be_read_in_a_named_format(home: Home) -> None:
    (home.folder / "app.log").write_text("one\ntwo\n")

    done = home.run(*CLASSIFY, "app.log", *FAKE, "--format", "text")

    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2


def test_one_bad_file_of_a_folder_is_named_and_can_be_skipped(home: Home) -> None:
    docs = home.folder / "docs"
    docs.mkdir()
    (docs / "a.txt").write_text("good")
    (docs / "loop.txt").symlink_to("loop.txt")
    os.mkfifo(docs / "pipe.txt")
    command = [*CLASSIFY, "docs", "-o", "out.jsonl", *FAKE]

    refused, skipped = home.run(*command), home.run(*command, "--on-invalid", "skip")

    assert refused.returncode == 1
    assert "unreadable: loop.txt: " in refused.stderr
    assert "unreadable: pipe.txt: not a regular file" in refused.stderr
    assert skipped.returncode == 0, skipped.stderr
    assert [result["custom_id"] for result in home.results("out.jsonl")] == ["a.txt"]


def test_skipped_lines_are_told_again_when_the_run_is_typed_again(home: Home) -> None:
    (home.folder / "in.jsonl").write_text('{"text": "good"}\n{"no": "text"}\n')
    command = [*CLASSIFY, "in.jsonl", "-o", "out.jsonl", *FAKE, "--on-invalid", "skip"]

    first, again = home.run(*command), home.run(*command)

    for said in (first.stderr, again.stderr):
        assert "1 line(s) cannot be items and were skipped" in said
        assert "in.jsonl:2: missing_field" in said
    assert "is done already" in again.stderr
    assert len(list((home.path / "reports").iterdir())) == 1


def test_a_kept_field_that_nobody_has_is_told_and_one_named_twice_counts_once(home: Home) -> None:
    (home.folder / "in.jsonl").write_text('{"text": "a", "topic": "x"}\n{"text": "b"}\n')

    done = home.run(*CLASSIFY, "in.jsonl", "-o", "out.csv", *FAKE, "--keep", "topic,topic,topik")

    assert "no item has the field 'topik'" in done.stderr
    assert "'topic'" not in done.stderr
    assert (home.folder / "out.csv").read_text().splitlines()[0].endswith(",topic,topik")


@pytest.mark.parametrize("queues", ["default", "gpu", "gpu,cpu"])
def test_a_run_uses_a_queue_that_its_own_worker_serves(home: Home, queues: str) -> None:
    home.env["TEXTMILL_QUEUES"] = queues

    done = home.run(*CLASSIFY, home.texts("t.txt", 2), *FAKE)

    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2


def test_the_same_run_with_another_priority_is_the_same_job(home: Home) -> None:
    command = [*CLASSIFY, home.texts("t.txt", 2), *FAKE]
    home.run(*command)

    again = home.run(*command, "--priority", "5")

    assert again.returncode == 0, again.stderr
    assert "is done already" in again.stderr


def test_a_redis_url_that_is_none_is_refused_at_once(home: Home) -> None:
    home.env["TEXTMILL_REDIS_URL"] = "http://:hush@localhost"

    done = home.run(*CLASSIFY, home.texts("t.txt", 2), *FAKE)

    assert done.returncode == 1
    assert "redis_url: a Redis URL begins with redis:// or rediss://" in done.stderr
    assert "hush" not in done.stderr


def test_the_rights_of_an_output_stay_as_they_were(home: Home) -> None:
    out = home.folder / "out.jsonl"
    out.touch(mode=0o600)

    home.run(*CLASSIFY, home.texts("t.txt", 2), "-o", "out.jsonl", *FAKE)

    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert out.stat().st_size
