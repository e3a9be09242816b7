"""Every page as it is sent: what it shows, to whom, and what its forms do."""

import json
import re
import shlex
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from jobs.schedules import making
from jobs.schemas import ScheduleSpec
from jobs.states import Control, JobState
from tests.web.conftest import INPUTS, World

PAGES = (
    *(
        "/",
        "/?span=24h",
        "/?span=7d",
        "/jobs",
        "/jobs?q=task:classify+state:completed",
        "/jobs?sort=-n_items",
        "/jobs/new",
    ),
    *("/schedules", "/models", "/workers", "/keys", "/health", "/login"),
)
INLINE = re.compile(r"<[^>]+\s(style|on\w+)\s*=|<script(?![^>]*\ssrc=)|<style", re.IGNORECASE)


@pytest.fixture
def working(work: Callable[[], None]) -> Iterator[None]:
    """Somebody does what there is to do, as long as the test runs."""
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(0.05):
            work()

    thread = threading.Thread(target=go_on)
    thread.start()
    yield
    over.set()
    thread.join()


def test_every_page_is_whole_and_keeps_to_its_policy(world: World, pages: httpx2.Client, schedule: str) -> None:
    of_jobs = [f"/jobs/{job}" for job in world.jobs.values()]
    results = [f"/jobs/{world.jobs[task]}/results" for task in INPUTS]
    others = [
        f"/jobs/{world.jobs['embed']}/nearest",
        f"/jobs/{world.jobs['classify']}/evaluation",
        f"/schedules/{schedule}",
    ]

    for path in (*PAGES, *of_jobs, *results, *others):
        answer = pages.get(path)

        assert answer.status_code == 200, (path, answer.text)
        assert "</html>" in answer.text, path
        assert not INLINE.search(answer.text), (path, INLINE.search(answer.text))
        assert "'unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"


def test_a_page_of_a_job_is_marked_among_its_tabs(world: World, pages: httpx2.Client) -> None:
    job = f"/jobs/{world.jobs['embed']}"

    for path in (job, f"{job}/results", f"{job}/results?only=ok", f"{job}/nearest", f"{job}/evaluation"):
        text = pages.get(path).text

        marked = re.findall(r'<a href="([^"]+)" aria-current="page">', text.partition('aria-label="Of this job"')[2])
        assert marked == [path.partition("?")[0]]


def test_every_task_has_a_drawing_of_its_own(world: World, pages: httpx2.Client) -> None:
    for task in INPUTS:
        text = pages.get(f"/jobs/{world.jobs[task]}/results?only=ok").text

        assert 'class="card result"' in text, task
        assert "&#34;text&#34;:" not in text, task


def test_texts_are_never_markup(world: World, pages: httpx2.Client) -> None:
    for task in INPUTS:
        text = pages.get(f"/jobs/{world.jobs[task]}/results").text

        assert "<script>alert" not in text, task
    assert "&lt;script&gt;alert" in pages.get(f"/jobs/{world.jobs['classify']}/results").text


def test_the_overview_counts_what_there_is(world: World, pages: httpx2.Client) -> None:
    text = pages.get("/").text

    assert "too_long" in text
    assert "its folder is missing" in text
    assert "w1" in text


def test_a_filter_finds_jobs_and_says_what_it_does_not_understand(world: World, pages: httpx2.Client) -> None:
    found = pages.get("/jobs", params={"q": "label:team=sport"}).text
    odd = pages.get("/jobs", params={"q": "colour:red state:hungry after:soon"}).text

    assert world.jobs["cancelled"] in found
    assert world.jobs["classify"] not in found
    assert "is no qualifier" in odd
    assert "is unknown" in odd
    assert "is no date" in odd


def test_the_list_goes_on_page_by_page_without_gaps(world: World, pages: httpx2.Client) -> None:
    for _ in range(30):
        world.client.submit("classify", ["a"], model="fake", labels={"many": "yes"})
    seen: list[str] = []
    path: str | None = "/jobs?q=label:many&sort=created_at"

    while path:
        text = pages.get(path).text
        seen += re.findall(r'name="job" value="(job_\w+)"', text)
        following = re.search(r'href="([^"]+)" rel="next"', text)
        path = following[1].replace("&amp;", "&") if following else None

    assert len(seen) == len(set(seen)) == 30
    assert seen == sorted(seen)


def test_a_job_is_steered(world: World, pages: httpx2.Client) -> None:
    queued = world.jobs["queued"]

    pages.post(f"/jobs/{queued}/pause")
    assert world.store.jobs.get(queued).control is Control.PAUSE

    pages.post(f"/jobs/{queued}/resume")
    assert world.store.jobs.get(queued).control is Control.RUN

    answer = pages.post(f"/jobs/{world.jobs['classify']}/retry")
    retried = answer.url.path.rpartition("/")[2]
    assert world.store.jobs.get(retried).retry_of == world.jobs["classify"]

    refused = pages.post(f"/jobs/{queued}/approve")
    assert refused.status_code == 409
    assert "canary" in refused.text


def test_several_jobs_are_done_once_their_number_is_confirmed(world: World, pages: httpx2.Client) -> None:
    chosen = [world.jobs["queued"], world.jobs["paused"]]

    asked = pages.post("/jobs/bulk", data={"action": "cancel", "job": chosen})
    assert "Cancel 2 jobs?" in asked.text
    assert world.store.jobs.get(chosen[0]).state is JobState.QUEUED

    pages.post("/jobs/bulk", data={"action": "cancel", "job": chosen, "sure": "2"})
    assert {world.store.jobs.get(each).state for each in chosen} == {JobState.CANCELLED}

    matching = pages.post("/jobs/bulk", data={"action": "delete", "all": "true", "q": "state:cancelled"})
    assert "Delete 4 jobs?" in matching.text


@pytest.mark.parametrize("q", ["state:canceled", "after:soon", "label:a\0", "task:ner " * 100])
def test_a_filter_that_is_not_understood_means_no_job(world: World, pages: httpx2.Client, q: str) -> None:
    answer = pages.post("/jobs/bulk", data={"action": "delete", "all": "true", "q": q})

    assert answer.status_code == 422
    assert "nothing was done" in answer.text


def test_the_order_of_the_list_outlives_what_is_done_to_several(world: World, pages: httpx2.Client) -> None:
    chosen = {"action": "cancel", "job": world.jobs["queued"], "q": "task:classify", "sort": "n_items"}
    asked = pages.post("/jobs/bulk", data=chosen)
    assert 'name="sort" value="n_items"' in asked.text

    done = pages.post("/jobs/bulk", data={**chosen, "sure": "1"})
    assert done.url.params["sort"] == "n_items"
    assert done.text.count('name="sort" value="n_items"') == 2


def test_a_label_of_odd_characters_is_found(world: World, pages: httpx2.Client) -> None:
    for name in ('a"b', "a.b", "a\\b", "$[0]", "7", "a'b", "日本"):
        job = world.client.submit("classify", ["a"], model="fake", labels={name: "yes"}).id

        found = pages.get("/jobs", params={"q": shlex.quote(f"label:{name}=yes")})

        assert job in found.text, name


def test_what_of_several_jobs_cannot_be_done_is_told(world: World, pages: httpx2.Client) -> None:
    chosen = [world.jobs["running"], world.jobs["embed"]]

    answer = pages.post("/jobs/bulk", data={"action": "cancel", "job": chosen, "sure": "2"})

    assert "1 job cancelled, 1 not" in answer.text
    assert world.store.jobs.get(chosen[0]).state is JobState.CANCELLED


def test_more_or_other_jobs_than_were_confirmed_are_not_touched(world: World, pages: httpx2.Client) -> None:
    chosen = [world.jobs["queued"], world.jobs["paused"]]

    answer = pages.post("/jobs/bulk", data={"action": "cancel", "job": chosen, "sure": "1"})

    assert "Cancel 2 jobs?" in answer.text
    assert world.store.jobs.get(chosen[0]).state is JobState.QUEUED


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_results_are_downloaded_as_a_file(world: World, pages: httpx2.Client, form: str) -> None:
    answer = pages.get(f"/jobs/{world.jobs['classify']}/results.{form}")

    assert answer.status_code == 200
    assert f".{form}" in answer.headers["content-disposition"]
    assert len(_rows(answer.content, form)) == len(INPUTS["classify"][0])


def _rows(data: bytes, form: str) -> list[Any]:
    import csv
    import io

    from pyarrow import parquet

    if form == "parquet":
        rows: list[Any] = parquet.read_table(io.BytesIO(data)).to_pylist()
        return rows
    text = data.decode()
    return list(csv.DictReader(io.StringIO(text))) if form == "csv" else list(map(json.loads, text.splitlines()))


def test_a_job_is_tried_and_submitted_from_the_form(world: World, pages: httpx2.Client, working: None) -> None:
    wanted = {"task": "classify", "model": "fake", "items": "one text\nanother\n", "p_top_k": "2", "labels": "team=web"}

    tried = pages.post("/jobs/new", data={**wanted, "step": "preview"})
    assert tried.status_code == 200, tried.text
    assert "one text" in tried.text
    assert 'id="preview"' in tried.text

    answer = pages.post("/jobs/new", data={**wanted, "step": "submit"})
    job = world.store.jobs.get(answer.url.path.rpartition("/")[2])
    assert (job.counts.total, job.params, job.labels) == (2, {"top_k": 2}, {"team": "web"})


def test_an_uploaded_file_is_kept_from_the_trial_to_the_submit(
    world: World, pages: httpx2.Client, working: None
) -> None:
    wanted = {"task": "classify", "model": "fake", "id_field": "no", "template": "{title}: {body}", "keep": "language"}
    wanted |= {"map": "language = lang", "where": "lang = 'en'", "limit": "2"}
    content = b"no,title,body,lang\na,First,fine,en\nb,Second,mal,fr\nc,Third,bad,en\nd,Fourth,so so,en\n"
    upload = {"upload": ("reviews.csv", content, "text/csv")}

    tried = pages.post("/jobs/new", data={**wanted, "step": "preview"}, files=upload)
    assert tried.status_code == 200, tried.text
    assert "First: fine" in tried.text
    assert "Fourth" not in tried.text
    file = re.search(r'name="file" value="(file-\w+)"', tried.text)
    assert file is not None

    answer = pages.post("/jobs/new", data={**wanted, "file": file[1], "step": "submit"})
    job_id = answer.url.path.rpartition("/")[2]
    assert world.store.jobs.get(job_id).counts.total == 2


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ({}, "there are no items"),
        ({"items": "x", "p_top_k": "many"}, "is not a whole number"),
        ({"items": "x", "p_top_k": "-1"}, "top_k"),
        ({"items": '{"text": 7}\n{"words": 1}'}, "2 lines cannot be items"),
        ({"items": "x", "labels": "team"}, "is not NAME=VALUE"),
        ({"items": "x", "model": "absent"}, "absent"),
        ({"items": "x", "queue": "no such/name"}, "queue"),
        ({"file": "file-0", "items": "", "queue": "typed"}, "choose it again"),
        ({"items": "x", "map": "title"}, "is not FIELD=COLUMN"),
        ({"items": "x", "limit": "few"}, "limit"),
        ({"items": "x", "limit": "9" * 5000}, "limit"),
        ({"items": "x", "limit": "9" * 30}, "limit is 999"),
        ({"items": "x", "text_field": "n" * 300}, "text_field"),
        ({"items": '{"text": "x"}', "where": "text ="}, "the filter cannot be read"),
    ],
)
def test_what_is_wrong_with_a_form_is_told_and_what_was_typed_stays(
    world: World, pages: httpx2.Client, typed: dict[str, str], said: str
) -> None:
    answer = pages.post("/jobs/new", data={"task": "classify", "model": "fake", "step": "submit", **typed})

    assert answer.status_code == 422, answer.text
    assert said in answer.text
    for name in {"labels", "queue"} & typed.keys():
        assert f'value="{typed[name]}"' in answer.text


def test_only_a_file_field_takes_a_file(world: World, pages: httpx2.Client) -> None:
    sent = {"task": "classify", "model": "fake", "step": "submit"}

    answer = pages.post("/jobs/new", data=sent, files={"items": ("texts.txt", b"a text")})

    assert answer.status_code == 422
    assert "there are no items" in answer.text


def test_a_mistake_is_told_once(world: World, pages: httpx2.Client) -> None:
    assert pages.post("/keys", data={"name": "x"}).text.count("Field required") == 1


def test_a_clone_has_the_params_of_its_model_job(world: World, pages: httpx2.Client) -> None:
    text = pages.get(f"/jobs/new?from={world.jobs['translate']}").text

    assert 'value="de"' in text
    assert 'value="team=news"' in text


def test_a_schedule_is_steered(world: World, pages: httpx2.Client, schedule: str) -> None:
    assert "morning news" in pages.get("/schedules").text
    assert "07:00" in pages.get(f"/schedules/{schedule}").text

    pages.post(f"/schedules/{schedule}/pause")
    assert world.store.schedules.get(schedule).paused

    pages.post(f"/schedules/{schedule}/resume")
    pages.post(f"/schedules/{schedule}/run")
    assert len(world.store.schedules.runs(schedule)) == 1

    assert "morning news" not in pages.post(f"/schedules/{schedule}/delete").text


def test_a_worker_is_hushed_and_woken(world: World, pages: httpx2.Client) -> None:
    hushed = pages.post("/workers/w1/quiet")

    assert [row.quiet for row in world.store.workers.live(60)] == [True]
    assert "Wake" in hushed.text
    assert "Wake" not in pages.post("/workers/w1/wake").text
    assert pages.post("/workers/w2/quiet").status_code == 404


def test_a_page_that_is_not_there_is_a_page(world: World, pages: httpx2.Client) -> None:
    for path in ("/jobs/job_00000000000000000000000000000000", "/jobs/nothing", "/schedules/none", "/nothing"):
        answer = pages.get(path)

        assert answer.status_code == 404, path
        assert "<h1>Not Found</h1>" in answer.text, path


def test_the_settings_are_shown_without_what_is_secret(serve: Callable[..., Any]) -> None:
    server = serve(redis_url="redis://me:hunter2@127.0.0.1:1/0")

    with httpx2.Client(base_url=server.url, trust_env=False) as plain:
        text = plain.get("/health").text

    assert "hunter2" not in text
    assert "redis://***@127.0.0.1:1/0" in text


def test_the_rows_are_checked(pages: httpx2.Client) -> None:
    assert "All rows are in order" in pages.post("/health/check").text


def test_parts_come_as_events_and_as_an_answer(world: World, pages: httpx2.Client) -> None:
    path = f"/live/jobs/{world.jobs['running']}"

    parts = pages.get(path, headers={"Accept": "application/json"}).json()
    assert set(parts) == {"head", "pace", "strip", "failures", "events"}
    assert all(html.strip().startswith("<") and f'id="{name}"' in html for name, html in parts.items())

    with pages.stream("GET", path, headers={"Accept": "text/event-stream"}) as stream:
        lines = stream.iter_lines()
        assert next(lines) == "event: parts"
        assert set(json.loads(next(lines).removeprefix("data: "))) == set(parts)


def test_the_next_firings_of_a_schedule_are_those_that_come(world: World, pages: httpx2.Client, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("one")
    spec = ScheduleSpec(task="classify", model="fake", inputs=(str(tmp_path / "texts.txt"),), every_s=7200)
    made = making.add(world.store, world.client, "every two hours", spec)
    world.store.schedules._change(made.id, next_due_at=datetime.now(UTC) + timedelta(minutes=5))
    due_at = world.store.schedules.get(made.id).next_due_at
    assert due_at is not None

    text = pages.get(f"/schedules/{made.id}").text

    shown = [datetime.fromisoformat(each) for each in re.findall(r'class="label" datetime="([^"]+)"', text)]
    assert shown == [due_at + timedelta(hours=2 * count) for count in range(5)]


def test_too_many_pages_are_not_followed(world: World, pages: httpx2.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.web.live.MOST", 1)
    events = {"Accept": "text/event-stream"}

    with pages.stream("GET", "/live/jobs", headers=events) as first, pages.stream("GET", "/live/jobs", headers=events):
        assert next(first.iter_lines()) == "event: parts"
        refused = pages.get("/live/", headers=events)
        asked = pages.get("/live/", headers={"Accept": "application/json"})

    assert (refused.status_code, refused.json()["code"]) == (503, "too_many_pages")
    assert asked.status_code == 200


def test_a_stream_ends_with_the_job_it_shows(world: World, pages: httpx2.Client) -> None:
    path = f"/live/jobs/{world.jobs['cancelled']}"

    with pages.stream("GET", path, headers={"Accept": "text/event-stream"}) as stream:
        lines = stream.iter_lines()
        assert next(lines) == "event: parts"
        world.store.jobs.delete(world.jobs["cancelled"])
        assert "event: over" in list(lines)
