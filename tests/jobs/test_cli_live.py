"""The live progress line, drawn on a real pseudo-terminal and read back as a terminal shows it."""

from collections.abc import Iterator

import pytest

from jobs.cli.progress import live
from jobs.cli.reporters import LiveLine, PlainLines, reporter
from jobs.schemas import Counts, Rate
from jobs.states import JobState
from tests.rows import running_job
from tests.terminal import Terminal

DONE = running_job(state=JobState.COMPLETED, counts=Counts(total=1000, ok=1000))


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setenv("TERM", "xterm")
    made = Terminal(80)
    yield made
    made.close()


def test_one_line_is_drawn_in_place_and_left_finished(terminal: Terminal) -> None:
    line = reporter(terminal.stream, as_json=False)

    line.show(running_job(state=JobState.QUEUED, counts=Counts()))
    begun = list(terminal.rows())
    line.show(running_job(rate=Rate(items_per_s=38.2)))
    under_way = list(terminal.rows())
    line.show(DONE)
    line.close()

    assert begun == ["classify [------------------------------] 0/? queued"]
    assert under_way == ["classify [##########----------------] 415/1,000 running, 38.2 items/s, 3 failed"]
    assert terminal.rows() == ["classify [##############################] 1,000/1,000 completed", ""]


def test_what_was_shown_last_is_left_though_it_came_too_soon_to_be_drawn(terminal: Terminal) -> None:
    line = LiveLine(terminal.stream, interval_s=3600)

    for ok in range(100):
        line.show(running_job(counts=Counts(total=100, ok=ok)))
    under_way = list(terminal.rows())
    line.close()

    assert " 0/100" in under_way[0]
    assert "99/100" in terminal.rows()[0]


def test_notes_stand_above_the_line_and_need_none(terminal: Terminal) -> None:
    line = LiveLine(terminal.stream)

    line.note("before")
    line.show(running_job())
    line.note("the worker ended\n  and is started again")
    line.close()
    line.note("after")

    rows = terminal.rows()
    assert [row[:25] for row in rows[:3]] == ["textmill: before", "textmill: the worker ende", "  and is started again"]
    assert rows[3].startswith("classify [")
    assert rows[4:] == ["textmill: after", ""]


@pytest.mark.parametrize("columns", [200, 60, 40, 12, 2])
def test_a_line_never_wraps_and_gives_up_the_bar_before_the_figures(terminal: Terminal, columns: int) -> None:
    terminal.resize(columns)
    line = LiveLine(terminal.stream)

    line.show(running_job(), load="device 93 % busy, 4,100 useful tokens/s")
    line.close()

    (row, end) = terminal.rows()
    assert len(row) < columns
    assert ("[####" in row) == (columns == 200)
    assert row.endswith("useful tokens/s") == (columns == 200)
    assert end == ""


def test_a_terminal_that_became_narrower_or_wider_is_seen_at_the_next_drawing(terminal: Terminal) -> None:
    line = LiveLine(terminal.stream, interval_s=0)

    seen = []
    for columns in (30, 80, 30):
        terminal.resize(columns)
        line.show(running_job())
        seen += [[len(row) for row in terminal.rows()]]

    assert seen == [[29], [len(live(running_job(), columns=79))], [29]]


def test_a_terminal_that_does_not_tell_its_width_is_taken_to_have_80_columns(terminal: Terminal) -> None:
    terminal.resize(0)
    line = LiveLine(terminal.stream)

    line.show(running_job(), load="x" * 200)
    terminal.resize(80)

    assert [len(row) for row in terminal.rows()] == [79]


def test_a_dumb_terminal_gets_plain_lines(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")

    assert isinstance(reporter(terminal.stream, as_json=False), PlainLines)
