"""Sources of many files: globs, and folders in which formats are mixed."""

import gzip
from pathlib import Path

import orjson
import pyarrow
import pytest
from pyarrow import parquet

from jobs.cli.inputs import refuse_overwriting
from jobs.corpus import Source, open_source
from jobs.errors import InvalidInput, OutputError, Problem


def texts(source: Source) -> list[object]:
    """The items' texts, or the codes of what is wrong."""
    return [line.code if isinstance(line, Problem) else orjson.loads(line)["text"] for _, line in source]


def put(folder: Path, name: str, content: bytes) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def mixed(folder: Path) -> Path:
    put(folder, "b/2.jsonl", b'{"text": "jsonl"}\n')
    put(folder, "a.csv", b"text\ncsv\n")
    put(folder, "c.jsonl.gz", gzip.compress(b'{"text": "gz"}\n'))
    put(folder, "z.txt", b"a whole\ntext")
    put(folder, ".hidden.jsonl", b'{"text": "hidden"}\n')
    put(folder, ".git/x.jsonl", b'{"text": "hidden"}\n')
    put(folder, "README.md", b"# no format of ours")
    parquet.write_table(pyarrow.table({"text": ["parquet"]}), folder / "d.parquet")
    return folder


def test_a_glob_gives_the_files_that_it_fits_sorted(tmp_path: Path) -> None:
    for name in ("b/2.jsonl", "b/1.jsonl", "a.jsonl", "c.csv", ".hidden/x.jsonl"):
        put(tmp_path, name, f'{{"text": "{name}"}}\n'.encode())

    source = open_source(f"{tmp_path}/**/*.jsonl")

    assert texts(source) == ["a.jsonl", "b/1.jsonl", "b/2.jsonl"]
    assert source.locate(2) == (f"{tmp_path}/b/1.jsonl", 1)


def test_a_glob_that_fits_nothing_says_so(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()

    with pytest.raises(InvalidInput, match=r"\*\.jsonl: the pattern matches no file"):
        open_source(f"{tmp_path}/*.jsonl")
    with pytest.raises(InvalidInput, match=r"\*: the pattern matches folders alone"):
        open_source(f"{tmp_path}/*")


def test_a_file_with_a_name_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    put(tmp_path, "a[1].jsonl", b'{"text": "brackets"}\n')

    assert texts(open_source(tmp_path / "a[1].jsonl")) == ["brackets"]


def test_a_file_of_no_known_format_is_refused_in_a_glob_and_left_alone_in_a_folder(tmp_path: Path) -> None:
    mixed(tmp_path)

    with pytest.raises(InvalidInput, match=r"README\.md: unknown format \.md"):
        open_source(f"{tmp_path}/*")


def test_a_folder_of_several_formats_is_all_its_files_sorted_by_path(tmp_path: Path) -> None:
    source = open_source(mixed(tmp_path))

    assert texts(source) == ["csv", "jsonl", "gz", "parquet", "a whole\ntext"]
    *_, (number, last) = source
    assert orjson.loads(last)["custom_id"] == "z.txt"  # type: ignore[arg-type]
    assert source.locate(number) == (f"{tmp_path}/z.txt", 1)


def test_a_folder_of_texts_stays_a_text_a_file(tmp_path: Path) -> None:
    put(tmp_path, "b.txt", b"one\ntwo")
    put(tmp_path, "README.md", b"not read")
    put(tmp_path, ".checkpoint.txt", b"hidden")

    found = [orjson.loads(line) for _, line in open_source(tmp_path)]  # type: ignore[arg-type]

    assert found == [{"custom_id": "b.txt", "text": "one\ntwo"}]


def test_a_named_format_is_that_of_every_file_in_a_folder(tmp_path: Path) -> None:
    put(tmp_path, "a.log", b'{"text": "one"}\n')
    put(tmp_path, "b.txt", b'{"text": "two"}\n')

    assert texts(open_source(tmp_path, form="jsonl")) == ["one", "two"]


def test_a_bad_text_among_other_files_is_a_problem_of_its_own(tmp_path: Path) -> None:
    put(tmp_path, "a.jsonl", b'{"text": "fine"}\n')
    put(tmp_path, "b.txt", b"bad \xff")
    put(tmp_path, "c.txt", b"x" * 3000)

    assert texts(open_source(tmp_path, max_line_bytes=2000)) == ["fine", "not_utf8", "line_too_long"]


def test_the_fingerprint_of_many_files_is_that_of_their_contents(tmp_path: Path) -> None:
    folder = mixed(tmp_path)
    before = open_source(folder).fingerprint()

    put(folder, "z2.txt", b"a whole\ntext")
    (folder / "z.txt").unlink()

    assert open_source(folder).fingerprint() != before is not None


def test_an_output_among_the_files_of_a_glob_or_a_folder_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "in/a.jsonl", b'{"text": "one"}\n')
    put(tmp_path, "in/out.jsonl", b"{}\n")

    for name in (f"{tmp_path}/in/*.jsonl", f"{tmp_path}/in"):
        with pytest.raises(OutputError, match=r"out\.jsonl: is the input .*out\.jsonl itself, of "):
            refuse_overwriting([name], f"{tmp_path}/in/out.jsonl")
        refuse_overwriting([name], f"{tmp_path}/out.jsonl")
