"""Commands that need no machine, called in this process: what they print, where, and their exit codes."""

import json
import re
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import orjson
import pytest

from jobs import cli, tasks
from jobs.retries import RetrySource
from jobs.store import Store
from tests.rows import queued_job


class Said(NamedTuple):
    code: int
    out: str
    err: str


Call = Callable[..., Said]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own, and no other setting."""
    folder = tmp_path / "Größe und Maß"
    for name in ("TEXTMILL_DATABASE_URL", "TEXTMILL_REDIS_URL", "TEXTMILL_MODELS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TEXTMILL_HOME", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def call(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs one command line."""

    def run(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["textmill", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return Said(code, out, err)

    return run


def test_help_and_version_load_nothing_heavy() -> None:
    import subprocess

    look = (
        "import sys; from jobs import cli; sys.argv = ['textmill', '--help']\n"
        "try: cli.main()\nexcept SystemExit: pass\n"
        "print(sorted({'pydantic', 'sqlalchemy', 'redis', 'celery', 'rich', 'torch', 'worker'} & set(sys.modules)))"
    )

    said = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout

    assert said.endswith("\n[]\n"), said.splitlines()[-1]
    assert "textmill run classify" in said


def test_a_wrong_command_line_is_exit_code_2(call: Call) -> None:
    assert call("runn", "x").code == 2
    assert call("status").code == 2
    assert call("submit", "classify", "x", "--on-invalid", "maybe").code == 2
    assert call("results", "x", "--status", "fine").code == 2


def test_without_a_command_the_help_lists_them_in_the_order_of_use(call: Call) -> None:
    said, models = call(), call("models")

    assert (said.code, said.out) == (2, "")
    assert _commands(said.err)[:4] == ["run", "up", "submit", "status"]
    assert said.err.rstrip().endswith("`textmill doctor` shows\n  those in force.")
    assert _commands(models.err) == ["list", "add", "remove", "fetch", "bench"]


def test_an_unknown_job_is_one_line_on_stderr(call: Call) -> None:
    said = call("status", "job_0123")

    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("textmill: ")
    assert said.err.count("\n") == 1


def test_tasks_are_listed_and_shown_in_full(call: Call) -> None:
    listed, shown, unknown = call("tasks"), call("tasks", "sentiment"), call("tasks", "clasify")

    assert "summarize" in listed.out
    assert "long_text: truncate | split | error" in shown.out
    assert "text: string (required)" in shown.out
    assert "did you mean 'classify'" in unknown.err


@pytest.mark.parametrize("name", [task.name for task in tasks.all_tasks()])
def test_every_parameter_of_a_task_is_explained(call: Call, name: str) -> None:
    params = tasks.find(name).params.model_fields

    said = " ".join(call("tasks", name).out.split())

    explanations = [" ".join((field.description or "").split()) for field in params.values()]
    assert all(explanations)
    assert [text for text in explanations if text not in said] == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("classify", "labels: list of {label: string, score: number}\n"),
        ("classify", "labels: list of string, 2 to 1000\n"),
        ("embed", "embedding: list of number or list of list of number\n"),
        ("generate", "generations: list of {generated_text: string, finish_reason: stop | length}\n"),
        ("generate", "messages: list of {role: system | user | assistant, content: string}, 1 to 10000\n"),
        ("generate", "max_new_tokens (also max_tokens, max_length): integer, 1 to 1000000\n"),
        ("generate", "top_p: number, above 0, to 1\n"),
        ("translate", "target: string, 2 to 64 characters\n"),
    ],
)
def test_nested_fields_and_bounds_are_written_out(call: Call, name: str, words: str) -> None:
    assert f"  {words}" in call("tasks", name).out


def test_a_submit_without_a_model_names_what_could_be_typed(call: Call, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("a\n")

    said = call("submit", "classify", "t.txt")

    assert said.code == 1
    assert "textmill models fetch demo" in said.err
    assert "--model fake" in said.err


def test_a_submitted_job_is_kept_until_somebody_works(call: Call, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("a\nb\n")

    job = call("submit", "classify", "t.txt", "--model", "fake").out.strip()
    shown = json.loads(call("status", job[:16], "--json").out)

    assert (shown["id"], shown["state"], shown["counts"]["pending"]) == (job, "queued", 2)
    assert call("list", "--state", "completed").out.startswith("no jobs yet")
    assert job in call("list", "--state", "queued").out


def test_the_same_key_gives_the_same_job(call: Call, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("a\n")
    command = ["submit", "classify", "t.txt", "--model", "fake", "--key", "monday"]

    first, second, other = call(*command), call(*command), call(*command, "-p", "top_k=1")

    assert first.out == second.out
    assert other.code == 1
    assert "monday" in other.err


def test_skipped_lines_are_told_by_file_and_line(call: Call, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n{}\n')

    said = call("submit", "classify", "in.jsonl", "--model", "fake", "--on-invalid", "skip")

    assert said.code == 0
    assert "1 line(s) cannot be items and were skipped" in said.err
    assert "in.jsonl:2: missing_field" in said.err


def test_models_are_added_listed_and_removed(call: Call, tmp_path: Path) -> None:
    folder = _bert(tmp_path / "mein modell")

    added = call("models", "add", "mine", str(folder), "--dtype", "bfloat16")
    listed = call("models", "list", "--json")
    wrong = call("models", "add", "other", str(folder), "--dtype", "float3")
    removed, again = call("models", "remove", "mine"), call("models", "remove", "mine")

    assert added.code == 0, added.err
    (spec,) = [spec for spec in map(json.loads, listed.out.splitlines()) if spec["name"] == "mine"]
    assert (spec["path"], spec["dtype"]) == (str(folder), "bfloat16")
    assert wrong.code == 1
    assert "dtype" in wrong.err
    assert removed.code == 0
    assert "unknown model 'mine'" in again.err
    assert folder.exists()


def test_a_folder_without_a_model_is_refused(call: Call, tmp_path: Path) -> None:
    said = call("models", "add", "mine", str(tmp_path))

    assert said.code == 1
    assert "config.json" in said.err


def test_the_fetcher_runs_as_a_process_and_its_specs_are_registered(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "stand in" / "worker"
    package.mkdir(parents=True)
    spec = {"name": "tiny", "path": "fake", "kind": "any", "tasks": ["embed"], "engine": "fake", "head": "embed"}
    (package / "__init__.py").touch()
    (package / "fetch.py").write_text(
        f"import sys; print({json.dumps(json.dumps(spec))}); sys.exit('FAILING' in __import__('os').environ)"
    )
    monkeypatch.setenv("PYTHONPATH", str(package.parent))

    fetched = call("models", "fetch", "demo")
    monkeypatch.setenv("FAILING", "1")
    failed = call("models", "fetch", "demo")

    assert fetched.code == 0, fetched.err
    assert "textmill run embed INPUT -o out.jsonl --model tiny" in fetched.out
    assert "tiny" in call("models", "list").out
    assert failed.code == 1


def test_doctor_hides_secrets_and_finds_a_missing_model(
    call: Call, home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = _bert(tmp_path / "model")
    call("models", "add", "mine", str(folder))
    folder.rename(tmp_path / "elsewhere")
    monkeypatch.setenv("TEXTMILL_REDIS_URL", "redis://:hush@127.0.0.1:1/0")
    monkeypatch.setattr("jobs.cli.doctor.DEVICES", "print('cpu')")

    said = call("doctor")

    assert said.code == 1
    assert "hush" not in said.out + said.err
    assert f"WRONG  model mine: its folder {folder} is missing" in said.out
    assert "WRONG  redis" in said.out
    assert "ok     database" in said.out


def test_doctor_says_which_lease_run_and_up_take(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.cli.doctor.DEVICES", "print('cpu')")

    unset = call("doctor").out
    monkeypatch.setenv("TEXTMILL_LEASE_S", "30")

    assert "60.0 (20.0 under `textmill run` and `textmill up`)" in unset
    assert "`textmill up`)" not in call("doctor").out


def test_a_home_that_is_a_file_is_told_once(call: Call, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    said = call("--home", str(tmp_path / "file"), "doctor")

    assert said.code == 1
    assert (said.out + said.err).count("is a file") == 1


def test_the_fake_model_cannot_be_removed_nor_an_unknown_set_fetched(call: Call) -> None:
    removed, fetched = call("models", "remove", "fake"), call("models", "fetch", "bogus")

    assert "'fake' is built in and cannot be removed" in removed.err
    assert "unknown set of models 'bogus'; known: demo" in fetched.err
    assert removed.code == fetched.code == 1


def test_the_sets_of_models_are_those_of_the_installer() -> None:
    from jobs.cli import models
    from worker import fetch

    assert set(models.SETS) == set(fetch.SETS)


def test_a_prefix_that_fits_every_job_is_told_so(call: Call) -> None:
    assert "'job_' fits every job" in call("status", "job_").err


def test_doctor_says_which_setting_is_wrong(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXTMILL_DEVICE", "gpu")

    said = call("doctor")

    assert said.code == 1
    assert "device" in said.err
    assert "'gpu'" in said.err


def test_the_schema_is_checked_and_upgraded(call: Call, home: Path) -> None:
    upgraded, checked = call("db", "upgrade"), call("db", "check")

    assert upgraded.code == checked.code == 0
    assert checked.out.startswith("the database is at revision")
    Store.open(f"sqlite:///{home / 'textmill.db'}").close()


def test_a_home_that_cannot_be_made_is_one_line(call: Call, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    said = call("--home", str(tmp_path / "file" / "home"), "list")

    assert said.code == 1
    assert "Traceback" not in said.err
    assert str(tmp_path / "file") in said.err


def _commands(help_text: str) -> list[str]:
    return re.findall(r"^  (\w+)  ", help_text.partition("Commands:\n")[2], re.MULTILINE)


def _bert(folder: Path) -> Path:
    """A folder that looks like an encoder with a classification head; no weight in it is ever read here."""
    folder.mkdir()
    config = {"model_type": "bert", "architectures": ["BertForSequenceClassification"], "max_position_embeddings": 512}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    (folder / "tokenizer.json").write_text("{}")
    return folder


def test_db_check_names_rows_that_cannot_be_and_fails(call: Call, home: Path) -> None:
    assert call("db", "check").code == 0
    store = Store.open(f"sqlite:///{home / 'textmill.db'}")
    job = queued_job(store, 10)
    assert call("db", "check").out.endswith("every job's items, chunks and results agree\n")
    store._db.write(lambda connection: connection.exec_driver_sql("DELETE FROM chunks WHERE seq_lo = 0"))
    store.close()

    said = call("db", "check")

    assert said.code == 1
    assert "its chunks cover 5 of 10 items" in said.err
    assert job.id.removeprefix("job_") in said.err


def test_db_backup_copies_to_a_new_file_alone(call: Call, home: Path, tmp_path: Path) -> None:
    call("db", "upgrade")

    said, again = call("db", "backup", str(tmp_path / "copy.db")), call("db", "backup", str(tmp_path / "copy.db"))

    assert (said.code, again.code) == (0, 1)
    assert "copy.db exists; a backup is written to a new file" in again.err
    assert call("db", "backup", str(tmp_path / "no" / "where.db")).code == 1
    copy = Store.open(f"sqlite:///{tmp_path / 'copy.db'}")
    assert copy.check() == []
    copy.close()


def test_db_prune_deletes_what_is_old_and_says_beforehand_how_much(
    call: Call, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.store.retention.CLOCK_SLACK_S", 1e9)  # its id is of now
    call("db", "upgrade")
    store = Store.open(f"sqlite:///{home / 'textmill.db'}")
    old, young = queued_job(store, 10), queued_job(store, 10)
    for job in (old, young):
        store.jobs.cancel(job.id)
    store._db.write(
        lambda connection: connection.exec_driver_sql(
            "UPDATE jobs SET finished_at = '2020-01-01 00:00:00.000000' WHERE id = ?", (old.id.removeprefix("job_"),)
        )
    )

    tried, done = call("db", "prune", "--older-than", "30", "--dry-run"), call("db", "prune", "--older-than", "30")

    assert tried.out == "1 job would be deleted\n"
    assert done.out.startswith("1 job deleted, ")
    assert [job.id for job in store.jobs.list()] == [young.id]
    assert call("db", "prune", "--older-than", "0").code == 2
    store.close()


def test_webhooks_are_added_listed_tried_and_removed(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = call("webhooks", "add", "http://127.0.0.1:9/")
    assert refused.code == 1
    assert "the setting webhook_networks lists others that may be" in refused.err
    monkeypatch.setenv("TEXTMILL_WEBHOOK_NETWORKS", "127.0.0.0/8")
    made = call("webhooks", "add", "http://127.0.0.1:9/", "--event", "job.failed")
    assert made.out.startswith("whsec_")
    hook = made.err.split()[1]
    assert hook in call("webhooks", "list").out
    assert call("webhooks", "deliveries", hook).out == "nothing was sent to it\n"
    delivery = call("webhooks", "test", hook).out.split()[0]
    assert "webhook.test" in call("webhooks", "deliveries", hook).out
    assert call("webhooks", "redeliver", hook, delivery).code == 0
    assert "is enabled" in call("webhooks", "enable", hook).out
    assert call("webhooks", "remove", hook).code == 0
    assert call("webhooks", "list").out == "there are no webhooks\n"
    gone = call("webhooks", "test", hook)
    assert (gone.code, gone.err) == (1, f"textmill: no webhook or delivery '{hook}'\n")
    assert call("webhooks", "add", "https://example.com/", "--event", "job.started").code == 2


def test_what_a_tenant_may_do_is_set_shown_and_removed(call: Call) -> None:
    assert call("tenants", "list").out == "every tenant has weight 1 and no limits\n"
    put = call("tenants", "set", "search", "--weight", "3", "--max-items", "1000000", "--model", "mini*")
    assert put.out.splitlines()[1].split() == ["search", "3", "1,000,000", "mini*"]
    assert call("tenants", "list").out == put.out
    assert call("tenants", "show", "search").out == put.out + "in line: 0 items, about 0 tokens\n"
    assert call("tenants", "remove", "search").out == "search has no limits\n"
    assert call("tenants", "set", "search", "--weight", "0").code == 2
    for wrong in (("show", ""), ("set", "x" * 129), ("set", "a", "--max-items", str(2**63))):
        said = call("tenants", *wrong)
        assert (said.code, "Traceback" in said.err) == (1, False)


def test_a_schedule_is_made_explained_steered_and_removed(call: Call, tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("one\n")
    assert "there are no schedules" in call("schedule", "list").out
    what = ("classify", "corpus.txt", "--model", "fake", "-p", 'labels=["a","b"]')
    made = call("schedule", "add", "--name", "nightly", "--cron", "0 7 * * *", "--timezone", "Europe/Berlin", *what)
    assert made.code == 0, made.err
    assert "At 07:00 every day (Europe/Berlin)" in made.out
    assert str(tmp_path / "corpus.txt") in made.out
    assert made.out.count("07:00:00 CE") == 5
    assert "nightly" in call("schedule", "list").out
    assert call("schedule", "show", "nightly").out == made.out
    chosen = ("--where", "text != 'x'", "--template", "Say: {text}", "--sample", "5", "--seed", "7")
    rows = call("schedule", "add", "--name", "rows", "--every", "1h", *what, *chosen).out
    assert "--template Say: {text}  --where text != 'x'  --sample 5  --seed 7\n" in rows
    call("schedule", "remove", "rows")
    assert call("schedule", "runs", "nightly").out == "it was never due\n"
    assert call("schedule", "pause", "nightly").out == "nightly is paused\n"
    assert call("schedule", "resume", "nightly").out.startswith("nightly is due in ")
    assert call("schedule", "run", "nightly").code == 0
    assert "firing" in call("schedule", "runs", "nightly").out
    assert call("schedule", "remove", "nightly").out == "nightly is removed\n"
    gone = call("schedule", "show", "nightly")
    assert (gone.code, gone.err) == (1, "textmill: no schedule 'nightly': `textmill schedule list` shows them\n")


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (("--cron", "61 * * * *"), 1, "Bad minute; it is five fields, minute hour day month weekday"),
        (("--every", "soon"), 2, "'soon' is not a time such as 90s, 15m, 2h or 1d"),
        (("--every", "1h", "--timezone", "Nowhere"), 1, "timezone 'Nowhere' is unknown"),
        ((), 1, "a schedule has one of cron, every_s and on_change_s; given: none"),
        (("--every", "1h", "--until", "2020-01-01"), 1, "leaves no time at which schedule 'x' is due"),
        (("--every", "0.1"), 1, "every_s"),
    ],
)
def test_a_wrong_schedule_says_what_is_allowed(
    call: Call, tmp_path: Path, given: tuple[str, ...], code: int, said: str
) -> None:
    (tmp_path / "corpus.txt").write_text("one\n")
    what = ("classify", "corpus.txt", "--model", "fake", "-p", 'labels=["a","b"]')
    wrong = call("schedule", "add", "--name", "x", *given, *what)
    assert wrong.code == code
    assert said in wrong.err


def test_a_dry_run_counts_and_stores_nothing(call: Call, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "one two"}\n{"text": "one two"}\n{"text": 3}\n', encoding="utf-8")
    wanted = ("classify", "in.jsonl", "--model", "fake", "--dry-run")

    ran, submitted = call("run", *wanted), call("submit", *wanted, "--on-invalid", "skip")
    parsed = json.loads(call("submit", *wanted, "--json").out)
    left = call("list").out

    assert (ran.code, submitted.code) == (1, 0)
    assert ran.out == submitted.out
    assert "2 in 1 chunks" in ran.out
    assert "1 lines cannot be items" in ran.out
    assert "4 in (by the model's tokenizer)" in ran.out
    assert "in.jsonl:3: invalid_field" in ran.out
    assert "not known, as no such job has ended yet" in ran.out
    assert (parsed["items"], parsed["invalid"], parsed["duplicates"], parsed["time"]) == (2, 1, 1, None)
    assert left.startswith("no jobs yet")


def test_a_dry_run_of_a_folder_registers_no_model(call: Call, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("one\n", encoding="utf-8")
    (tmp_path / "model").mkdir()

    said = call("run", "classify", "in.txt", "--model", "./model", "--dry-run")

    assert said.code == 1
    assert "config.json" in said.err


def test_a_submitted_canary_is_shown_and_approved_of(call: Call, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("".join(f"text {n}\n" for n in range(50)), encoding="utf-8")
    stops = ("--max-error-share", "0.1", "--errors-after", "20", "--on-errors", "fail")

    job = call("submit", "classify", "in.txt", "--model", "fake", "--canary", "5", *stops).out.strip()
    shown = call("status", job).out
    approved, other = call("approve", job), call("submit", "classify", "in.txt", "--model", "fake")
    refused = call("approve", other.out.strip())

    assert "canary of 5 items: 0 ok, 0 failed" in shown
    assert "fails when more than 0.1 of 20 or more items fail" in shown
    assert (approved.code, approved.out) == (0, f"{job} queued\n")
    assert (refused.code, "has no canary" in refused.err) == (1, True)


@pytest.mark.parametrize(
    "wrong", [("--canary", "0"), ("--max-error-share", "1"), ("--errors-after", "0"), ("--on-errors", "stop")]
)
def test_wrong_bounds_are_a_wrong_command_line(call: Call, wrong: tuple[str, str]) -> None:
    assert call("submit", "classify", "x", "--model", "fake", *wrong).code == 2


def test_what_goes_on_needs_a_canary(call: Call, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("one\n", encoding="utf-8")

    said = call("submit", "classify", "in.txt", "--model", "fake", "--go-on")

    assert (said.code, "there is none" in said.err) == (1, True)


REVIEWS = """\
{"title": "Tea", "doc": {"body": "warm"}, "stars": 5}
{"title": "Coffee", "doc": {"body": "cold"}, "stars": 2}
{"title": "Rain", "doc": {"body": "wet"}, "stars": 4}
{"title": "Sun", "doc": {"body": "hot"}, "stars": 4}
"""
ROWS = ("--map", "custom_id=title", "--template", r"{title}\n{doc.body}", "--where", "stars > 3", "--limit", "2")


def test_the_rows_that_become_items_are_told_on_the_command_line(call: Call, home: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(REVIEWS, encoding="utf-8")
    what = ("classify", "in.jsonl", "--model", "fake", *ROWS)

    dry, submitted = call("run", *what, "--dry-run"), call("submit", *what)
    listed = call("list").out
    with closing(Store.open(f"sqlite:///{home}/textmill.db")) as store:
        lines = [line for _, line in RetrySource(store, submitted.out.strip()) if isinstance(line, bytes)]

    assert (dry.code, submitted.code) == (0, 0)
    assert "2 in 1 chunks" in dry.out
    assert "textmill: the filter leaves out 1 row(s)" in dry.err
    assert "textmill: the filter leaves out 1 row(s)" in submitted.err
    assert submitted.out.strip() in listed
    items = [orjson.loads(bytes(line)) for line in lines]
    assert [item["text"] for item in items] == ["Tea\nwarm", "Rain\nwet"]
    assert [item["custom_id"] for item in items] == ["Tea", "Rain"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("--where", "stars >> 3"), "the filter cannot be read at character 8, '> 3'"),
        (("--template", "{title"), "the template cannot be read at character 1"),
        (("--map", "text"), "['text'] are not FIELD=COLUMN, each field once"),
        (("--map", "text=a", "--map", "text=b"), "are not FIELD=COLUMN, each field once"),
        (("--seed", "3"), "there is no sample"),
        (("--limit", "0"), "0 is not in the range"),
    ],
)
def test_rows_that_cannot_be_meant_are_a_wrong_command_line(
    call: Call, tmp_path: Path, wrong: tuple[str, ...], said: str
) -> None:
    (tmp_path / "in.jsonl").write_text(REVIEWS, encoding="utf-8")

    refused = call("submit", "classify", "in.jsonl", "--model", "fake", *wrong)

    assert refused.code == 2
    assert said in refused.err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("https://me:hidden@host/a.jsonl", "https://***@host/a.jsonl: a schedule keeps its inputs"),
        ("https://host/a.jsonl?X-Amz-Signature=hidden", "https://host/a.jsonl?***: a schedule keeps its inputs"),
        ("postgresql://me:hidden@host/shop", "postgresql://***@host/shop: a schedule reads files"),
        ("job:0198", "an ended job's results never change"),
    ],
)
def test_a_schedule_takes_no_input_with_a_secret_and_none_that_never_changes(
    call: Call, home: Path, given: str, said: str
) -> None:
    wrong = call("schedule", "add", "--name", "x", "--every", "1h", "classify", given, "--model", "fake")

    assert wrong.code == 2
    assert said in wrong.err
    assert "hidden" not in wrong.err
    assert "hidden" not in call("schedule", "list", "--json").out


def test_a_schedule_keeps_urls_as_they_are_and_makes_globs_absolute(
    call: Call, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    made = call(
        "schedule", "add", "--name", "x", "--every", "1h", "classify", "s3://b/*.jsonl", "in/*.csv", "--model", "fake"
    )

    assert made.code == 0, made.err
    assert "s3://b/*.jsonl" in made.out
    assert f"{tmp_path}/in/*.csv" in made.out


def test_a_submit_reads_a_glob_and_a_database_and_says_what_is_wrong_with_them(
    call: Call, home: Path, tmp_path: Path
) -> None:
    (tmp_path / "1.jsonl").write_text('{"text": "one"}\n')
    (tmp_path / "2.jsonl").write_text('{"text": "two"}\n')

    made = call("submit", "classify", f"{tmp_path}/*.jsonl", "--model", "fake")
    unasked = call("submit", "classify", "sqlite:///x.db", "--model", "fake")
    missing = call("submit", "classify", "sqlite:///nowhere.db", "--query", "t", "--model", "fake")
    running = call("submit", "embed", f"job:{made.out.strip()}", "--text-field", "custom_id", "--model", "fake")

    assert "2 items queued" in made.err
    assert "say with --query what is to be read of it" in unasked.err
    assert "sqlite:///nowhere.db: no such file: 'nowhere.db'" in missing.err
    assert "is queued; wait for its end: textmill watch" in running.err
