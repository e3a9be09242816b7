"""Arrow files, datasets as Hugging Face saves them, and the URLs of its Hub as far as they lead without it."""

import gzip
from pathlib import Path
from pydoc_data import topics

import fsspec
import orjson
import pyarrow
import pytest
from pyarrow import feather, ipc

from jobs.corpus import Source, open_source
from jobs.errors import InvalidInput, Problem

TOPICS = dict(sorted(topics.topics.items()))
"""The language reference that every Python brings: some 80 texts, up to 80,000 characters."""


def items(source: Source) -> list[dict[str, object]]:
    return [orjson.loads(line) for _, line in source]  # type: ignore[arg-type]


def table(names: list[str]) -> pyarrow.Table:
    return pyarrow.table({"name": names, "text": [TOPICS[name] for name in names]})


def stream(path: Path, found: pyarrow.Table) -> None:
    with ipc.new_stream(path, found.schema) as writer:
        writer.write_table(found, max_chunksize=7)


def saved(folder: Path, names: list[str]) -> Path:
    """A dataset in two files, as `Dataset.save_to_disk` of datasets 4 writes it."""
    folder.mkdir(parents=True)
    files = [f"data-0000{number}-of-00002.arrow" for number in (0, 1)]
    half = len(names) // 2
    for file, part in zip(files, (names[:half], names[half:]), strict=True):
        stream(folder / file, table(part))
    state = {"_data_files": [{"filename": file} for file in files], "_split": folder.name, "_fingerprint": "0"}
    (folder / "state.json").write_bytes(orjson.dumps(state))
    (folder / "dataset_info.json").write_bytes(b"{}")
    return folder


def several(folder: Path) -> Path:
    names = list(TOPICS)
    saved(folder / "train", names[:-10])
    saved(folder / "test", names[-10:])
    (folder / "dataset_dict.json").write_bytes(b'{"splits": ["train", "test"]}')
    return folder


def test_arrow_streams_and_files_give_an_item_a_row(tmp_path: Path) -> None:
    names = list(TOPICS)
    stream(tmp_path / "a.arrow", table(names))
    feather.write_feather(table(names), tmp_path / "b.feather")
    (tmp_path / "c.arrow.gz").write_bytes(gzip.compress((tmp_path / "a.arrow").read_bytes()))

    for name in ("a.arrow", "b.feather", "c.arrow.gz"):
        found = items(open_source(tmp_path / name, id_field="name"))
        assert [each["text"] for each in found] == list(TOPICS.values())
        assert [each["custom_id"] for each in found] == names


def test_damaged_arrow_files_say_so(tmp_path: Path) -> None:
    stream(tmp_path / "a.arrow", table(list(TOPICS)))
    feather.write_feather(table(list(TOPICS)), tmp_path / "b.feather")
    (tmp_path / "cut.feather").write_bytes((tmp_path / "b.feather").read_bytes()[:5000])
    (tmp_path / "cut.arrow").write_bytes((tmp_path / "a.arrow").read_bytes()[:5000])
    (tmp_path / "none.arrow").write_bytes(b"this is no arrow file at all")

    for name in ("cut.feather", "cut.arrow", "none.arrow"):
        with pytest.raises(InvalidInput, match=rf"{name}: cannot be read as Arrow"):
            list(open_source(tmp_path / name))
    with pytest.raises(InvalidInput, match="no column 'body'; its columns are: name, text"):
        list(open_source(tmp_path / "a.arrow", text_field="body"))


def test_a_row_that_is_too_long_is_a_problem_of_its_own(tmp_path: Path) -> None:
    stream(tmp_path / "a.arrow", table(list(TOPICS)))

    long = [each for _, each in open_source(tmp_path / "a.arrow", max_line_bytes=50_000) if isinstance(each, Problem)]

    assert {each.code for each in long} == {"line_too_long"}
    assert 0 < len(long) < len(TOPICS)


def test_a_saved_dataset_is_its_rows_in_its_order(tmp_path: Path) -> None:
    folder = saved(tmp_path / "one", list(TOPICS))

    source = open_source(folder)

    assert [each["name"] for each in items(source)] == list(TOPICS)
    assert source.locate(len(TOPICS))[0] == str(folder / "data-00001-of-00002.arrow")


def test_a_split_is_named_behind_the_folder(tmp_path: Path) -> None:
    folder = several(tmp_path / "many")

    assert [each["name"] for each in items(open_source(f"{folder}#test"))] == list(TOPICS)[-10:]
    with pytest.raises(InvalidInput, match=r"several splits; name one: .*many#train, .*many#test"):
        open_source(folder)
    with pytest.raises(InvalidInput, match=r"no split 'dev': .*many#train"):
        open_source(f"{folder}#dev")
    with pytest.raises(InvalidInput, match="has no splits"):
        open_source(f"{folder}/train#dev")


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({"_data_files": [{"filename": "../../secret.arrow"}]}, "is no name of a file beside it"),
        ({"_data_files": [{"filename": "a.arrow"}], "_indices_data_files": [{"filename": "i"}]}, "flatten_indices"),
        ([], "is no JSON object"),
    ],
)
def test_a_dataset_that_is_not_as_it_was_saved_is_refused(tmp_path: Path, state: object, says: str) -> None:
    folder = saved(tmp_path / "one", list(TOPICS))
    (folder / "state.json").write_bytes(orjson.dumps(state))

    with pytest.raises(InvalidInput, match=says):
        open_source(folder)


def test_the_hub_has_a_file_system_and_is_asked_offline_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    assert fsspec.get_filesystem_class("hf").protocol == "hf"
    with pytest.raises(InvalidInput, match="hf://datasets/some/texts: "):
        open_source("hf://datasets/some/texts")
