"""`textmill run` from the outside: outputs, exit codes, messages, and going on after every kind of interruption."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.commands import TEXTMILL, Home, interrupt, poll
from tests.terminal import Terminal


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path)
    yield made
    made.close()


def test_a_run_writes_every_result_in_order_and_leaves_no_process(home: Home) -> None:
    home.texts("texts.txt", 1000)

    done = home.run("run", "classify", "texts.txt", "-o", "out.jsonl", "--model", "fake")

    assert done.returncode == 0, done.stderr
    results = home.results("out.jsonl")
    assert [result["seq"] for result in results] == list(range(1000))
    assert {result["status"] for result in results} == {"ok"}
    assert "1,000 items: 1,000 ok" in done.stderr
    assert done.stdout == ""
    assert not home.processes()


def test_stdin_to_stdout_pipes_cleanly(home: Home) -> None:
    done = home.run("run", "classify", "-", "--model", "fake", given="eins\nzwei\n")

    assert done.returncode == 0, done.stderr
    assert [line[:8] for line in done.stdout.splitlines()] == ['{"seq":0', '{"seq":1']


def test_failed_items_give_exit_code_3_and_say_what_to_do(home: Home) -> None:
    (home.folder / "in.jsonl").write_text('{"text": "good"}\n{"text": "  "}\n{"text": "also good"}\n')

    done = home.run("run", "classify", "in.jsonl", "-o", "out.csv", "--model", "fake")

    assert done.returncode == 3, done.stderr
    assert "2 ok, 1 failed (empty_text 1)" in done.stderr
    assert "textmill retry job_" in done.stderr
    assert len((home.folder / "out.csv").read_text().splitlines()) == 4


def test_fields_params_and_kept_fields_reach_the_job(home: Home) -> None:
    (home.folder / "in.csv").write_text("name,body,lang\na,some text,de\n", encoding="utf-8")
    fields = ["--text-field", "body", "--id-field", "name", "--keep", "lang"]

    done = home.run(
        "run", "sentiment", "in.csv", "-o", "o.jsonl", "--model", "fake", *fields, "-p", 'labels=["x", "y"]'
    )

    assert done.returncode == 0, done.stderr
    (result,) = home.results("o.jsonl")
    assert (result["custom_id"], result["kept"]) == ("a", {"lang": "de"})
    assert {label["label"] for label in result["output"]["labels"]} == {"x", "y"}


def test_a_finished_run_typed_again_writes_again_without_a_machine(home: Home) -> None:
    command = ["run", "classify", home.texts("texts.txt", 10), "-o", "out.jsonl", "--model", "fake"]
    home.run(*command)
    first = (home.folder / "out.jsonl").read_bytes()
    (home.folder / "out.jsonl").unlink()
    (home.path / "logs" / "worker.log").unlink()

    again = home.run(*command)

    assert again.returncode == 0
    assert "is done already" in again.stderr
    assert (home.folder / "out.jsonl").read_bytes() == first
    assert not (home.path / "logs" / "worker.log").exists()


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5])
def test_a_killed_run_typed_again_goes_on_and_gives_each_result_once(home: Home, share: float) -> None:
    home.env["TEXTMILL_GRACE_S"] = "0"
    model, n = home.slow_model(), 300
    command = ["run", "classify", home.texts("texts.txt", n), "-o", "out.jsonl", "--model", model]
    killed = home.start(*command)
    poll(lambda: home.worker() if share == 0 else home.done() >= share * n)

    killed.kill()
    killed.communicate()
    assert not (home.folder / "out.jsonl").exists()
    done = home.run(*command)

    assert done.returncode == 0, done.stderr
    assert [result["seq"] for result in home.results("out.jsonl")] == list(range(n))
    assert share == 0 or "goes on where it was left" in done.stderr
    poll(lambda: not home.processes())


def test_a_run_killed_while_it_reads_goes_on_with_one_job(home: Home) -> None:
    home.texts("texts.txt", 40_000)
    command = ["run", "classify", "texts.txt", "-o", "out.jsonl", "--model", "fake"]
    killed = home.start(*command)
    poll(lambda: _loading(home))

    killed.kill()
    killed.communicate()
    done = home.run(*command)

    assert done.returncode == 0, done.stderr
    assert [result["seq"] for result in home.results("out.jsonl")] == list(range(40_000))
    assert _jobs(home) == 1


def test_on_a_terminal_the_progress_is_one_line_with_the_summary_below(home: Home) -> None:
    home.env["TERM"] = "xterm"
    terminal, model = Terminal(100), home.slow_model()

    command = ["run", "classify", home.texts("texts.txt", 80), "-o", "out.jsonl", "--model", model]
    running = home.start(*command, stderr=terminal.stream)
    running.communicate(timeout=60)

    progress, *summary = terminal.rows()
    terminal.close()
    assert running.returncode == 0
    assert progress.startswith("classify [####")
    assert "] 80/80 completed" in progress
    assert summary[0].startswith("done    80 items: 80 ok")


def test_ctrl_c_keeps_the_job_and_the_same_command_goes_on(home: Home) -> None:
    model, n = home.slow_model(), 400
    command = ["run", "classify", home.texts("texts.txt", n), "-o", "out.jsonl", "--model", model]
    running = home.start(*command)
    poll(lambda: home.done() > 0)

    _, said = interrupt(running)
    again = home.run(*command)

    assert running.returncode == 130
    assert "the same command goes on" in said
    assert "Traceback" not in said
    assert again.returncode == 0, again.stderr
    assert len(home.results("out.jsonl")) == n
    assert _jobs(home) == 1


def test_sigterm_is_as_polite_as_ctrl_c_and_leaves_no_process(home: Home) -> None:
    model = home.slow_model()
    running = home.start("run", "classify", home.texts("texts.txt", 2000), "-o", "out.jsonl", "--model", model)
    poll(lambda: home.done() > 0)

    running.terminate()
    running.communicate(timeout=30)

    assert running.returncode == 130
    assert not home.processes()


def test_a_killed_worker_is_started_again_within_the_run(home: Home) -> None:
    home.env["TEXTMILL_LEASE_S"] = "2"
    model, n = home.slow_model(), 400
    running = home.start("run", "classify", home.texts("texts.txt", n), "-o", "out.jsonl", "--model", model)
    poll(lambda: home.done() > 0)
    worker = home.worker()
    assert worker is not None

    worker.kill()
    _, said = running.communicate(timeout=60)

    assert running.returncode == 0, said
    assert "signal 9: killed, perhaps for lack of memory" in said
    assert len(home.results("out.jsonl")) == n


def test_a_second_run_joins_the_first_and_takes_over_when_it_leaves(home: Home) -> None:
    model = home.slow_model()
    first = home.start("run", "classify", home.texts("one.txt", 5000), "-o", "one.jsonl", "--model", model)
    poll(lambda: home.done() > 0)
    said = home.folder / "said"
    with said.open("w") as stderr:
        command = ["run", "classify", home.texts("two.txt", 40), "-o", "two.jsonl", "--model", model]
        second = home.start(*command, stderr=stderr)
        poll(lambda: "`textmill run`" in said.read_text())

        first.kill()
        first.communicate()
        home.cancel_oldest()
        second.communicate(timeout=60)

    assert second.returncode == 0, said.read_text()
    assert not (home.folder / "one.jsonl").exists()
    assert len(home.results("two.jsonl")) == 40


def test_a_reader_that_leaves_early_is_no_error(home: Home) -> None:
    home.texts("texts.txt", 20_000)
    line = f"'{TEXTMILL}' run classify texts.txt --model fake | head -n 2"

    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        cwd=home.folder,
        env=home.env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert len(done.stdout.splitlines()) == 2
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert "Broken" not in done.stderr


def test_with_json_stderr_is_json_lines_alone_and_stdout_is_left_to_the_results(home: Home) -> None:
    command = ["run", "classify", "-", "--model", "fake", "--json", "--keep", "nope"]

    done, wrong = home.run(*command, given="a\nb\n"), home.run(*command, "-p", "nope=1", given="a\n")

    assert [json.loads(line)["seq"] for line in done.stdout.splitlines()] == [0, 1]
    said = [json.loads(line) for line in done.stderr.splitlines()]
    assert any("'nope'" in line["note"] for line in said if "note" in line)
    assert said[-2]["state"] == "completed"
    assert said[-1]["summary"].items() >= {"state": "completed", "ok": 2, "error": 0, "output": "-"}.items()
    assert wrong.returncode == 1
    assert "nope" in json.loads(wrong.stderr)["error"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["clasify", "t.txt", "--model", "fake"], 1, "did you mean 'classify'"),
        (["classify", "none.txt", "--model", "fake"], 1, "none.txt: no such file"),
        (["classify", "t.xyz", "--model", "fake"], 1, "unknown format .xyz"),
        (["classify", "t.txt", "--model", "nothing"], 1, "nothing"),
        (["classify", "t.txt", "--model", "./nowhere"], 1, "no such folder"),
        (["classify", "t.txt"], 1, "textmill models fetch demo"),
        (["classify", "t.txt", "--model", "fake", "-p", "colour=red"], 1, "colour"),
        (["classify", "t.txt", "--model", "fake", "-p", "colour"], 2, "NAME=VALUE"),
        (["classify", "t.txt", "--model", "fake", "-o", "no/such/folder/out.jsonl"], 1, "cannot be written"),
        (["classify", "t.txt", "--model", "fake", "-o", "out.xyz"], 1, "unknown format .xyz"),
        (["classify", "empty.txt", "--model", "fake"], 1, "empty"),
        (["classify"], 2, "Missing argument"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(home: Home, arguments: list[str], code: int, message: str) -> None:
    for name in ("t.txt", "t.xyz"):
        home.texts(name, 1)
    (home.folder / "empty.txt").touch()

    done = home.run("run", *arguments)

    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_lines_that_cannot_be_items_are_all_listed_and_skipped_on_demand(home: Home) -> None:
    (home.folder / "in.jsonl").write_text('{"text": "good"}\n{"no": "text"}\nnot json\n')
    command = ["run", "classify", "in.jsonl", "-o", "out.jsonl", "--model", "fake"]

    refused = home.run(*command)
    skipped = home.run(*command, "--on-invalid", "skip")

    assert refused.returncode == 1
    assert "missing_field" in refused.stderr
    assert "malformed_json" in refused.stderr
    assert skipped.returncode == 0, skipped.stderr
    assert "2 line(s)" in skipped.stderr
    assert len(home.results("out.jsonl")) == 1


def _loading(home: Home) -> bool:
    store = home.store()
    try:
        return any(job.state == "loading" for job in store.jobs.list())
    finally:
        store.close()


def _jobs(home: Home) -> int:
    store = home.store()
    try:
        return len(store.jobs.list())
    finally:
        store.close()


def test_an_incremental_run_does_what_is_new_and_nothing_when_nothing_is(home: Home) -> None:
    texts = home.folder / "texts.jsonl"
    lines = [json.dumps({"custom_id": f"n{n}", "text": f"text {n}"}) for n in range(30)]
    run = ("run", "classify", "texts.jsonl", "-o", "out.jsonl", "--model", "fake", "--incremental", "news")
    texts.write_text("\n".join(lines[:20]))
    first = home.run(*run)

    unchanged = home.run(*run)
    texts.write_text("\n".join(lines[5:]))
    grown = home.run(*run)
    listed = home.run("seen", "news", "--vanished")
    told = home.run("seen", "news", "--json")

    assert [each.returncode for each in (first, unchanged, grown, listed)] == [0] * 4, first.stderr + unchanged.stderr
    assert "nothing new under 'news': 20 items are as they were; no job was made" in unchanged.stderr
    assert "15 items are as they were and are left out; 5 have vanished since" in grown.stderr
    assert [result["custom_id"] for result in home.results("out.jsonl")] == [f"n{n}" for n in range(20, 30)]
    assert sorted(listed.stdout.split()) == [f"n{n}" for n in range(5)]
    assert json.loads(told.stdout) == {"name": "news", "items": 30, "ok": 30, "vanished": 5}


def test_an_incremental_run_killed_before_it_wrote_writes_when_typed_again(home: Home) -> None:
    home.texts("texts.txt", 10)
    run = ("run", "classify", "texts.txt", "-o", "out.jsonl", "--model", "fake", "--incremental", "news")
    home.run(*run)
    (home.folder / "out.jsonl").unlink()  # as if it had never come to that

    again = home.run(*run)

    assert again.returncode == 0, again.stderr
    assert len(home.results("out.jsonl")) == 10


def test_an_incremental_submit_without_anything_new_is_no_error(home: Home) -> None:
    home.texts("texts.txt", 10)
    home.run("run", "classify", "texts.txt", "-o", "out.jsonl", "--model", "fake", "--incremental", "news")

    nothing = home.run("submit", "classify", "texts.txt", "--model", "fake", "--incremental", "news")

    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert "nothing new under 'news'" in nothing.stderr
