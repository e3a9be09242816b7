"""The intake: lines become checked items in blocks and chunks; what cannot be an item is named, and harms no other."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.blocks import CHUNK_ITEMS, CHUNK_TOKENS, cut
from jobs.corpus import ItemSource, Source, open_source
from jobs.errors import InvalidInput, InvalidItems, InvalidState, Problem
from jobs.intake import BLOCK_ITEMS, Intake, Loaded, OnInvalid, load
from jobs.schemas import JobSpec
from jobs.settings import Settings
from jobs.store.encoding import parse_block
from jobs.store.values import NewBlock
from jobs.tasks import find, task_adapter

MakeSettings = Callable[..., Settings]
DEEP = b"[" * 100_000
EACH = settings(max_examples=40, deadline=None)


class Memory:
    """A store of one job, in memory."""

    def __init__(self) -> None:
        self.blocks: dict[int, NewBlock] = {}
        self.appended = 0
        self.room = 10**9
        """Appends before it breaks down."""

    @property
    def jobs(self) -> "Memory":
        return self

    def loaded(self, job_id: str) -> list[tuple[int, int, bytes]]:
        return [(block.seq_lo, block.n_items, block.sha256) for block in self.blocks.values()]

    def append(self, job_id: str, blocks: Sequence[NewBlock]) -> None:
        if self.room <= 0:
            raise ConnectionError
        self.room -= 1
        for block in blocks:
            assert block.seq_lo not in self.blocks
            self.blocks[block.seq_lo] = block
            self.appended += 1

    def items(self) -> list[Any]:
        lines = (line for block in self.blocks.values() for line in parse_block(block.encoding, block.data))
        return [orjson.loads(line) for line in lines]


class Lines:
    """A source of given lines."""

    def __init__(self, *lines: bytes) -> None:
        self._lines = lines

    def __iter__(self) -> Iterator[tuple[int, bytes | Problem]]:
        return iter(enumerate(self._lines, start=1))

    def fingerprint(self) -> str | None:
        return None

    def locate(self, line: int) -> tuple[str | None, int]:
        return "lines", line


@pytest.fixture
def loading(settings: MakeSettings) -> Callable[..., tuple[Loaded, Memory]]:
    """Loads a source into an empty store."""

    def run(
        source: Source,
        *,
        task: str = "classify",
        on_invalid: OnInvalid = "reject",
        store: Memory | None = None,
        keep: tuple[str, ...] = (),
        params: dict[str, Any] | None = None,
        **overrides: Any,
    ) -> tuple[Loaded, Memory]:
        memory = store or Memory()
        spec = JobSpec(task=task, model="fake", keep=keep, params=params or {})
        chosen = settings(**overrides)
        return load(memory, "job", find(task), spec, source, settings=chosen, on_invalid=on_invalid), memory

    return run


Loading = Callable[..., tuple[Loaded, Memory]]


def test_the_stored_blocks_give_back_exactly_the_items(loading: Loading) -> None:
    items = [{"text": f"text {n}", "custom_id": f"id-{n}", "lang": "ü"} for n in range(2500)]

    loaded, store = loading(ItemSource(items, "text"))

    assert loaded == Loaded(2500)
    assert store.items() == items
    assert [(block.seq_lo, block.n_items) for block in store.blocks.values()] == [(0, 1000), (1000, 1000), (2000, 500)]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)
FREE = st.dictionaries(st.text().filter(lambda name: name not in ("custom_id", "params", "text", "text_pair")), JSON)


@EACH
@given(texts=st.lists(st.tuples(st.text(), FREE), min_size=1, max_size=6), bare=st.booleans())
def test_any_items_come_back_as_they_were(texts: list[tuple[str, dict[str, Any]]], bare: bool) -> None:
    items: list[Any] = [text if bare else {**free, "text": text} for text, free in texts]
    memory = Memory()
    spec = JobSpec(task="classify", model="fake")

    loaded = load(
        memory, "job", find("classify"), spec, ItemSource(items, "text"), settings=Settings(home=Path("/dev/null"))
    )

    assert memory.items() == [{"text": item} if bare else item for item in items]
    assert loaded.n_items == len(items)


@EACH
@given(lines=st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"")), min_size=1, max_size=12))
def test_no_line_whatsoever_harms_its_neighbours(lines: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> None:
    memory = Memory()
    spec = JobSpec(task="classify", model="fake")
    source = Lines(b'"first"', *lines, b'"last"')

    loaded = load(
        memory,
        "job",
        find("classify"),
        spec,
        source,
        settings=Settings(home=tmp_path_factory.mktemp("home")),
        on_invalid="skip",
    )

    items = memory.items()
    assert items[0] == {"text": "first"}
    assert items[-1] == {"text": "last"}
    assert loaded.n_items + loaded.skipped == len(lines) + 2
    task_adapter(find("classify")).validate_python(items)


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (b'{"text": "a"', "malformed_json", "unexpected end"),
        (b"{'text': 'a'}", "malformed_json", ""),
        (b'{"text": NaN}', "malformed_json", "NaN is no JSON number, at column 10"),
        (b'{"text": "\xc3\xa4", "x": -Infinity}', "malformed_json", "Infinity is no JSON number"),
        (b'{"text": Naan}', "malformed_json", "unexpected character"),
        (b'{"text": "a", "x": ' + b"9" * 5000 + b"}", "malformed_json", "number"),
        (DEEP, "malformed_json", "depth"),
        (b'{"text": "a", "kept": ' + b"[" * 300 + b"]" * 300 + b"}", "invalid_field", "nested too deeply"),
        (b'{"text": "a", "params": ' + b'{"top_k":' * 500 + b"1" + b"}" * 501, "invalid_params", "top_k"),
        (b'{"text": "a\xff"}', "not_utf8", "byte 0xff at offset 11"),
        (b'{"text": "\\ud800"}', "invalid_text", "surrogate"),
        (b'{"text": "a", "custom_id": "x\\u0000"}', "invalid_id", "custom_id"),
        (b'{"text": "a", "custom_id": ""}', "invalid_id", "custom_id"),
        (b'{"text": "a", "custom_id": 7}', "invalid_id", "custom_id"),
        (b'{"text": "a", "custom_id": "' + b"x" * 513 + b'"}', "invalid_id", "512"),
        (b'{"body": "a"}', "missing_field", "text: Field required"),
        (b'{"text": 7}', "invalid_field", "text"),
        (b'{"text": null}', "invalid_field", "text"),
        (b'{"text": "a", "params": {"top_k": 0}}', "invalid_params", "top_k"),
        (b'{"text": "a", "params": {"topk": 1}}', "invalid_params", "unknown parameter 'topk'"),
        (b'{"text": "a", "params": [1]}', "invalid_params", "params"),
        (b'["a"]', "invalid_type", "not a list"),
        (b"7", "invalid_type", "not a number"),
        (b"null", "invalid_type", "not null"),
        (b'{"text": "' + b"x" * 5001 + b'"}', "text_too_long", "5,000 characters"),
        (b'{"text": "b", "custom_id": "first"}', "duplicate_id", "'first' is already the id at lines:1"),
    ],
)
def test_a_bad_line_is_named_and_its_neighbours_are_taken(loading: Loading, line: bytes, code: str, said: str) -> None:
    source = Lines(b'{"text": "a", "custom_id": "first"}', line, b'{"text": "c", "custom_id": "last"}')

    loaded, store = loading(source, on_invalid="skip", keep=("kept",), max_text_chars=5000)

    assert [item["custom_id"] for item in store.items()] == ["first", "last"]
    (problem,) = loaded.problems
    assert (problem.file, problem.line, problem.code) == ("lines", 2, code)
    assert said in problem.message
    assert len(problem.message) <= 500


def test_a_text_in_many_bytes_is_measured_in_characters(loading: Loading) -> None:
    loaded, _ = loading(Lines(orjson.dumps("ü" * 4000)), max_text_chars=5000)

    assert loaded.n_items == 1


def test_a_refused_input_stores_nothing_and_lists_every_line(loading: Loading) -> None:
    store = Memory()
    lines = [b'"good"', *[b"bad"] * 3000, b'"good"']

    with pytest.raises(InvalidItems) as caught:
        loading(Lines(*lines), store=store)

    assert store.blocks == {}
    assert (caught.value.total, len(caught.value.problems)) == (3000, 1000)
    assert caught.value.problems[0].line == 2
    assert caught.value.report is not None
    report = [orjson.loads(line) for line in Path(caught.value.report).read_bytes().splitlines()]
    assert [entry["line"] for entry in report] == list(range(2, 3002))
    assert report[0]["code"] == "malformed_json"
    assert "lines:2: malformed_json" in str(caught.value)


def test_a_bad_line_far_into_the_input_is_found_too(loading: Loading) -> None:
    lines = [orjson.dumps(str(n)) for n in range(3000)]
    lines[2500] = b"bad"

    with pytest.raises(InvalidItems) as caught:
        loading(Lines(*lines))

    assert [problem.line for problem in caught.value.problems] == [2501]


def test_a_report_that_cannot_be_written_does_not_hide_the_problems(loading: Loading, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(InvalidItems) as caught:
        loading(Lines(b"bad"), home=tmp_path / "file")

    assert caught.value.total == 1
    assert caught.value.report is None


@pytest.mark.parametrize("source", [Lines(), ItemSource([], "text")])
def test_an_empty_input_is_refused(loading: Loading, source: Source) -> None:
    with pytest.raises(InvalidInput, match="the input is empty"):
        loading(source)


def test_an_input_of_only_bad_lines_is_refused_even_when_they_may_be_skipped(loading: Loading) -> None:
    with pytest.raises(InvalidInput, match="no items that could be run"):
        loading(Lines(b"bad", b"[]"), on_invalid="skip")


def test_a_blank_text_is_an_item(loading: Loading) -> None:
    loaded, _ = loading(Lines(b'""', b'{"text": " "}'))

    assert loaded.n_items == 2


def test_a_file_is_named_with_its_own_line(loading: Loading, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "a", "custom_id": "x"}\n\n')
    (tmp_path / "b.jsonl").write_bytes(b'\n{"text": "b", "custom_id": "x"}\nbad\n')

    with pytest.raises(InvalidItems) as caught:
        loading(open_source([tmp_path / "a.jsonl", tmp_path / "b.jsonl"]))

    first, second = caught.value.problems
    assert str(first) == (
        f"{tmp_path}/b.jsonl:2: duplicate_id: custom_id 'x' is already the id at {tmp_path}/a.jsonl:1"
    )
    assert (second.file, second.line) == (f"{tmp_path}/b.jsonl", 3)


def test_a_load_that_broke_off_goes_on_where_it_was(loading: Loading) -> None:
    items = [f"text {n}" for n in range(50_000)]
    store = Memory()
    store.room = 1

    with pytest.raises(ConnectionError):
        loading(ItemSource(items, "text"), store=store)
    before = store.appended
    store.room = 10**9
    loaded, _ = loading(ItemSource(items, "text"), store=store)

    assert 0 < before < 50
    assert store.appended == 50
    assert loaded.n_items == 50_000
    assert [item["text"] for item in store.items()] == items


@pytest.mark.parametrize("others", [["other"] * 1500, ["text"] * 500, ["text"] * 1000])
def test_a_load_with_other_items_is_refused(loading: Loading, others: list[str]) -> None:
    store = Memory()
    loading(ItemSource(["text"] * 1500, "text"), store=store)

    with pytest.raises(InvalidState, match="begun with"):
        loading(ItemSource(others, "text"), store=store)


def test_chunks_partition_their_block_within_both_limits(loading: Loading) -> None:
    long = "x" * (CHUNK_TOKENS * 4)
    texts = ["short"] * 300 + [long] * 2 + ["short"] * 100

    _, store = loading(ItemSource(texts, "text"))

    chunks = [chunk for block in store.blocks.values() for chunk in block.chunks]
    assert [chunk.seq_lo for chunk in chunks[1:]] == [chunk.seq_hi for chunk in chunks[:-1]]
    assert (chunks[0].seq_lo, chunks[-1].seq_hi) == (0, len(texts))
    assert [(chunk.seq_lo, chunk.seq_hi) for chunk in chunks] == [
        (0, 256),
        (256, 300),
        (300, 301),
        (301, 302),
        (302, 402),
    ]


@EACH
@given(costs=st.lists(st.integers(1, CHUNK_TOKENS * 2), min_size=1, max_size=600))
def test_a_cut_is_gapless_and_no_chunk_is_above_a_limit_without_need(costs: list[int]) -> None:
    chunks = cut(1000, costs)

    assert [seq for chunk in chunks for seq in range(chunk.seq_lo, chunk.seq_hi)] == list(
        range(1000, 1000 + len(costs))
    )
    for chunk in chunks:
        n_items = chunk.seq_hi - chunk.seq_lo
        assert chunk.cost == sum(costs[chunk.seq_lo - 1000 : chunk.seq_hi - 1000])
        assert n_items <= CHUNK_ITEMS
        assert chunk.cost <= CHUNK_TOKENS or n_items == 1


@EACH
@given(models=st.lists(st.sampled_from(["a", "b", None]), min_size=1, max_size=600))
def test_a_chunk_is_of_one_model(models: list[str | None]) -> None:
    chunks = cut(0, [1] * len(models), models)

    assert [chunk.model for chunk in chunks for _ in range(chunk.seq_lo, chunk.seq_hi)] == models
    for one, following in pairwise(chunks):
        assert one.model != following.model or one.seq_hi - one.seq_lo == CHUNK_ITEMS


def test_what_a_model_may_write_counts_in_the_cost(loading: Loading) -> None:
    items: list[Any] = [{"prompt": "a"}, {"prompt": "a", "params": {"max_new_tokens": 1000}}]

    _, plain = loading(ItemSource(items[:1], "prompt"), task="generate", params={"max_new_tokens": 10})
    _, more = loading(ItemSource(items, "prompt"), task="generate", params={"max_new_tokens": 10, "n": 2})

    assert plain.blocks[0].chunks[0].cost < 20
    assert 2020 <= more.blocks[0].chunks[0].cost < 2050


def test_long_lines_close_a_block_early(loading: Loading) -> None:
    _, store = loading(ItemSource(["x" * 600_000] * 4, "text"))

    assert [block.n_items for block in store.blocks.values()] == [2, 2]


def test_an_unknown_encoding_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"'parquet'; this version reads 'jsonl\+zlib'"):
        parse_block("parquet", b"")


def test_a_wrong_input_is_known_before_there_is_a_job(settings: MakeSettings) -> None:
    intake = Intake(find("classify"), JobSpec(task="classify", model="fake"), Lines(b"bad"), settings=settings())

    with pytest.raises(InvalidItems):
        intake.begin()


def test_a_million_items_are_read_piece_by_piece(loading: Loading) -> None:
    """What was handed out and not yet stored stays within one transaction's worth."""
    store = Memory()
    given_out = 0
    most = 0

    def texts() -> Iterator[str]:
        nonlocal given_out, most
        for n in range(60_000):
            given_out += 1
            most = max(most, given_out - sum(block.n_items for block in store.blocks.values()))
            yield f"text {n}"

    loading(ItemSource(texts(), "text"), store=store)

    assert most <= 34 * BLOCK_ITEMS
