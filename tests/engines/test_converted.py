"""Converted models: made once whoever asks, made anew when the model changes, never seen half-made."""

import threading
from pathlib import Path

import pytest

from jobs.errors import ModelFailed
from worker.engines.converted import converted


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}", encoding="utf-8")
    return folder


class Maker:
    """Makes a conversion of one file, and counts."""

    def __init__(self, *, breaks: bool = False) -> None:
        self.made, self._breaks = 0, breaks
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def __call__(self, folder: Path) -> None:
        (folder / "weights").write_text("half", encoding="utf-8")
        self.may_go_on.wait(20)
        if self._breaks:
            raise RuntimeError("disk full")
        (folder / "weights").write_text("whole", encoding="utf-8")
        self.made += 1


def test_a_conversion_is_found_again(model: Path, tmp_path: Path) -> None:
    make = Maker()

    first = converted(tmp_path / "cache", [model], "recipe", make)
    second = converted(tmp_path / "cache", [model], "recipe", make)

    assert first == second
    assert make.made == 1
    assert (first / "weights").read_text(encoding="utf-8") == "whole"


@pytest.mark.parametrize("change", ["content", "file", "recipe"])
def test_another_model_or_recipe_is_another_conversion(model: Path, tmp_path: Path, change: str) -> None:
    make = Maker()
    first = converted(tmp_path / "cache", [model], "recipe", make)

    if change == "content":
        (model / "config.json").write_text("[]", encoding="utf-8")
    if change == "file":
        (model / "more.json").write_text("{}", encoding="utf-8")
    second = converted(tmp_path / "cache", [model], "other" if change == "recipe" else "recipe", make)

    assert first != second
    assert make.made == 2


def test_two_at_once_make_it_once(model: Path, tmp_path: Path) -> None:
    make = Maker()
    make.may_go_on.clear()
    found: list[Path] = []
    ask = [
        threading.Thread(target=lambda: found.append(converted(tmp_path / "cache", [model], "recipe", make)))
        for _ in range(2)
    ]

    for thread in ask:
        thread.start()
    make.may_go_on.set()
    for thread in ask:
        thread.join(20)

    assert make.made == 1
    assert len(set(found)) == 1


def test_what_breaks_off_leaves_nothing_to_be_found(model: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="disk full"):
        converted(tmp_path / "cache", [model], "recipe", Maker(breaks=True))

    make = Maker()
    folder = converted(tmp_path / "cache", [model], "recipe", make)

    assert make.made == 1
    assert [entry.name for entry in (tmp_path / "cache").iterdir() if entry.is_dir()] == [folder.name]


def test_what_a_killed_process_left_is_swept_away(model: Path, tmp_path: Path) -> None:
    folder = converted(tmp_path / "cache", [model], "recipe", Maker())
    folder.rename(folder.with_suffix(".making"))
    (folder.with_suffix(".making") / "rubbish").touch()

    again = converted(tmp_path / "cache", [model], "recipe", Maker())

    assert sorted(file.name for file in again.iterdir()) == ["weights"]


def test_without_a_place_to_keep_it_nothing_is_converted(model: Path) -> None:
    with pytest.raises(ModelFailed, match="no folder"):
        converted(None, [model], "recipe", Maker())
