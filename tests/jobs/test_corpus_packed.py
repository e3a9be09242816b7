"""Compressed files, tabs, and Parquet: what they give, what is written, and what is said of damaged ones."""

import gzip
import io
import tempfile
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pyarrow
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from pydantic import BaseModel

from jobs.corpus import Source, open_sink, open_source
from jobs.errors import InvalidInput, Problem
from jobs.schemas import Result

LINES = b"".join(orjson.dumps({"text": f"text {n}", "nr": n}) + b"\n" for n in range(5000))


def packed(content: bytes, suffix: str) -> bytes:
    return gzip.compress(content) if suffix == ".gz" else zstandard.compress(content)


def items(source: Source) -> list[Any]:
    return [line.code if isinstance(line, Problem) else orjson.loads(line) for _, line in source]


def put(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("inner", ["a.jsonl", "b.csv", "c.txt", "d.tsv"])
def test_a_compressed_file_gives_what_the_plain_one_does(tmp_path: Path, inner: str, suffix: str) -> None:
    content = {
        "a.jsonl": LINES,
        "b.csv": b"text,nr\none,1\ntwo,2\n",
        "c.txt": "one\nzwölf\n".encode(),
        "d.tsv": b"text\tnr\none, with a comma\t1\n",
    }[inner]
    plain = open_source(put(tmp_path, inner, content), text_field=None)
    source = open_source(put(tmp_path, inner + suffix, packed(content, suffix)), text_field=None)
    assert list(source) == list(plain)
    assert source.fingerprint() == plain.fingerprint()


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_several_compressed_pieces_in_one_file_are_read_on(tmp_path: Path, suffix: str) -> None:
    content = packed(b"one\n", suffix) + packed(b"two\n", suffix)
    assert items(open_source(put(tmp_path, f"a.txt{suffix}", content))) == [{"text": "one"}, {"text": "two"}]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_compressed_file_that_ends_too_early_is_an_error(tmp_path: Path, suffix: str) -> None:
    good = packed(LINES, suffix)
    for content in (good[:-500], good + good[:20]):
        with pytest.raises(InvalidInput, match=rf"a\.jsonl\{suffix}: the compressed file ends too early"):
            items(open_source(put(tmp_path, f"a.jsonl{suffix}", content)))


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_damaged_file_is_an_error(tmp_path: Path, suffix: str) -> None:
    good = packed(LINES, suffix)
    for content in (b"not compressed at all\n" * 9, good[:40] + b"\0" * 60 + good[100:]):
        with pytest.raises(InvalidInput, match="the compressed file is damaged"):
            items(open_source(put(tmp_path, f"a.jsonl{suffix}", content)))


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_bomb_is_one_line_that_is_too_long(tmp_path: Path, suffix: str) -> None:
    path = put(tmp_path, f"a.txt{suffix}", packed(b"x" * 50_000_000 + b"\nfine\n", suffix))
    assert items(open_source(path, max_line_bytes=1000)) == ["line_too_long", {"text": "fine"}]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_an_empty_compressed_file_has_no_items(tmp_path: Path, suffix: str) -> None:
    assert items(open_source(put(tmp_path, f"a.jsonl{suffix}", packed(b"", suffix)))) == []


def results() -> list[Result]:
    given = [
        {"seq": 0, "custom_id": "a", "status": "ok", "output": {"labels": [{"label": "x", "score": 0.75}]}},
        {"seq": 1, "custom_id": "b", "status": "error", "error": {"code": "empty_text", "message": "it is empty"}},
    ]
    return [Result.model_validate(each) for each in given]


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize("inner", ["out.jsonl", "out.csv", "out.tsv"])
def test_results_are_written_compressed_by_suffix(tmp_path: Path, inner: str, suffix: str) -> None:
    for _ in range(2):  # the same results are the same file
        with open_sink(tmp_path / (inner + suffix)) as sink:
            for result in results():
                sink.write(result)
    content = (tmp_path / (inner + suffix)).read_bytes()
    if suffix == ".gz":
        content = gzip.decompress(content)
    if suffix == ".zst":
        content = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(content)).read()
    if inner == "out.tsv":
        assert content.splitlines()[2] == b"b\terror\t\tempty_text\tit is empty"
    assert content.count(b"\n") == (2 if inner == "out.jsonl" else 3)
    assert [path.name for path in tmp_path.iterdir()] == [inner + suffix]


def table(folder: Path, columns: dict[str, Any], **options: Any) -> Path:
    path = folder / "a.parquet"
    parquet.write_table(pyarrow.table(columns), path, **options)
    return path


def test_parquet_rows_are_items(tmp_path: Path) -> None:
    columns = {
        "body": ["one", "zwölf", None],
        "nr": [1, 2, 3],
        "day": [date(2026, 11, 27), None, None],
        "price": [Decimal("1.50"), None, None],
        "tags": [["a"], [], None],
    }
    source = open_source(table(tmp_path, columns), text_field="body", id_field="nr")
    first, second, third = list(source)
    assert orjson.loads(bytes(first[1])) == {  # type: ignore[arg-type]
        "text": "one",
        "nr": 1,
        "custom_id": "1",
        "day": "2026-11-27",
        "price": "1.50",
        "tags": ["a"],
    }
    assert orjson.loads(bytes(second[1])) == {"text": "zwölf", "nr": 2, "custom_id": "2", "tags": []}  # type: ignore[arg-type]
    assert third == (3, b'{"nr":3,"custom_id":"3"}')  # which the task refuses: it has no text


def test_parquet_is_read_over_its_row_groups(tmp_path: Path) -> None:
    path = table(tmp_path, {"text": [f"text {n}" for n in range(10_000)]}, row_group_size=999)
    found = list(open_source(path))
    assert [number for number, _ in found] == list(range(1, 10_001))
    assert orjson.loads(bytes(found[-1][1])) == {"text": "text 9999"}  # type: ignore[arg-type]


def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    path = table(tmp_path, {"body": ["a"], "lang": ["en"]})
    with pytest.raises(InvalidInput, match=r"no column 'text'; its columns are: body, lang"):
        items(open_source(path))


def test_damaged_parquet_is_an_error(tmp_path: Path) -> None:
    whole = table(tmp_path, {"text": [f"text {n}" for n in range(1000)]}).read_bytes()
    for content in (b"", b"PAR1", b"no parquet at all", whole[:-50], whole[:200] + b"\xff" * 200 + whole[400:]):
        with pytest.raises(InvalidInput, match=r"a\.parquet: cannot be read as Parquet"):
            items(open_source(put(tmp_path, "a.parquet", content)))


def test_a_row_that_is_too_long_is_refused_alone(tmp_path: Path) -> None:
    path = table(tmp_path, {"text": ["x" * 5000, "short"]})
    assert items(open_source(path, max_line_bytes=1024)) == ["line_too_long", {"text": "short"}]


def test_results_in_parquet_have_types_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    with open_sink(path, kept=["lang", "status"]) as sink:
        for result in results():
            sink.write(result.model_copy(update={"kept": {"lang": "en", "status": 7}}))
    found = parquet.read_table(path)
    assert found.schema.names == ["custom_id", "status", "labels", "error_code", "error", "lang", "kept_status"]
    assert found.to_pylist() == [
        {
            "custom_id": "a",
            "status": "ok",
            "labels": [{"label": "x", "score": 0.75}],
            "error_code": None,
            "error": None,
            "lang": "en",
            "kept_status": 7,
        },
        {
            "custom_id": "b",
            "status": "error",
            "labels": None,
            "error_code": "empty_text",
            "error": "it is empty",
            "lang": "en",
            "kept_status": 7,
        },
    ]
    assert open_source(path, text_field="custom_id")


def test_vectors_in_parquet_are_lists_of_floats_over_many_row_groups(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    with open_sink(path, columns=["embedding"]) as sink:
        for seq in range(25_000):
            output = {"embedding": [float(seq), 0.5]}
            sink.write(Result(seq=seq, custom_id=str(seq), status="ok", output=output))
    found = parquet.ParquetFile(path)
    assert found.metadata.num_row_groups == 3
    assert found.schema_arrow.field("embedding").type == pyarrow.list_(pyarrow.float32())
    assert found.read().column("embedding")[24_999].as_py() == [24_999.0, 0.5]


def test_no_results_are_an_empty_table(tmp_path: Path) -> None:
    with open_sink(tmp_path / "out.parquet", columns=["labels"]):
        pass
    assert parquet.read_table(tmp_path / "out.parquet").num_rows == 0


CELLS: dict[str, st.SearchStrategy[Any]] = {
    "text": st.text(st.characters(codec="utf-8"), max_size=5)
    | st.sampled_from(['","', '"', "\\", '\\","', "\n", "%b"]),
    "number": st.integers(-(2**63), 2**63 - 1),
    "real": st.floats(),
    "yes": st.booleans(),
    "tags": st.lists(st.text(st.characters(codec="utf-8"), max_size=3), max_size=2),
    'q"%': st.dates(),
}


@settings(deadline=None)
@given(rows=st.lists(st.fixed_dictionaries({name: cell | st.none() for name, cell in CELLS.items()}), max_size=5))
@example(rows=[dict.fromkeys(CELLS) | {"text": "a"}])
@example(rows=[dict.fromkeys(CELLS) | {"text": '","', "number": 1}, dict.fromkeys(CELLS)])
def test_parquet_items_are_what_orjson_says_of_each_row(rows: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.parquet"
        types = [pyarrow.string(), pyarrow.int64(), pyarrow.float64(), pyarrow.bool_()]
        types += [pyarrow.list_(pyarrow.string()), pyarrow.date32()]
        schema = pyarrow.schema(list(zip(CELLS, types, strict=True)))
        parquet.write_table(pyarrow.Table.from_pylist(rows, schema), path)
        found = items(open_source(path))
        named = items(open_source(path, main_field="prompt", text_field="text", id_field="number"))

    plain = [orjson.loads(orjson.dumps({k: v for k, v in row.items() if v is not None})) for row in rows]
    assert found == plain
    for row, item in zip(plain, named, strict=True):
        if "number" not in row:
            assert item == "invalid_id"
        else:
            moved = {"prompt": row["text"]} if "text" in row else {}
            rest = {name: value for name, value in row.items() if name != "text"}
            assert item == rest | moved | {"custom_id": str(row["number"])}


def test_a_parquet_text_that_is_not_utf8_costs_its_row_alone(tmp_path: Path) -> None:
    texts = pyarrow.array([b"one", b"\xff", b"three"]).cast(pyarrow.binary())
    wrong = pyarrow.Array.from_buffers(pyarrow.string(), 3, texts.buffers())
    assert items(open_source(table(tmp_path, {"text": wrong}))) == [{"text": "one"}, "not_utf8", {"text": "three"}]


@pytest.mark.parametrize(
    ("column", "first", "second"),
    [
        (pyarrow.array([1_001, 2_000], pyarrow.timestamp("ns")), "1970-01-01T00:00:00.000001", None),
        (pyarrow.array([1_001, 2_000], pyarrow.time64("ns")), "00:00:00.000001", None),
        (pyarrow.array([2_000_001, 0], pyarrow.duration("ns")), "0:00:00.002000", None),
        (pyarrow.array([b"\xff\xd8", b"plain"]), "/9g=", None),
        (pyarrow.array([0, 2**62], pyarrow.timestamp("us")), "1970-01-01T00:00:00", "malformed_row"),
    ],
)
def test_a_column_of_an_odd_type_costs_at_most_the_rows_that_cannot_be_told(
    tmp_path: Path, column: Any, first: str, second: str | None
) -> None:
    path = tmp_path / "in.parquet"
    parquet.write_table(pyarrow.table({"text": ["a", "b"], "odd": column}), path)

    found = items(open_source(path))

    assert found[0] == {"text": "a", "odd": first}
    assert found[1] == second if second else found[1]["text"] == "b"


def test_a_main_field_of_bytes_that_are_no_text_is_no_item(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    parquet.write_table(pyarrow.table({"text": pyarrow.array([b"fine", b"\xff"])}), path)

    assert items(open_source(path)) == [{"text": "fine"}, "not_utf8"]


def test_what_only_later_rows_have_finds_its_type_in_parquet(tmp_path: Path) -> None:
    class Entity(BaseModel):
        word: str
        score: float

    def line(n: int, entities: list[dict[str, Any]], **kept: Any) -> bytes:
        return orjson.dumps({"custom_id": str(n), "status": "ok", "output": {"entities": entities}, "kept": kept})

    path = tmp_path / "out.parquet"
    with open_sink(path, columns={"entities": list[Entity]}, kept=["note"]) as sink:
        for n in range(10_000):
            sink.write_line(line(n, []))
        sink.write_line(line(10_000, [{"word": "Bo", "score": 1.0}], note=5))

    last = parquet.read_table(path).to_pylist()[-1]
    assert last["entities"] == [{"word": "Bo", "score": 1.0}]
    assert last["note"] == "5"
