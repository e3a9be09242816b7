"""What the command line reads and prints, without processes: params, tables, URLs, views."""

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import click
import orjson
import pytest

from jobs.cli import params, view
from jobs.cli.output import Tally
from jobs.cli.progress import figures, waiting
from jobs.cli.reporters import JsonLines, PlainLines, reporter
from jobs.cli.summary import interrupted, summary
from jobs.cli.table import facts, table
from jobs.errors import UsageError
from jobs.schemas import Canary, Counts, Rate, TimeEstimate
from jobs.states import CanaryState, Control, JobState
from jobs.urls import hide
from tests.rows import failed, ok, running_job

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def test_params_are_json_where_they_parse_and_text_otherwise() -> None:
    given = ["num_beams=4", 'labels=["a", "b"]', "prompt=Say: a=b", "flag=true", "empty=", "half={"]

    assert params.parse(given) == {
        "num_beams": 4,
        "labels": ["a", "b"],
        "prompt": "Say: a=b",
        "flag": True,
        "empty": "",
        "half": "{",
    }


@pytest.mark.parametrize("given", [["beams"], ["=4"], ["a=1", "a=2"]])
def test_params_that_are_no_pairs_or_doubled_are_refused(given: list[str]) -> None:
    with pytest.raises(click.BadParameter):
        params.parse(given)


def test_names_with_commas_between_lose_blanks_and_gaps() -> None:
    assert params.words(" a, b,,c ") == ("a", "b", "c")
    assert params.words(None) == ()


def test_labels_stay_text() -> None:
    assert params.labels(["team=search", "year=2026"]) == {"team": "search", "year": "2026"}
    with pytest.raises(click.BadParameter):
        params.labels(["team"])


@pytest.mark.parametrize("given", ["2026-11-23", "2026-11-23 00:00", "2026-11-23T01:00:00+01:00"])
def test_a_deadline_without_a_zone_is_utc(given: str) -> None:
    assert params.moment(given) == NOW


def test_a_deadline_that_is_no_time_is_refused_with_one_that_is() -> None:
    with pytest.raises(click.BadParameter, match=r"'tomorrow'.*such as 2027-01-31"):
        params.moment("tomorrow")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:p@ss/w:rd@db/x", "postgresql://***@db/x"),
        ("redis://:secret@127.0.0.1:6379/0", "redis://***@127.0.0.1:6379/0"),
        ("postgresql://db/x?sslpassword=hush&a=1", "postgresql://db/x?sslpassword=***&a=1"),
        ("sqlite:////home/me/textmill.db", "sqlite:////home/me/textmill.db"),
    ],
)
def test_urls_are_shown_without_their_secrets(url: str, shown: str) -> None:
    assert hide(url) == shown


def test_tables_align_and_have_no_blanks_at_line_ends() -> None:
    assert table(("A", "LONG"), [("xyz", 1), ("", "")]) == "A    LONG\nxyz  1\n"
    assert facts([("a", 1), ("long", "x"), ("none", None)]) == "a:    1\nlong: x"


def test_json_progress_is_one_line_for_each_new_state_and_interval() -> None:
    stream = io.StringIO()
    lines = JsonLines(stream, interval_s=3600)

    for job in (
        running_job(),
        running_job(),
        running_job(state=JobState.COMPLETED),
        running_job(state=JobState.COMPLETED),
    ):
        lines.show(job)

    assert [orjson.loads(line)["state"] for line in stream.getvalue().splitlines()] == ["running", "completed"]


def test_plain_progress_tells_what_is_done_how_fast_and_what_failed() -> None:
    stream = io.StringIO()

    PlainLines(stream).show(running_job(rate=Rate(items_per_s=38.2, tokens_per_s=4100.0)))

    line = stream.getvalue()
    assert line.startswith("classify job_0199")
    assert "415/1,000 running, 38.2 items/s, 4,100 tokens/s" in line
    assert line.endswith("3 failed\n")


def test_a_pipe_gets_plain_lines_and_a_paused_job_says_so() -> None:
    assert isinstance(reporter(io.StringIO(), as_json=False), PlainLines)
    assert figures(running_job(control=Control.PAUSE)).startswith("running (paused)")


def test_the_time_left_is_told_only_while_there_is_some() -> None:
    soon = datetime.now(UTC) + timedelta(seconds=90.4)

    assert "1 min 30 s left" in figures(running_job(eta_at=soon))
    assert "left" not in figures(running_job(eta_at=soon, state=JobState.COMPLETED))


def test_the_summary_counts_failures_by_code_and_says_what_to_type_next() -> None:
    tally = Tally(ok=997, truncated_items=2, truncated_tokens=3400)
    tally.errors.update(["too_long", "too_long", "empty_text"])

    text = summary(running_job(state=JobState.COMPLETED), tally, "out.jsonl")

    assert "1,000 items: 997 ok, 3 failed (too_long 2, empty_text 1)" in text
    assert "3,400 tokens of 2 long items" in text
    assert "out.jsonl" in text
    assert f"textmill retry {running_job().id}" in text


def test_the_summary_says_how_many_outputs_ended_at_the_token_limit() -> None:
    outputs = [
        {"summary_text": "All.", "finish_reason": "stop"},
        {"summary_text": "Only the beg", "finish_reason": "length"},
        {"summary_text": 'He wrote {"finish_reason":"length"} down.', "finish_reason": "stop"},
        {"generations": [{"generated_text": text, "finish_reason": "length"} for text in "ab"]},
    ]
    tally, nothing = Tally(), Tally()
    for output in outputs:
        tally.add(ok(0, output=orjson.dumps(output).decode()))
    nothing.add(failed(0))

    assert "cut     2 outputs ended at max_new_tokens" in summary(running_job(), tally, "out.jsonl")
    assert "max_new_tokens" not in summary(running_job(), nothing, "out.jsonl")


def test_an_interrupted_run_says_how_to_go_on_and_where_it_goes_on_anyway() -> None:
    assert "same command" in interrupted(None, None)
    assert "same command goes on" in interrupted(running_job(), None)
    assert "textmill cancel" in interrupted(running_job(), "`textmill up` (process 7)")


@pytest.mark.parametrize(
    ("job", "code"),
    [
        ({"state": JobState.COMPLETED, "counts": Counts(total=1, ok=1)}, 0),
        ({"state": JobState.COMPLETED, "counts": Counts(total=1, error=1)}, 3),
        ({"state": JobState.FAILED}, 1),
        ({"state": JobState.CANCELLED}, 1),
    ],
)
def test_exit_codes_tell_how_a_job_ended(job: dict[str, Any], code: int) -> None:
    assert view.exit_code(running_job(**job)) == code


def test_a_view_leaves_out_what_is_not_known() -> None:
    text = view.view(running_job())

    assert "415 of 1,000 done (42%): 412 ok, 3 failed" in text
    assert "finished" not in text
    assert "deadline" not in text


def test_a_list_without_jobs_says_how_to_begin() -> None:
    assert "textmill submit" in view.listing([])
    assert "415/1,000" in view.listing([running_job()])


def test_an_unknown_state_is_named_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"'done'.*queued.*completed"):
        view.states_of(["running", "done"])


@pytest.mark.parametrize(("early", "says"), [(10, "will miss its deadline"), (-10, "may miss its deadline")])
def test_a_late_job_says_by_how_much_and_how_sure_that_is(early: int, says: str) -> None:
    deadline = datetime.now(UTC) + timedelta(hours=1)
    early_at, eta_at = deadline + timedelta(minutes=early), deadline + timedelta(minutes=30)
    times = {"deadline_at": deadline, "eta_early_at": early_at, "eta_at": eta_at, "eta_late_at": eta_at}
    job = running_job(**times, late=True, late_by_s=1800.0)

    assert f"late:     {says} by about 30 min" in view.view(job)
    assert f"{says} by about 30 min" in figures(job)
    assert "late:" not in view.view(running_job(deadline_at=deadline))


@pytest.mark.parametrize(("off", "says"), [(300, "5 min before it ended"), (-20, "20 s after it ended")])
def test_the_first_forecast_stands_beside_the_outcome(off: int, says: str) -> None:
    ended = running_job(state=JobState.COMPLETED, finished_at=NOW, first_eta_at=NOW - timedelta(seconds=off))

    assert f", {says}" in view.view(ended)
    assert "first ETA:" in view.view(running_job(first_eta_at=NOW))
    assert "first ETA:" not in view.view(running_job())


def test_a_waiting_canary_says_what_came_of_it_and_what_to_type() -> None:
    rest = TimeEstimate(seconds=120, early_s=60, late_s=300, known_from="canary")
    told = Canary(state=CanaryState.WAITING, items=10, ok=9, error=1, rest=rest)
    job = running_job(control=Control.PAUSE, canary=told)
    quick = job.model_copy(update={"canary": told.model_copy(update={"rest": rest.model_copy(update={"early_s": 0})})})

    assert "9 ok, 1 failed, 0 tokens in, 0 out; the rest takes about 2 min (1 min to 5 min)" in waiting(job)
    assert "the rest takes at most about 5 min" in waiting(quick)
    assert f"textmill approve {job.id}" in waiting(job)
    assert figures(job).startswith("running (waits for approval)")
    assert view.state(job) == "running, waits for approval"
