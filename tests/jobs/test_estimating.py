"""What a dry run says of an input, and that it leaves nothing behind."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from jobs.client import Client
from jobs.errors import InvalidParams, ModelMismatch
from jobs.estimating import windows_of
from jobs.models import ModelSpec, Registry
from jobs.settings import Settings
from jobs.store import Store
from jobs.tokens import input_limit, tokens_of
from tests.deployment import NOWHERE
from tests.rows import rows


@pytest.fixture
def client(store: Store, settings: Callable[..., Settings]) -> Iterator[Client]:
    with Client(settings(redis_url=NOWHERE), store=store) as opened:
        yield opened


def folder_model(folder: Path, **given: Any) -> ModelSpec:
    """A classifier whose folder has a tokenizer of words and a configuration."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_bytes(orjson.dumps({"max_position_embeddings": 64}))
    fields = {"name": "words", "path": str(folder), "kind": "encoder", "head": "classify", "tasks": ("classify",)}
    return ModelSpec(**{**fields, **given})


def test_an_input_is_counted_and_nothing_is_stored(client: Client, store: Store, settings: Any) -> None:
    texts: list[Any] = ["one two", "one two", "three", {"text": "word " * 600}, {"text": 5}, "one two"]

    found = client.estimate("classify", texts, model="fake")

    assert (found.items, found.invalid, found.duplicates, found.chunks) == (5, 1, 2, 1)
    assert [(each.line, each.code) for each in found.problems] == [(5, "invalid_field")]
    assert found.tokens.counted_by == "tokenizer"
    assert (found.tokens.total, found.tokens.answers) == (2 + 2 + 1 + 600 + 2, 0)
    assert (found.tokens.shortest, found.tokens.median, found.tokens.longest) == (1, 2, 600)
    assert [(each.up_to, each.items) for each in found.tokens.histogram] == [(1, 1), (2, 3), (1024, 1)]
    assert found.long is not None
    assert (found.long.items, found.long.limit, found.long.long_text, found.long.windows) == (1, 512, "split", 2)
    assert found.time is None
    assert rows(store, "SELECT count(*) FROM jobs")[0][0] == 0
    assert not [*(settings().home / "reports").glob("*")]


def test_what_becomes_of_long_texts_is_told_as_the_params_and_the_task_say(client: Client) -> None:
    texts = ["word " * 600, "word " * 512]
    cut, refused, never = (
        client.estimate("classify", texts, model="fake", params={"long_text": "truncate"}).long,
        client.estimate("classify", texts, model="fake", params={"long_text": "error"}).long,
        client.estimate("fill_mask", texts, model="fake").long,
    )

    assert cut is not None
    assert refused is not None
    assert never is not None
    assert (cut.items, cut.tokens_lost, cut.windows) == (1, 88, 0)
    assert (refused.long_text, never.long_text) == ("error", "error")


def test_answers_and_lists_of_texts_count(client: Client) -> None:
    written = client.estimate("generate", ["a b"], model="fake", params={"max_new_tokens": 50})
    ranked = client.estimate("rerank", [{"query": "q", "documents": ["a b", "c " * 600]}], model="fake")
    chat = [{"messages": [{"role": "user", "content": "one two three"}]}]

    assert written.tokens.answers == 50
    assert ranked.tokens.total == 3 + 601
    assert ranked.long is not None
    assert ranked.long.items == 1
    assert client.estimate("generate", chat, model="fake").tokens.total >= 3


def test_the_models_own_tokenizer_counts_where_it_lies_in_a_file(tmp_path: Path, client: Client) -> None:
    spec = folder_model(tmp_path / "model")
    own = client.estimate("classify", ["a b c", "a " * 70], model=spec)
    (tmp_path / "model" / "tokenizer.json").unlink()
    rough = client.estimate("classify", ["a b c", "a " * 70], model=spec)

    assert (own.tokens.counted_by, own.tokens.total) == ("tokenizer", 73)
    assert own.long is not None
    assert (own.long.limit, own.long.items) == (64, 1)
    assert (rough.tokens.counted_by, rough.tokens.total) == ("bytes", 2 + 36)
    assert client.registry.list() == Registry(client._store).list()


def test_a_spoilt_tokenizer_is_none(tmp_path: Path) -> None:
    spec = folder_model(tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").write_text("{nope")

    assert tokens_of(spec).by == "bytes"


def test_a_causal_model_keeps_room_for_the_answer(tmp_path: Path) -> None:
    spec = folder_model(tmp_path / "model", kind="causal", head="generate", tasks=("generate",), context_tokens=2048)

    assert input_limit(spec, None) == 2048 - 128
    assert input_limit(spec.model_copy(update={"context_tokens": None}), None) is None


def test_what_a_submit_refuses_is_refused(client: Client, tmp_path: Path) -> None:
    with pytest.raises(InvalidParams):
        client.estimate("classify", ["a"], model="fake", params={"top": 1})
    with pytest.raises(ModelMismatch):
        client.estimate("embed", ["a"], model=folder_model(tmp_path / "model"))


@pytest.mark.parametrize(("length", "windows"), [(512, 1), (513, 2), (992, 2), (993, 3)])
def test_windows_overlap(length: int, windows: int) -> None:
    assert windows_of(length, 512) == windows
