"""Sources: what files of each format give, and what is said of files that cannot be read."""

import csv
import errno
import io
import os
import sys
import tempfile
import threading
from pathlib import Path

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jobs.corpus import ItemSource, Source, lines, open_source
from jobs.errors import InvalidInput, Problem
from jobs.schemas import Item


def written(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def items(source: Source) -> list[tuple[int, object]]:
    """Line numbers with the parsed items, or with the code of what is wrong."""
    return [(number, line.code if isinstance(line, Problem) else orjson.loads(line)) for number, line in source]


def problem(source: Source) -> Problem:
    return next(line for _, line in source if isinstance(line, Problem))


def test_jsonl_gives_its_lines_untouched_without_blank_ones_mark_and_line_ends(tmp_path: Path) -> None:
    path = written(tmp_path, "a.jsonl", b'\xef\xbb\xbf{"text": "a" }\r\n\n  \r\n"b"\n{"text":"c"}')

    lines = list(open_source(path))

    assert lines == [(1, b'{"text": "a" }'), (4, b'"b"'), (5, b'{"text":"c"}')]


def test_jsonl_fields_are_renamed_and_numbers_become_ids(tmp_path: Path) -> None:
    path = written(tmp_path, "a.jsonl", b'{"body": "a", "nr": 7, "lang": "en"}\n{"nr": 8}\n{"body": broken\n"bare"\n')

    found = list(open_source(path, text_field="body", id_field="nr"))

    assert orjson.loads(bytes(found[0][1])) == {"text": "a", "custom_id": "7", "nr": 7, "lang": "en"}  # type: ignore[arg-type]
    assert isinstance(found[1][1], Problem)
    assert "no field 'body'; the line has: nr" in found[1][1].message
    assert [line for _, line in found[2:]] == [b'{"body": broken', b'"bare"']


def test_a_renamed_line_too_deep_to_be_written_again_is_a_problem_of_its_own(tmp_path: Path) -> None:
    path = written(tmp_path, "a.jsonl", b'{"body": "a", "x": ' + b"[" * 400 + b"]" * 400 + b'}\n{"body": "b"}\n')

    assert items(open_source(path, text_field="body")) == [(1, "malformed_json"), (2, {"text": "b"})]


def test_text_gives_an_item_a_line_blank_ones_too(tmp_path: Path) -> None:
    path = written(tmp_path, "a.txt", 'eins\r\n\nдва "x"\n'.encode())

    found = items(open_source(path, main_field="prompt"))

    assert found == [(1, {"prompt": "eins"}), (2, {"prompt": ""}), (3, {"prompt": 'два "x"'})]


def test_text_that_is_not_utf8_is_a_problem_of_its_line_with_the_byte(tmp_path: Path) -> None:
    path = written(tmp_path, "a.txt", b"good\nbad \xff\xfe\ngood\n")

    source = open_source(path)

    assert [number for number, line in source if isinstance(line, bytes)] == [1, 3]
    assert problem(source) == Problem(2, "not_utf8", "not UTF-8: byte 0xff at offset 4 of the line")


def test_utf16_is_called_by_its_name(tmp_path: Path) -> None:
    path = written(tmp_path, "a.txt", "text\n".encode("utf-16"))

    with pytest.raises(InvalidInput, match=r"a\.txt: the file is UTF-16"):
        list(open_source(path))


def test_csv_columns_are_fields_and_records_may_span_lines(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", b'id,text,lang\r\n1,"two\r\nlines, ""quoted""",en\r\n\r\n2,plain,de\r\n')

    found = items(open_source(path, id_field="id"))

    assert found == [
        (2, {"id": "1", "text": 'two\nlines, "quoted"', "lang": "en", "custom_id": "1"}),
        (5, {"id": "2", "text": "plain", "lang": "de", "custom_id": "2"}),
    ]


def test_a_csv_record_of_the_wrong_width_or_bytes_costs_only_itself(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", b'text,lang\na\nb,en,x\nc\xff,en\n"d"x,en\ne,en\n')

    found = items(open_source(path))

    assert found == [
        (2, "malformed_csv"),
        (3, "malformed_csv"),
        (4, "not_utf8"),
        (5, "malformed_csv"),
        (6, {"text": "e", "lang": "en"}),
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b"\n\n", "the file is empty"),
        (b"body,lang\na,b\n", "no column 'text'; its columns are: body, lang"),
        (b"text,text\na,b\n", "column 'text' is there twice"),
        (b'text\na\n"b\nc\n', r"a\.csv:3: a quote opened here is never closed"),
        (b'text\n"b' + b"\nc" * 2000, r"a\.csv:2: the record that begins here is longer than 2,000 bytes"),
        (b"text\na\n" + b"x" * 5000, r"a\.csv:3: the line is longer than 2,000 bytes"),
        (b"te\xffxt\na\n", r"a\.csv:1: not UTF-8"),
    ],
)
def test_a_csv_that_cannot_be_read_on_is_refused_with_the_place(tmp_path: Path, content: bytes, said: str) -> None:
    path = written(tmp_path, "a.csv", content)

    with pytest.raises(InvalidInput, match=said):
        list(open_source(path, max_line_bytes=2000))


def test_a_folder_gives_a_file_an_item_in_the_order_of_names(tmp_path: Path) -> None:
    written(tmp_path, "docs/b.txt", b"second\n")
    written(tmp_path, "docs/a.txt", b"\xef\xbb\xbffirst")
    written(tmp_path, "docs/sub/c.TXT", b"third")
    written(tmp_path, "docs/d.txt", b"\xff")
    written(tmp_path, "docs/image.png", b"\x89PNG")

    found = items(open_source(tmp_path / "docs", main_field="text"))

    assert found == [
        (1, {"custom_id": "a.txt", "text": "first"}),
        (2, {"custom_id": "b.txt", "text": "second\n"}),
        (3, "not_utf8"),
        (4, {"custom_id": "sub/c.TXT", "text": "third"}),
    ]


def test_files_larger_than_a_line_may_be_and_odd_names_are_problems_of_their_own(tmp_path: Path) -> None:
    written(tmp_path, "docs/a.txt", b"x" * 3000)
    written(tmp_path, "docs/b.txt", b"fine")
    Path(os.fsdecode(os.fsencode(tmp_path / "docs") + b"/c\xff.txt")).write_bytes(b"text")

    found = items(open_source(tmp_path / "docs", max_line_bytes=2000))

    assert found == [(1, "line_too_long"), (2, {"custom_id": "b.txt", "text": "fine"}), (3, "invalid_text")]


def test_what_cannot_be_read_in_a_folder_is_a_problem_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, "docs/a.txt", b"first")
    written(tmp_path, "docs/locked/b.txt", b"second")
    written(tmp_path, "docs/z.txt", b"third")
    os.mkfifo(tmp_path / "docs" / "pipe.txt")
    (tmp_path / "docs" / "loop.txt").symlink_to("loop.txt")
    _lock(tmp_path / "docs" / "locked", monkeypatch)

    source = open_source(tmp_path / "docs")
    fingerprint = source.fingerprint()
    lines = list(source)

    assert fingerprint is not None
    assert [line for _, line in lines if isinstance(line, bytes)] == [
        b'{"custom_id":"a.txt","text":"first"}',
        b'{"custom_id":"z.txt","text":"third"}',
    ]
    assert [line.message for _, line in lines if isinstance(line, Problem)] == [
        "loop.txt: Too many levels of symbolic links",
        "pipe.txt: not a regular file",
        "locked: Permission denied",
    ]


def test_a_folder_that_changes_under_its_fingerprint_is_refused(tmp_path: Path) -> None:
    written(tmp_path, "docs/a.txt", b"a")
    source = open_source(tmp_path / "docs")

    source.fingerprint()
    written(tmp_path, "docs/b.txt", b"b")

    with pytest.raises(InvalidInput, match="the folder was changed while it was read"):
        list(source)


def test_a_named_format_stands_for_any_suffix_and_for_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "a.log", b"text\nb\n")
    piped = io.TextIOWrapper(io.BytesIO(b"text\nc\n"))
    monkeypatch.setattr(sys, "stdin", piped)

    source = open_source([path, "-"], form="csv")

    assert source.fingerprint() is None
    assert items(source) == [(2, {"text": "b"}), (4, {"text": "c"})]
    with pytest.raises(InvalidInput, match="unknown format 'xml'; known: arrow, csv, jsonl, parquet, text, tsv"):
        open_source(path, form="xml")


def test_empty_cells_of_the_items_own_columns_stand_for_none_and_params_are_json(tmp_path: Path) -> None:
    content = b'text,custom_id,params\na,,\nb,x,"{""top_k"": 2}"\nc,y,quick\nd,z,[1]\n'
    path = written(tmp_path, "a.csv", content)

    source = open_source(path)

    assert items(source) == [
        (2, {"text": "a"}),
        (3, {"text": "b", "custom_id": "x", "params": {"top_k": 2}}),
        (4, "invalid_params"),
        (5, "invalid_params"),
    ]
    assert "column 'params' holds 'quick'" in problem(source).message


def test_every_line_without_an_id_in_the_named_field_is_a_problem_of_its_own(tmp_path: Path) -> None:
    lines = written(tmp_path, "a.jsonl", b'{"text":"a","nr":null}\n{"text":"b","nr":7}\n{"text":"c","nr":""}\n')
    table = written(tmp_path, "a.csv", b"text,nr\na,\nb,7\n")

    from_lines, from_table = open_source(lines, id_field="nr"), open_source(table, id_field="nr")

    assert [line for _, line in items(from_lines)] == [
        "invalid_id",
        {"text": "b", "nr": 7, "custom_id": "7"},
        "invalid_id",
    ]
    assert problem(from_lines).message == "field 'nr' is null, so the item has no id"
    assert [line for _, line in items(from_table)] == ["invalid_id", {"text": "b", "nr": "7", "custom_id": "7"}]


def test_one_cell_is_no_cells(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", b"text,b\nx\n")

    assert problem(open_source(path)).message == "1 cell where the header names 2 columns"


def test_a_line_over_the_limit_is_passed_over_without_being_held(tmp_path: Path) -> None:
    path = written(tmp_path, "a.jsonl", b'"a"\n"' + b"x" * 3_000_000 + b'"\n"b"\n')
    exact = written(tmp_path, "b.jsonl", b'"' + b"x" * 1998 + b'"\r\n"' + b"x" * 1999 + b'"')

    found = items(open_source(path, max_line_bytes=2000))
    at_the_limit = items(open_source(exact, max_line_bytes=2000))

    assert found == [(1, "a"), (2, "line_too_long"), (3, "b")]
    assert at_the_limit == [(1, "x" * 1998), (2, "line_too_long")]


def test_several_inputs_follow_each_other_and_each_line_is_located(tmp_path: Path) -> None:
    first = written(tmp_path, "a.jsonl", b'"a"\n\n"b"\n\n')
    second = written(tmp_path, "b.txt", b"c\nd\n")

    source = open_source([first, second])
    located = [source.locate(number) for number, _ in source]

    assert located == [(str(first), 1), (str(first), 3), (str(second), 1), (str(second), 2)]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("missing.jsonl", "no such file or folder"),
        ("nul\0.jsonl", "no such file or folder"),
        (
            "a.xyz",
            r"unknown format \.xyz; known: \.arrow, \.csv, \.feather, \.jsonl, \.ndjson, \.parquet, \.text, \.tsv",
        ),
        ("n" * 300 + ".jsonl", "no such file or folder"),
        ("noname", "unknown format a name without a suffix"),
        ("empty", r"the folder has no \.txt files"),
    ],
)
def test_what_is_no_input_is_refused_by_name(tmp_path: Path, name: str, said: str) -> None:
    written(tmp_path, "a.xyz", b"x")
    written(tmp_path, "noname", b"x")
    (tmp_path / "empty").mkdir()

    with pytest.raises(InvalidInput, match=said):
        list(open_source(f"{tmp_path}/{name}"))


def test_fields_of_a_text_cannot_be_named(tmp_path: Path) -> None:
    path = written(tmp_path, "a.txt", b"a\n")

    with pytest.raises(InvalidInput, match="a text has no fields"):
        list(open_source(path, text_field="body"))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'\n {"text": "a"}\n', [(2, {"text": "a"})]),
        (b'"a"\n', [(1, "a")]),
        (b"plain\n", [(1, {"text": "plain"})]),
        (b"", []),
    ],
)
def test_standard_input_is_told_by_its_first_byte(
    monkeypatch: pytest.MonkeyPatch, content: bytes, expected: list[object]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    source = open_source("-")

    assert items(source) == expected
    assert source.fingerprint() is None
    with pytest.raises(InvalidInput, match="only once"):
        list(source)


def test_a_named_pipe_is_read_like_standard_input(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(b'{"text": "a"}\n'))

    writer.start()
    found = items(open_source(pipe))
    writer.join()

    assert found == [(1, {"text": "a"})]


def test_a_fingerprint_changes_with_content_fields_and_nothing_else(tmp_path: Path) -> None:
    first = written(tmp_path, "a.jsonl", b'{"text": "a"}\n')
    same = written(tmp_path, "b.jsonl", b'{"text": "a"}\n')
    other = written(tmp_path, "c.jsonl", b'{"text": "b"}\n')
    written(tmp_path, "docs/a.txt", b"a")

    folder = open_source(tmp_path / "docs").fingerprint()
    written(tmp_path, "docs/b.txt", b"b")

    assert open_source(first).fingerprint() == open_source(same).fingerprint() is not None
    assert open_source(first).fingerprint() != open_source(other).fingerprint()
    assert open_source(first).fingerprint() != open_source(first, text_field="text").fingerprint()
    assert open_source(tmp_path / "docs").fingerprint() != folder


def test_a_file_that_changes_under_its_fingerprint_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "a.jsonl", b'"a"\n')
    source = open_source(path)

    source.fingerprint()
    path.write_bytes(b'"a"\n"b"\n')

    with pytest.raises(InvalidInput, match="the file was changed while it was read"):
        list(source)


def test_items_of_a_program_are_texts_dicts_or_items() -> None:
    source = ItemSource(["a", {"prompt": "b"}, Item(custom_id="c")], "prompt")

    assert items(source) == [(1, {"prompt": "a"}), (2, {"prompt": "b"}), (3, {"custom_id": "c"})]
    assert source.fingerprint() == ItemSource(("a", {"prompt": "b"}, Item(custom_id="c")), "prompt").fingerprint()
    assert ItemSource(iter(["a"]), "prompt").fingerprint() is None


@pytest.mark.parametrize(
    ("item", "code"),
    [
        ("\ud800", "invalid_text"),
        ({"text": "\udfff"}, "invalid_text"),
        ({"text": float("nan")}, "malformed_json"),
        ({"text": 10**5000}, "invalid_type"),
        ({"text": object()}, "invalid_type"),
        (7, "invalid_type"),
    ],
)
def test_an_item_that_is_no_json_is_a_problem_of_its_own(item: object, code: str) -> None:
    assert items(ItemSource(["a", item], "text")) == [(1, {"text": "a"}), (2, code)]  # type: ignore[list-item]


@pytest.mark.parametrize("given", ["one text", b"bytes", {"text": "one item"}])
def test_one_item_in_place_of_many_is_refused(given: object) -> None:
    with pytest.raises(InvalidInput, match="give a list of items"):
        ItemSource(given, "text")  # type: ignore[arg-type]


def _lock(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the folder might not be read; its mode alone would not keep root out."""
    scan = os.scandir

    def refuse(path: str) -> object:
        if Path(path) == folder:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)


PIECES = (
    b'"',
    b'""',
    b",",
    b"\n",
    b"\r\n",
    b"a",
    b"b c",
    b"\xc3\xa9",
    b"\xff",
    b"\n\n",
    b'"x, y"',
    b'"two\nlines"',
    b"\\",
    b"\r",
)


@settings(deadline=None)
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=40), block=st.sampled_from([1, 2, 3, 7, 64]))
@example(pieces=[b'"two\nlines"', b",", b"a", b"\n", b"\xff", b"\n"], block=3)
@example(pieces=[b'"', b"\xff", b"\n", b"a", b'"', b",", b"b c"], block=2)
def test_records_are_those_of_the_csv_module_whatever_the_blocks(pieces: list[bytes], block: int) -> None:
    content = b"text,n\n" + b"".join(pieces)

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        path = written(Path(folder), "a.csv", content)
        whole = _outcome(path)
        patched.setattr(lines, "BLOCK_BYTES", block)
        in_pieces = _outcome(path)

    assert in_pieces == whole == _plainly(content)


def _outcome(path: Path) -> list[object]:
    """The items, and the error that ends them."""
    found: list[object] = []
    try:
        found += items(open_source(path))
    except InvalidInput:
        found.append("refused")
    return found if "refused" not in found else ["refused"]


def _plainly(content: bytes) -> list[object]:
    """The same by the csv module alone, line by line."""
    texts = [line.rstrip(b"\r\n") for line in content.removesuffix(b"\n").split(b"\n")]
    rows = csv.reader([text.decode(errors="surrogateescape") + "\n" for text in texts], strict=True)
    found: list[object] = []
    next(rows)
    while True:
        begun = rows.line_num + 1
        try:
            cells = next(rows)
        except StopIteration:
            return found
        except csv.Error as error:
            if "unexpected end" in str(error):
                return ["refused"]
            found.append((begun, "malformed_csv"))
            continue
        bad = [at for at in range(begun, rows.line_num + 1) if _is_bad(texts[at - 1])]
        if bad:
            found.append((bad[0], "not_utf8"))
        elif len(cells) not in (0, 2):
            found.append((begun, "malformed_csv"))
        elif cells:
            found.append((begun, {"text": cells[0], "n": cells[1]}))


def _is_bad(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return True
    return False


@settings(deadline=None)
@given(
    content=st.lists(st.sampled_from([b"a", b"bc" * 5, b"\n", b"\r\n", b"\xef\xbb\xbf", b"d" * 11])).map(b"".join),
    block=st.integers(1, 12),
)
def test_lines_are_the_same_whatever_the_blocks(content: bytes, block: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(lines, "BLOCK_BYTES", block)
        found = list(lines.read_lines(io.BytesIO(content), "a", 10))

    expected = [text.removesuffix(b"\r") for text in content.removeprefix(b"\xef\xbb\xbf").split(b"\n")]
    if not expected[-1]:
        del expected[-1]
    assert [number for number, _ in found] == list(range(1, len(expected) + 1))
    assert [None if isinstance(line, Problem) else line for _, line in found] == [
        text if len(text) <= 10 else None for text in expected
    ]
