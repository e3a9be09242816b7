"""A new corpus format is one file in `jobs/corpus/`, or an entry point of another distribution."""

import subprocess
import sys
from pathlib import Path

FORMAT = '''
"""Items between semicolons."""

import orjson

from jobs.corpus.base import Format


def read(place, fields, max_bytes):
    with place.open() as stream:
        for number, text in enumerate(stream.read().decode().split(";"), start=1):
            yield number, orjson.dumps({fields.main: text})


FORMAT = Format("semicolons", (".semi",), read)
'''
USE = """
import sys
from jobs.corpus import open_source
for number, line in open_source(sys.argv[1], main_field="prompt"):
    print(number, line.decode())
"""


def used(example: Path, search: list[Path], before: str = "") -> str:
    """What a fresh process reads from the example."""
    code = f"import sys\nsys.path[:0] = {[str(path) for path in search]!r}\n{before}\n{USE}"
    done = subprocess.run([sys.executable, "-c", code, str(example)], capture_output=True, text=True, check=False)
    return done.stdout or done.stderr


def test_a_format_is_one_file_among_the_others(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "semicolons.py").write_text(FORMAT)
    (tmp_path / "a.semi").write_text("x;y")

    # As if the file lay in jobs/corpus/: the folder is one more place of that package.
    found = used(
        tmp_path / "a.semi", [], f"import jobs.corpus; jobs.corpus.__path__.append({str(tmp_path / 'more')!r})"
    )

    assert found == '1 {"prompt":"x"}\n2 {"prompt":"y"}\n'


def test_a_format_of_another_distribution_joins_by_entry_point(tmp_path: Path) -> None:
    (tmp_path / "semicolons.py").write_text(FORMAT)
    (tmp_path / "a.semi").write_text("x;y")
    metadata = tmp_path / "semicolons-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: semicolons\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[textmill.corpus]\nsemicolons = semicolons:FORMAT\n")

    found = used(tmp_path / "a.semi", [tmp_path])

    assert found == '1 {"prompt":"x"}\n2 {"prompt":"y"}\n'


def test_without_either_the_format_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "a.semi").write_text("x;y")

    assert "unknown format .semi" in used(tmp_path / "a.semi", [])
