"""Which rows become items, and of which columns: mappings, templates, filters, limits and samples, for every format."""

import csv
import io
import json
import os
import pydoc_data.topics
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pyarrow
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from jobs.corpus import Rows, open_source
from jobs.corpus.filter import MOST_DEPTH, Filter
from jobs.corpus.source import FileSource
from jobs.corpus.template import Template
from jobs.errors import EmptyInput, InvalidInput, Problem

REVIEWS: list[dict[str, Any]] = [
    {"title": "Tea", "body": "warm", "stars": 5, "lang": "en", "doc": {"author": {"name": "Ada"}, "at": None}},
    {"title": "Kaffee", "body": "kalt", "stars": 2, "lang": "de", "doc": {"author": {"name": "Zoë"}, "at": None}},
    {"title": "Rain", "body": "wet", "stars": 4, "lang": "en", "doc": {"author": None, "at": None}},
    {"title": "Sun", "body": "hot", "stars": 1, "lang": "en", "doc": {"author": {"name": "Bo"}, "at": None}},
]
FLAT = ("title", "body", "stars", "lang")


def written(folder: Path, suffix: str, rows: list[dict[str, Any]]) -> Path:
    """The rows as a file; formats without nested values have the flat columns alone."""
    path = folder / f"in{suffix}"
    if suffix == ".jsonl":
        path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    elif suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            lines = csv.writer(file, delimiter="\t" if suffix == ".tsv" else ",", lineterminator="\n")
            lines.writerows([FLAT, *([row[name] for name in FLAT] for row in rows)])
    return path


def items(source: FileSource) -> list[Any]:
    """The items, or the code of what is wrong."""
    return [line.code if isinstance(line, Problem) else orjson.loads(line) for _, line in source]


def texts(source: FileSource) -> list[str]:
    return [item["text"] for item in items(source)]


TABLES = pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv", ".parquet"])


@TABLES
def test_rows_are_filtered_mapped_and_filled_in_alike_in_every_format(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path, suffix, REVIEWS)
    rows = Rows(
        map={"custom_id": "title", "language": "lang"},
        template="{title}: {body} ({stars}) {{x}}",
        where="lang = 'en' and stars >= 4",
    )

    source = open_source(path, rows=rows)
    found = items(source)

    assert [item["text"] for item in found] == ["Tea: warm (5) {x}", "Rain: wet (4) {x}"]
    assert [item["custom_id"] for item in found] == ["Tea", "Rain"]
    assert [item["language"] for item in found] == ["en", "en"]
    assert "lang" not in found[0]  # it has moved
    assert found[0]["body"] == "warm"  # of a template's columns a copy is made
    assert source.filtered == 2


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_dotted_path_goes_into_nested_columns(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path, suffix, REVIEWS)

    mapped = items(open_source(path, rows=Rows(map={"text": "doc.author.name"})))
    filtered = open_source(path, rows=Rows(template="by {doc.author.name}", where="doc.author.name is not null"))

    assert [item.get("text") for item in mapped] == ["Ada", "Zoë", None, "Bo"]  # which a task refuses
    assert texts(filtered) == ["by Ada", "by Zoë", "by Bo"]


def test_a_column_whose_name_has_dots_comes_before_a_path(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"doc.body": "whole", "doc": {"body": "inside"}}\n{"doc": {"body": "inside"}}\n')

    assert texts(open_source(path, rows=Rows(map={"text": "doc.body"}))) == ["whole", "inside"]


def test_text_and_id_field_are_two_cases_of_a_mapping_and_columns_may_be_swapped(tmp_path: Path) -> None:
    path = written(tmp_path, ".jsonl", REVIEWS)

    named = items(open_source(path, text_field="body", id_field="title"))
    mapped = items(open_source(path, rows=Rows(map={"text": "body", "custom_id": "title"})))
    swapped = items(open_source(path, rows=Rows(map={"text": "body", "body": "title", "title": "body"})))

    assert named == mapped
    assert [(item["text"], item["body"], item["title"]) for item in swapped][:2] == [
        ("warm", "Tea", "warm"),
        ("kalt", "Kaffee", "kalt"),
    ]


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"text_field": "a", "rows": Rows(map={"text": "b"})}, "text"),
        ({"text_field": "a", "rows": Rows(template="{b}")}, "text"),
        ({"rows": Rows(template="{b}", map={"text": "b"})}, "text"),
        ({"id_field": "a", "rows": Rows(map={"custom_id": "b"})}, "custom_id"),
    ],
)
def test_a_field_is_made_once(tmp_path: Path, given: dict[str, Any], field: str) -> None:
    path = written(tmp_path, ".jsonl", REVIEWS)

    with pytest.raises(InvalidInput, match=f"field '{field}' is made twice"):
        open_source(path, **given)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
@pytest.mark.parametrize(
    "rows", [Rows(map={"text": "bodi"}), Rows(template="{bodi}"), Rows(map={"text": "body"}, where="bodi = 'x'")]
)
def test_a_column_that_a_table_does_not_have_is_refused_with_those_it_has(
    tmp_path: Path, suffix: str, rows: Rows
) -> None:
    path = written(tmp_path, suffix, REVIEWS)

    with pytest.raises(InvalidInput, match="no column 'bodi'; its columns are: title, body, stars, lang"):
        list(open_source(path, rows=rows))


def test_a_structure_without_the_named_part_is_refused_where_the_file_says_so(tmp_path: Path) -> None:
    path = written(tmp_path, ".parquet", REVIEWS)

    for wrong in ("doc.author.nme", "doc.author.name.first", "title.x"):
        with pytest.raises(InvalidInput, match=f"no column '{wrong}'"):
            list(open_source(path, rows=Rows(map={"text": wrong})))


def test_json_lines_without_a_column_are_problems_of_their_own_and_left_out_ones_none(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"a": "x", "n": 1}\n{"b": "y", "n": 1}\n{"b": "z", "n": 2}\nbroken\n[1]\n"bare"\n')

    source = open_source(path, rows=Rows(template="<{a}>", where="n = 1 or text = 'bare'"))
    found = list(source)

    assert [number for number, _ in found] == [1, 2, 4, 5, 6]
    assert found[1][1] == Problem(2, "missing_field", "no field 'a'; the line has: b, n")
    assert [line for _, line in found[2:4]] == [b"broken", b"[1]"]  # of which the intake says what they are
    assert isinstance(found[4][1], Problem)
    assert source.filtered == 1


def test_texts_have_one_column_and_folders_two(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("one\ntwo\nthree\n")
    (tmp_path / "docs").mkdir()
    for name in ("a", "b"):
        (tmp_path / "docs" / f"{name}.txt").write_text(f"text of {name}")

    lines = open_source(
        tmp_path / "in.txt", main_field="prompt", rows=Rows(template="Q: {prompt}", where="prompt ~ 'o'")
    )
    folder = open_source(tmp_path / "docs", rows=Rows(template="{custom_id}: {text}", where="custom_id != 'a.txt'"))

    assert items(lines) == [{"prompt": "Q: one"}, {"prompt": "Q: two"}]
    assert items(folder) == [{"custom_id": "b.txt", "text": "b.txt: text of b"}]
    with pytest.raises(InvalidInput, match="no column 'body'; its columns are: text"):
        list(open_source(tmp_path / "in.txt", rows=Rows(where="body = 'x'")))
    with pytest.raises(InvalidInput, match="a text has no fields"):
        list(open_source(tmp_path / "in.txt", rows=Rows(map={"text": "body"})))


def test_the_line_of_an_error_is_that_of_the_input(tmp_path: Path) -> None:
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    first.write_text('text,n\n"one\nline",1\nskip,2\n')
    second.write_text("text,n\nskip,2\ntwo,1,more\nthree,1\n")

    source = open_source([first, second], rows=Rows(where="n = 1"))

    assert [(source.locate(number), isinstance(line, Problem)) for number, line in source] == [
        ((str(first), 2), False),
        ((str(second), 3), True),
        ((str(second), 4), False),
    ]


def test_a_filter_that_leaves_nothing_says_how_much_there_was(tmp_path: Path) -> None:
    path = written(tmp_path, ".jsonl", REVIEWS)

    with pytest.raises(EmptyInput, match="the filter 'stars > 5' leaves out all 4 rows"):
        list(open_source(path, rows=Rows(where="stars > 5")))


@TABLES
def test_a_limit_takes_the_first_rows_that_the_filter_takes(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path, suffix, REVIEWS)

    source = open_source([path, path], text_field="body", rows=Rows(where="lang = 'en'", limit=4))

    assert texts(source) == ["warm", "wet", "hot", "warm"]


def test_a_limit_reads_no_further(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('"a"\n"b"\n')
    (tmp_path / "b.csv").write_bytes(b"")  # which cannot be read

    assert items(open_source([tmp_path / "a.jsonl", tmp_path / "b.csv"], rows=Rows(limit=2))) == ["a", "b"]


def test_rows_that_cannot_be_read_count_as_rows(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("text,n\na,1\nb\nc,2\nd,1\n")

    assert items(open_source(path, rows=Rows(where="n = 1", limit=2))) == [{"text": "a", "n": "1"}, "malformed_csv"]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_a_sample_is_the_same_for_a_seed_and_keeps_the_order(tmp_path: Path, suffix: str) -> None:
    rows = [REVIEWS[0] | {"stars": n, "body": f"{n}"} for n in range(1000)]
    path = written(tmp_path, suffix, rows)

    def drawn(seed: int) -> list[int]:
        chosen = Rows(where="stars < 900", sample=50, seed=seed)
        return [int(text) for text in texts(open_source(path, text_field="body", rows=chosen))]

    first, again, other = drawn(0), drawn(0), drawn(1)

    assert first == again == sorted(set(first))
    assert (len(first), max(first) < 900) == (50, True)
    assert other != first


def test_samples_take_every_row_equally_often(tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_text("".join(f"{n}\n" for n in range(10)))

    counts = [0] * 10
    for seed in range(1000):
        for text in texts(open_source(path, rows=Rows(sample=3, seed=seed))):
            counts[int(text)] += 1

    assert sum(counts) == 3000
    assert 250 < min(counts) <= max(counts) < 350  # 14.5 is one standard deviation


def test_a_sample_larger_than_the_input_is_the_input_and_comes_after_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_text("".join(f"{n}\n" for n in range(100)))

    assert texts(open_source(path, rows=Rows(sample=1000))) == [str(n) for n in range(100)]
    assert max(map(int, texts(open_source(path, rows=Rows(limit=20, sample=5))))) < 20


def test_a_pipe_gives_the_same_rows_as_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"".join(b'{"text": "%d", "n": %d}\n' % (n, n % 3) for n in range(500))
    (tmp_path / "in.jsonl").write_bytes(content)
    os.mkfifo(tmp_path / "pipe")
    rows = Rows(where="n != 0", limit=200, sample=20, seed=7, template="<{text}>")

    from_file = list(open_source(tmp_path / "in.jsonl", rows=rows))
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(content,))
    writer.start()
    from_pipe = list(open_source(tmp_path / "pipe", rows=Rows(where="n != 0", sample=20, seed=7, template="<{text}>")))
    writer.join()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    from_stdin = list(open_source("-", rows=rows))

    assert from_stdin == from_file
    assert from_pipe == list(open_source(tmp_path / "in.jsonl", rows=Rows(**_of(rows) | {"limit": None})))


def _of(rows: Rows) -> dict[str, Any]:
    return {name: getattr(rows, name) for name in ("map", "template", "where", "limit", "sample", "seed")}


@pytest.mark.parametrize(
    "other",
    [
        Rows(map={"text": "body"}),
        Rows(template="{text}"),
        Rows(where="text = 'a'"),
        Rows(limit=1),
        Rows(sample=1),
        Rows(sample=1, seed=2),
    ],
)
def test_a_fingerprint_is_of_the_rows_that_are_asked_for(tmp_path: Path, other: Rows) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"text": "a", "body": "b"}\n')

    def print_of(rows: Rows) -> str | None:
        return open_source(path, rows=rows).fingerprint()

    assert print_of(other) == print_of(Rows(**_of(other))) != print_of(Rows())
    assert print_of(Rows(sample=1, seed=1)) not in (print_of(other), print_of(Rows()))
    assert print_of(Rows()) == open_source(path).fingerprint()


def test_a_file_that_changes_while_its_first_rows_are_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('"a"\n"b"\n')
    source = open_source(path, rows=Rows(limit=1))

    source.fingerprint()
    path.write_text('"c"\n"b"\n"d"\n')

    with pytest.raises(InvalidInput, match="the file was changed while it was read"):
        list(source)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"limit": 0}, "limit is 0; it may be 1 to 4,611,686,018,427,387,904"),
        ({"limit": 2**63}, "limit is 9223372036854775808; it may be 1 to"),
        ({"sample": -1}, "sample is -1; it may be 1 to 10,000,000"),
        ({"sample": 10**9}, "sample is 1000000000; it may be 1 to 10,000,000"),
        ({"map": {"text": ""}}, "'text=' maps nothing"),
        ({"map": {str(n): "a" for n in range(101)}}, "101 fields are mapped; there may be 100"),
        ({"template": "no column"}, "names no column"),
        ({"template": "x{"}, "cannot be read at character 2, '{'"),
        ({"template": "{a} }"}, "cannot be read at character 5, '}'"),
        ({"template": "{}"}, "cannot be read at character 1"),
        ({"template": "{a{b}}"}, "cannot be read at character 1"),
        ({"template": "{a}" * 30_000}, "the template has 90,000 characters; it may have 65,536"),
        ({"where": ""}, "character 1, its end: here belongs a column's name"),
        ({"where": "a = "}, "character 5, its end: here belongs a text in quotes, a number"),
        ({"where": "a == 1"}, "character 4, '= 1': here belongs a text in quotes"),
        ({"where": "a = en"}, "character 5, 'en': here belongs a text in quotes"),
        ({"where": "a = null"}, "`is null` asks for what is not there"),
        ({"where": "a ! 1"}, "character 3, '! 1': no such sign is known"),
        ({"where": "a = 'x"}, 'character 5, "\'x": this quote is never closed'),
        ({"where": "a = 1 b = 2"}, "character 7, 'b = 2': here belongs `and`, `or` or the end"),
        ({"where": "(a = 1"}, "character 7, its end: here belongs `and`, `or` or `\\)`"),
        ({"where": "a is 1"}, "character 6, '1': here belongs `null` or `not null`"),
        ({"where": "a is not 1"}, "character 10, '1': here belongs `null`"),
        ({"where": "a > true"}, "true can be compared by = and != only"),
        ({"where": "a ~ 3"}, "~ asks whether a text is contained"),
        ({"where": "a = 3x"}, "character 5, '3x': no such sign is known"),
        ({"where": "a = " + "9" * 500}, "character 5"),
        ({"where": "__import__('os').system('x')"}, 'character 17, "\\.system'),
        ({"where": "(" * 101 + "a = 1" + ")" * 101}, "more than 100 `not` and parentheses inside each other"),
        ({"where": "a = 1 or " * 2000 + "a = 1"}, "the filter has 18,005 characters; it may have 10,000"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_place(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        Rows(**given)


@pytest.mark.parametrize("hostile", ["{a.__class__}", "{a[0]}", "{a!r}", "{a:>9999999999}", "{0}", "{a.b.c}"])
def test_a_template_knows_names_of_columns_and_nothing_else(hostile: str) -> None:
    row = {"a": "text", "b": 1}

    with pytest.raises(KeyError):
        Template(hostile).fill(row)
    assert Template(hostile).fill({hostile[1:-1]: "its name"}) == "its name"


def test_values_in_a_template_stand_as_in_json() -> None:
    row = {"text": "a {b}", "none": None, "yes": True, "n": 1.50, "big": 2**60, "list": ["ü", 1], "o": {"k": None}}

    filled = Template("{text}|{none}|{yes}|{n}|{big}|{list}|{o}|{o.k}|{o.k.deeper}").fill(row)

    assert filled == 'a {b}||true|1.5|1152921504606846976|["ü",1]|{"k":null}||'


COLUMNS = st.text(st.characters(exclude_characters="{}.", codec="utf-8"), min_size=1, max_size=5)


@settings(deadline=None)
@given(
    row=st.dictionaries(COLUMNS, st.text(st.characters(codec="utf-8"), max_size=5), min_size=1, max_size=4),
    data=st.data(),
)
def test_a_template_is_filled_as_it_reads(row: dict[str, str], data: st.DataObject) -> None:
    plain = st.text(st.characters(codec="utf-8"), max_size=4).map(lambda text: (_escaped(text), text))
    columns = st.sampled_from(sorted(row)).map(lambda name: ("{" + name + "}", row[name]))
    pieces = [data.draw(columns), *data.draw(st.lists(plain | columns, max_size=6))]

    filled = Template("".join(piece for piece, _ in pieces)).fill(row)

    assert filled == "".join(value for _, value in pieces)


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


# A filter as a tree, with what it says in words and what it means in plain Python.
NAMES = ("a", "b", "größe", "a b", 'q"uote', "and", "d.e")
VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([1.5, -2.5, 1e300])
    | st.sampled_from(["", "x", "xy", "1", "-2.5", "true", "o'clock", "1e2", "١"])
)
SIGNS = ("=", "!=", "<", "<=", ">", ">=", "~")
Tree = tuple[Any, ...]


def _comparison(tree: Tree) -> bool:
    _, _, sign, literal = tree
    is_text = isinstance(literal, str)
    return (sign != "~" or is_text) and not (isinstance(literal, bool) and sign not in ("=", "!="))


LEAVES = st.tuples(
    st.just("compare"), st.sampled_from(NAMES), st.sampled_from(SIGNS), VALUES.filter(lambda value: value is not None)
).filter(_comparison) | st.tuples(st.just("null"), st.sampled_from(NAMES), st.booleans())
TREES = st.recursive(
    LEAVES,
    lambda inner: st.tuples(st.sampled_from(["and", "or"]), inner, inner) | st.tuples(st.just("not"), inner),
    max_leaves=8,
)


def said(tree: Tree) -> str:
    match tree:
        case ("and" | "or" as word, left, right):
            return f"({said(left)}) {word.upper()} ({said(right)})"
        case ("not", inner):
            return f"not ({said(inner)})"
        case ("null", name, wanted):
            return f"{_named(name)} is {'' if wanted else 'not '}null"
        case (_, name, sign, literal):
            quoted = "'" + literal.replace("'", "''") + "'" if isinstance(literal, str) else json.dumps(literal)
            return f"{_named(name)}{sign}{quoted.replace('1e+300', '1e300')}"
    raise AssertionError(tree)


def _named(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def meant(tree: Tree, row: dict[str, Any]) -> bool:
    match tree:
        case ("and", left, right):
            return meant(left, row) and meant(right, row)
        case ("or", left, right):
            return meant(left, row) or meant(right, row)
        case ("not", inner):
            return not meant(inner, row)
        case ("null", name, wanted):
            return (_cell(row, name) is None or _cell(row, name) == "") == wanted
        case (_, name, "!=", literal):
            return not meant(("compare", name, "=", literal), row)
        case (_, name, sign, literal):
            value = _as_kind(_cell(row, name), literal)
            if value is None:
                return False
            return {
                "=": lambda: value == literal,
                "<": lambda: value < literal,
                "<=": lambda: value <= literal,
                ">": lambda: value > literal,
                ">=": lambda: value >= literal,
                "~": lambda: literal in value,
            }[sign]()
    raise AssertionError(tree)


def _cell(row: dict[str, Any], name: str) -> Any:
    if name in row or "." not in name:
        return row.get(name)
    outer, inner = name.split(".")
    return (row.get(outer) or {}).get(inner) if isinstance(row.get(outer), dict) else None


def _as_kind(value: Any, literal: Any) -> Any:
    """The value as one of the literal's kind, or None."""
    if isinstance(value, str) and not isinstance(literal, str):
        value = {"true": True, "1": 1, "-2.5": -2.5, "1e2": 100.0}.get(value)
    kinds = str if isinstance(literal, str) else bool if isinstance(literal, bool) else (int, float)
    odd = isinstance(value, bool) and not isinstance(literal, bool)
    return value if isinstance(value, kinds) and not odd else None


@settings(deadline=None)
@given(tree=TREES, row=st.dictionaries(st.sampled_from((*NAMES, "d")), VALUES | st.fixed_dictionaries({"e": VALUES})))
@example(tree=("compare", "a", "~", ""), row={"a": "x"})
@example(tree=("not", ("compare", "a", "<", 1)), row={})
def test_a_filter_means_what_it_says(tree: Tree, row: dict[str, Any]) -> None:
    assert Filter(said(tree)).takes(row) is meant(tree, row)


@settings(deadline=None)
@given(
    text=st.text(max_size=30)
    | st.lists(st.sampled_from(["a", "=", "'x'", "(", ")", "not", "and", "~", "1", " "])).map("".join)
)
def test_any_text_is_a_filter_and_a_template_or_refused(text: str) -> None:
    for made in (Filter, Template):
        with suppress(InvalidInput):
            made(text)


def test_words_bind_as_in_sql_and_depth_is_bounded() -> None:
    row = {"a": 1, "b": 2}

    assert Filter("a = 1 or a = 2 and b = 3").takes(row)
    assert not Filter("(a = 1 or a = 2) and b = 3").takes(row)
    assert Filter("not a = 2 and b = 2").takes(row)
    assert Filter("not " * MOST_DEPTH + "a = 1").takes(row)


def test_python_s_own_manual_is_a_corpus(tmp_path: Path) -> None:
    topics = pydoc_data.topics.topics
    rows = [{"name": name, "page": {"body": body, "words": len(body.split())}} for name, body in topics.items()]
    path = written(tmp_path, ".jsonl", rows)
    wanted = Rows(
        map={"custom_id": "name"}, template="# {name}\n{page.body}", where="page.words > 200 and page.body ~ 'yield'"
    )

    found = items(open_source(path, rows=wanted))

    expected = {
        name: f"# {name}\n{body}" for name, body in topics.items() if len(body.split()) > 200 and "yield" in body
    }
    assert {item["custom_id"]: item["text"] for item in found} == expected
    assert len(expected) > 3


@settings(deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=4), st.sampled_from(["", "7"])
        )
    )
)
@example(rows=[('","', "7"), ("%b\\", "7"), ("\n", "")])
def test_cells_of_a_csv_are_told_as_the_csv_module_reads_them(rows: list[tuple[str, str]]) -> None:
    table = io.StringIO(newline="")
    csv.writer(table, lineterminator="\n").writerows([("te%xt", "nr"), *rows])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "in.csv"
        path.write_text(table.getvalue(), encoding="utf-8", newline="")
        mapped = items(open_source(path, text_field="te%xt", id_field="nr"))
        whole = items(open_source(path, main_field="te%xt"))

    assert whole == [{"te%xt": text, "nr": nr} for text, nr in rows]
    assert mapped == [{"text": text, "nr": nr, "custom_id": nr} if nr else "invalid_id" for text, nr in rows]


def test_a_text_that_a_template_makes_too_long_is_a_problem_of_its_row(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(orjson.dumps({"a": "x" * 1_000_000}) + b"\n" + orjson.dumps({"a": "short"}) + b"\n")

    found = items(open_source(path, rows=Rows(template="{a}" * 1000)))

    assert found[0] == "line_too_long"
    assert found[1]["text"] == "short" * 1000
