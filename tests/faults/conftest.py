"""After every fault: no process, handle or connection is left over (I9). At the end: which rows were tried."""

import re
from collections import defaultdict
from collections.abc import Iterator

import pytest

from tests.deployment import Deploy
from tests.leftovers import OWN_CONNECTIONS, check_children, check_connections, check_process, children

ROWS = 45
"""Rows of the list of faults."""
_ROWS = re.compile(r"Rows? ([\d, andto-]+)\.")


@pytest.fixture
def deploy(deploy: Deploy, request: pytest.FixtureRequest) -> Iterator[Deploy]:
    """The deployments of a test, looked over at its end."""
    before, made = children(), []

    def make(**overrides: object) -> object:
        made.append(deploy(**overrides))
        return made[-1]

    yield make  # type: ignore[misc]
    for mill in made:
        for worker in mill.workers:
            if worker.alive:
                check_process(worker.pid)
            worker.kill()
        check_connections(mill.store, OWN_CONNECTIONS)
    check_children(before)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test's docstring begins with the rows it tries."""
    for item in items:
        if rows := rows_named(getattr(getattr(item, "function", None), "__doc__", None)):
            item.user_properties.append(("rows", rows))


def rows_named(docstring: str | None) -> list[int]:
    """`Rows 4 and 6.`, `Rows 22 to 24.`, `Row 1.` at a docstring's beginning: the numbers meant."""
    found = _ROWS.match(docstring or "")
    numbers: list[int] = []
    for first, last in re.findall(r"(\d+)(?: to (\d+))?", found[1] if found else ""):
        numbers += range(int(first), int(last or first) + 1)
    return numbers


def pytest_terminal_summary(terminalreporter: "pytest.TerminalReporter") -> None:
    """Which rows were tried, and which of them were survived."""
    outcomes: dict[int, set[str]] = defaultdict(set)
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.stats.get(outcome, []):
            for row in dict(report.user_properties).get("rows", []):
                outcomes[row].add(outcome)
    if len(outcomes) < ROWS / 2:
        return  # a few tests by hand
    survived = [row for row, seen in outcomes.items() if seen == {"passed"}]
    missing = [str(row) for row in range(1, ROWS + 1) if row not in outcomes]
    hurt = [str(row) for row in sorted(outcomes) if row not in survived]
    line = f"faults: {len(survived)} of the list's {ROWS} rows survived"
    line += f"; not survived: {', '.join(hurt)}" if hurt else ""
    terminalreporter.write_line(line + (f"; not tried: {', '.join(missing)}" if missing else ""))
