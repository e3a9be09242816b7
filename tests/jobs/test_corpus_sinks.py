"""Sinks: results appear whole under their name, or not at all."""

import csv
import os
import resource
import signal
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from jobs.corpus import open_sink
from jobs.errors import InvalidInput, ItemErrorCode, OutputError
from jobs.schemas import Result, ResultError

OK = Result(seq=0, custom_id="a", status="ok", output={"labels": [{"label": "good", "score": 0.5}], "note": "x,\ny"})
FAILED = Result(
    seq=1, custom_id="b", status="error", error=ResultError(code=ItemErrorCode.TOO_LONG, message="too long by 3")
)


def left_behind(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_jsonl_has_the_whole_shape_of_each_result(tmp_path: Path) -> None:
    with open_sink(tmp_path / "out.jsonl") as sink:
        sink.write(OK)
        sink.write(FAILED)

    lines = (tmp_path / "out.jsonl").read_bytes().splitlines()
    assert [Result.model_validate(orjson.loads(line)) for line in lines] == [OK, FAILED]
    assert orjson.loads(lines[1])["error"] == {"code": "too_long", "message": "too long by 3"}
    assert orjson.loads(lines[1])["output"] is None


@pytest.mark.parametrize("columns", [(), ("labels", "note")])
def test_csv_flattens_the_output_into_columns(tmp_path: Path, columns: tuple[str, ...]) -> None:
    with open_sink(tmp_path / "out.csv", columns=columns) as sink:
        sink.write(FAILED)
        sink.write(OK)

    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))
    assert rows == [
        ["custom_id", "status", "labels", "note", "error_code", "error"],
        ["b", "error", "", "", "too_long", "too long by 3"],
        ["a", "ok", '[{"label":"good","score":0.5}]', "x,\ny", "", ""],
    ]


def test_csv_has_a_column_for_each_kept_field(tmp_path: Path) -> None:
    result = OK.model_copy(update={"kept": {"group": "garden", "status": "new"}})

    with open_sink(tmp_path / "out.csv", columns=("note",), kept=("group", "status", "missing")) as sink:
        sink.write(result)
        sink.write(FAILED)

    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["status"], row["group"], row["kept_status"], row["missing"]) for row in rows] == [
        ("ok", "garden", "new", ""),
        ("error", "", "", ""),
    ]


def test_csv_of_failures_alone_still_lists_them(tmp_path: Path) -> None:
    with open_sink(tmp_path / "out.csv") as sink:
        sink.write(FAILED)

    assert (
        tmp_path / "out.csv"
    ).read_text() == "custom_id,status,output,error_code,error\nb,error,,too_long,too long by 3\n"


def test_the_output_appears_only_when_whole(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    target.write_text("before")

    sink = open_sink(target)
    sink.write(OK)
    during = target.read_text()
    sink.commit()

    assert during == "before"
    assert target.read_bytes().startswith(b'{"seq":0')
    assert left_behind(tmp_path) == ["out.jsonl"]


def test_after_an_exception_nothing_is_left_behind(tmp_path: Path) -> None:
    def fail_midway() -> None:
        with open_sink(tmp_path / "out.jsonl") as sink:
            sink.write(OK)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_midway()

    assert left_behind(tmp_path) == []


def test_the_output_has_the_rights_of_any_new_file_and_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "real.jsonl")

    with open_sink(tmp_path / "link.jsonl") as sink:
        sink.write(OK)

    assert (tmp_path / "link.jsonl").is_symlink()
    rights = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "real.jsonl")]
    assert rights[0] == rights[1]


def test_a_replaced_output_keeps_its_rights(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").touch(mode=0o600)

    with open_sink(tmp_path / "out.jsonl") as sink:
        sink.write(OK)
        during = [stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob(".*.part")]

    assert during == [0o600]
    assert stat.S_IMODE((tmp_path / "out.jsonl").stat().st_mode) == 0o600


def test_checking_removes_what_a_killed_process_left_and_nothing_that_is_still_written(tmp_path: Path) -> None:
    left = tmp_path / ".out.jsonl.0123456789ab.part"
    left.write_text("half")
    (tmp_path / ".out.jsonl.notes.part").write_text("somebody's own")

    with open_sink(tmp_path / "out.jsonl") as other:
        other.write(OK)
        open_sink(tmp_path / "out.jsonl").check()

    assert left_behind(tmp_path) == [".out.jsonl.notes.part", "out.jsonl"]


def test_a_name_as_long_as_names_may_be_can_be_written(tmp_path: Path) -> None:
    name = "ж" * 124 + ".jsonl"

    with open_sink(tmp_path / name) as sink:
        sink.write(OK)

    assert left_behind(tmp_path) == [name]


def test_checking_a_pipe_does_not_wait_for_its_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    open_sink(tmp_path / "pipe").check()


def test_closed_standard_output_is_known_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)

    with pytest.raises(OutputError, match="standard output is closed"):
        open_sink("-").check()


def test_a_folder_of_any_name_is_called_one(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is a folder; name a file"):
        open_sink(tmp_path)


@pytest.mark.parametrize("name", ["missing/out.jsonl", "file/out.jsonl", "folder.jsonl", "n" * 300 + ".jsonl"])
def test_an_unwritable_output_is_known_before_anything_runs(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.jsonl").mkdir()

    with pytest.raises(OutputError, match=name[:20]):
        open_sink(tmp_path / name).check()


def test_checking_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text("before")

    open_sink(tmp_path / "out.jsonl").check()
    open_sink("-").check()

    assert left_behind(tmp_path) == ["out.jsonl"]
    assert (tmp_path / "out.jsonl").read_text() == "before"


def test_an_unknown_format_names_those_that_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"unknown format \.txt; known: \.csv, \.jsonl, \.ndjson"):
        open_sink(tmp_path / "out.txt")


def test_a_minus_streams_to_standard_output(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    with open_sink("-") as sink:
        sink.write(OK)
        sink.flush()

    assert orjson.loads(capfdbinary.readouterr().out)["custom_id"] == "a"


def test_a_device_is_written_to_and_not_replaced() -> None:
    with open_sink("/dev/null") as sink:
        sink.check()
        sink.write(OK)

    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Files of this process end at 64 KB, which a writer hears of as it does of a full disk: by an OSError."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    heard = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, heard)


def write_many(target: Path) -> None:
    with open_sink(target) as sink:
        for _ in range(20_000):
            sink.write(OK)


@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test_a_full_disk_is_an_output_error_and_leaves_the_old_output(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("before")

    with pytest.raises(OutputError, match=name):
        write_many(tmp_path / name)

    assert left_behind(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "before"
