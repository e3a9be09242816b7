"""The page of faults names, for every row of the list, the files that try it."""

import ast
import re
from collections import defaultdict
from pathlib import Path

from tests.faults.conftest import ROWS, rows_named

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"


def test_the_page_of_faults_names_the_files_that_try_each_row() -> None:
    told = {
        int(row): set(re.findall(r"`(test_\w+)`", line.rpartition("| ")[2] or line))
        for row, line in re.findall(r"^\| (\d+) (\|.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    }

    tried: dict[int, set[str]] = defaultdict(set)
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                for row in rows_named(ast.get_docstring(node)):
                    tried[row].add(path.stem)
    assert told == tried
    assert sorted(told) == list(range(1, ROWS + 1))
