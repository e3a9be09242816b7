"""The note: what a killed process had in flight is found, what a living one has is nobody's business."""

import logging
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jobs.settings import Settings
from jobs.store.values import InFlight
from worker.note import DEVICE_AT, SUFFIX, Note, folder, left, paths

VICTIM = """
import sys, time
from pathlib import Path
from tests.worker.test_note import Held
from worker.note import Note
note = Note(Path(sys.argv[1]), "victim")
note.open()
first, second = Held(1, "a", range(10, 20)), Held(2, "b", range(5))
note.running([(first, 0, 0), (first, 3, 0), (second, 4, 0)])
with note.preparing(Held(3, "c", range(5))):
    print("ready", flush=True)
    time.sleep(600)
"""


class Held:
    """As much of a held chunk as a note looks at."""

    def __init__(self, chunk_id: int, token: str, seqs: Sequence[int]) -> None:
        self.claim, self.seqs = SimpleNamespace(chunk_id=chunk_id, token=token), list(seqs)


@pytest.fixture
def note(tmp_path: Path) -> Any:
    made = Note(tmp_path / "notes", "w1")
    made.open()
    yield made
    made.close()


def read(path: Path) -> list[InFlight] | None:
    with left(path) as found:
        return None if found is None else found.in_flight


def test_a_killed_process_leaves_what_it_had_in_flight(tmp_path: Path) -> None:
    victim = subprocess.Popen([sys.executable, "-c", VICTIM, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert victim.stdout is not None
    assert victim.stdout.readline() == "ready\n"
    (path,) = paths(tmp_path)
    alive = read(path)

    victim.send_signal(signal.SIGKILL)
    victim.wait()
    victim.stdout.close()

    assert alive is None
    assert read(path) == [InFlight(3, "c", None), InFlight(1, "a", [10, 13]), InFlight(2, "b", [4])]
    assert paths(tmp_path) == []


def test_a_process_that_ends_well_leaves_nothing(note: Note, tmp_path: Path) -> None:
    note.running([(Held(1, "a", [7]), 0, 0)])  # type: ignore[list-item]

    note.close()

    assert paths(tmp_path / "notes") == []


def test_what_ran_is_not_in_flight(note: Note, tmp_path: Path) -> None:
    note.running([(Held(1, "a", [7]), 0, 0)])  # type: ignore[list-item]
    with note.preparing(Held(2, "b", [7])):  # type: ignore[arg-type]
        pass
    note.ran()

    assert _of_the_dead(note, tmp_path) == []


@pytest.mark.parametrize("at", [DEVICE_AT + 2, DEVICE_AT + 6, DEVICE_AT + 20])
def test_a_note_that_was_not_written_to_its_end_is_ignored(
    note: Note, tmp_path: Path, caplog: pytest.LogCaptureFixture, at: int
) -> None:
    note.running([(Held(1, "a", range(50)), index, 0) for index in range(50)])  # type: ignore[misc]
    (path,) = paths(tmp_path / "notes")
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF

    with caplog.at_level(logging.WARNING, "textmill.worker"):
        assert _of_the_dead(note, tmp_path, bytes(data)) == []

    assert "cannot be read" in caplog.text


def test_garbage_is_ignored(tmp_path: Path) -> None:
    for number, data in enumerate((b"", b"\0", b"garbage" * 1000, b"\xff" * 9000)):
        path = tmp_path / f"w{number}{SUFFIX}"
        path.write_bytes(data)

        assert read(path) == []


def test_a_note_that_two_look_at_is_found_once(tmp_path: Path) -> None:
    path = tmp_path / f"w1{SUFFIX}"
    path.write_bytes(b"")

    with left(path) as first, left(path) as second:
        assert (first is None, second is None) == (False, True)
    assert read(path) is None


def test_a_note_stays_when_it_could_not_be_dealt_with(tmp_path: Path) -> None:
    path = tmp_path / f"w1{SUFFIX}"
    path.write_bytes(b"")

    with pytest.raises(RuntimeError), left(path):
        raise RuntimeError("the database is away")

    assert read(path) == []


def test_a_disk_that_takes_no_note_costs_only_the_note(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "notes").write_text("in the way")
    note = Note(tmp_path / "notes", "w1")

    note.open()
    note.running([(Held(1, "a", [7]), 0, 0)])  # type: ignore[list-item]
    note.close()

    assert "cannot be noted" in caplog.text


def test_deployments_in_one_home_keep_their_notes_apart(settings: Callable[..., Settings]) -> None:
    urls = ("sqlite:////tmp/a.db", "sqlite:////tmp/b.db", "postgresql://u:secret@h/db", "postgresql://u:other@h/db")
    folders = [folder(settings(database_url=url), "boot") for url in urls]

    assert len(set(folders)) == 3
    assert folders[2] == folders[3]
    assert folder(settings(database_url=urls[0]), "another boot") != folders[0]


def _of_the_dead(note: Note, tmp_path: Path, data: bytes | None = None) -> list[InFlight] | None:
    """What is found once the worker is dead: of a copy, since this process lives."""
    (path,) = paths(tmp_path / "notes")
    copy = tmp_path / "copy.note"
    copy.write_bytes(path.read_bytes() if data is None else data)
    return read(copy)
