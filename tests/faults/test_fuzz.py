"""Whatever bytes come in, a parser gives items, problems or an error of Textmill's own, and never anything else.

`make faults` tries many more examples; `--hypothesis-seed` repeats a run.
"""

import io
import json
import string
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from jobs.corpus import open_source
from jobs.corpus.base import Fields, Place
from jobs.corpus.source import SNIFFED
from jobs.errors import InvalidInput, InvalidItems, InvalidModel, InvalidParams, Problem, TextmillError
from jobs.intake import Intake
from jobs.model_folder import read_facts
from jobs.models import Registry
from jobs.schemas import JobSpec
from jobs.settings import Settings
from jobs.store import Store
from jobs.tasks import all_tasks, find, resolve, task_adapter
from tests.checker import expected_output

QUICK, LONG = 60, 600
quiet = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
PIECES = (
    *(b'{"text": "', b'"}', b"{", b"}", b"[", b"]", b'"', b",", b":", b"\n", b"\r\n", b"\r", b"\0", b"\xef\xbb\xbf"),
    *(b"\xff\xfe", b"\\ud800", b"\\u0000", b"NaN", b"1e999", b"9" * 400, b"[" * 300, b"text", b"custom_id", b"params"),
    *(b"\xf0\x9f\x92\xa9", b"\xe2\x80\xae", b"\xed\xa0\x80", b" ", b"\t", b"null", b"true", b"-", b"'", b'""'),
)
"""What breaks parsers, put together at random."""
BYTES = st.lists(st.sampled_from(PIECES) | st.binary(max_size=12), max_size=30).map(b"".join)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(params=[QUICK, pytest.param(LONG, marks=pytest.mark.thorough)])
def examples(request: pytest.FixtureRequest) -> int:
    """How many examples a test tries."""
    number: int = request.param
    return number


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".txt"])
def test_a_file_of_any_bytes_gives_items_and_problems(examples: int, suffix: str, tmp_path: Path) -> None:
    """Row 25."""
    path = tmp_path / f"in{suffix}"

    @settings(max_examples=examples, deadline=None, suppress_health_check=quiet)
    @given(content=BYTES, text=st.sampled_from([None, "text", "b"]), identity=st.sampled_from([None, "custom_id", "a"]))
    def holds(content: bytes, text: str | None, identity: str | None) -> None:
        path.write_bytes(content)
        named = {} if suffix == ".txt" else {"text_field": text, "id_field": identity}
        _takes(open_source(path, max_line_bytes=1024, **named), tmp_path)

    holds()


def test_a_pipe_of_any_bytes_gives_items_and_problems(examples: int) -> None:
    """Row 25."""

    @settings(max_examples=examples, deadline=None, suppress_health_check=quiet)
    @given(content=BYTES)
    def holds(content: bytes) -> None:
        place = Place("pipe", Path("-"), lambda: io.BufferedReader(io.BytesIO(content)))  # type: ignore[arg-type]
        with suppress(InvalidInput):
            lines = list(SNIFFED.read(place, Fields(main="text"), 1024))
            assert all(isinstance(line, (bytes, Problem)) for _, line in lines)

    holds()


@pytest.mark.parametrize("name", [task.name for task in all_tasks()])
def test_an_item_that_the_intake_lets_in_is_answered_or_refused_by_a_code(examples: int, name: str) -> None:
    """Row 25. The fake engine's answer stands for the model's."""
    task = find(name)
    fields = list(task.input.model_fields)

    @settings(max_examples=examples, deadline=None, suppress_health_check=quiet)
    @given(
        value=st.dictionaries(
            st.sampled_from([*fields, "other"]), JSON | st.text(alphabet=string.printable), max_size=4
        )
    )
    @example(value={task.main_field: "\u202e", "params": {}})
    def holds(value: dict[str, Any]) -> None:
        try:
            line = orjson.dumps(value)
            task_adapter(task).validate_json(b"[" + line + b"]")
        except (orjson.JSONEncodeError, ValueError):
            return  # the intake's matter
        with suppress(TextmillError):
            assert isinstance(expected_output(name, line, {}), (dict, str))

    holds()


@pytest.mark.parametrize("name", [task.name for task in all_tasks()])
def test_any_params_are_taken_or_refused_by_name(examples: int, name: str) -> None:
    """Row 25."""
    known = list(find(name).params.model_fields)

    @settings(max_examples=examples, deadline=None, suppress_health_check=quiet)
    @given(params=st.dictionaries(st.sampled_from(known) | st.text(max_size=6), JSON, max_size=4))
    def holds(params: dict[str, Any]) -> None:
        with suppress(InvalidParams):
            resolve(name, params)

    holds()


def test_a_model_s_folder_of_any_json_is_known_or_refused(examples: int, tmp_path: Path) -> None:
    """Row 27."""
    (tmp_path / "model.safetensors").write_bytes(b"")
    heads = st.sampled_from(["BertForSequenceClassification", "LlamaForCausalLM", "T5ForConditionalGeneration", "x"])
    config = st.fixed_dictionaries(
        {"architectures": st.lists(heads, max_size=2) | JSON},
        optional={"auto_map": JSON, "hidden_size": JSON, "max_position_embeddings": JSON, "text_config": JSON},
    )

    @settings(max_examples=examples, deadline=None, suppress_health_check=quiet)
    @given(config=config | JSON, tokenizer=st.dictionaries(st.just("chat_template"), JSON) | JSON, index=JSON | BYTES)
    def holds(config: Any, tokenizer: Any, index: Any) -> None:
        for name, value in (
            ("config.json", config),
            ("tokenizer_config.json", tokenizer),
            ("sentence_bert_config.json", index),
        ):
            (tmp_path / name).write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
        with suppress(InvalidModel):
            assert read_facts(tmp_path).role.tasks

    holds()


def test_a_models_file_of_any_bytes_is_synced_or_refused(examples: int, tmp_path: Path) -> None:
    """Row 27."""
    store = Store.open(f"sqlite:///{tmp_path / 'textmill.db'}")
    path = tmp_path / "models.toml"
    lines = st.sampled_from(
        ['[models.a]\npath = "/nowhere"', '[models."../x"]', "path = 3", "engine = 'fake'", "[[models]]", "a = {b = 1}"]
    )
    texts = st.lists(lines | st.text(max_size=10), max_size=6)

    @settings(max_examples=examples, deadline=None, suppress_health_check=quiet)
    @given(content=BYTES | texts.map(lambda parts: "\n".join(parts).encode()))
    def holds(content: bytes) -> None:
        path.write_bytes(content)
        with suppress(TextmillError):
            Registry(store).sync(path)

    holds()
    store.close()


def test_a_gguf_of_any_bytes_is_refused_by_name(examples: int, tmp_path: Path) -> None:
    """Row 27. The head of a real one, then anything."""
    from worker.gguf import convert

    path, folder = tmp_path / "model.gguf", tmp_path / "made"
    folder.mkdir()
    head = st.sampled_from([b"GGUF", b"GGUF\3\0\0\0", b"GGUF\3\0\0\0" + b"\0" * 16, b"GGUF\3\0\0\0" + b"\xff" * 16])

    @settings(max_examples=examples, deadline=None, suppress_health_check=quiet)
    @given(content=st.tuples(head | st.just(b""), st.binary(max_size=200)).map(b"".join))
    def holds(content: bytes) -> None:
        path.write_bytes(content)
        with pytest.raises(InvalidModel):
            convert(path, folder)

    holds()


def _takes(source: Any, home: Path) -> None:
    """Put a source through the intake, as a submit does."""
    spec = JobSpec(task="classify", model="fake")
    intake = Intake(
        find("classify"), spec, source, settings=Settings(home=home, max_line_bytes=1024), on_invalid="skip"
    )
    with closing(intake), suppress(InvalidInput, InvalidItems):
        assert all(block.n_items for block in intake.begin())
