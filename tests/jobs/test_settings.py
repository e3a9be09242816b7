"""Settings come from arguments, the environment, secret files and a TOML file, and wrong ones are named."""

import re
from pathlib import Path

import pytest

from jobs.errors import InvalidSettings
from jobs.local.process import environment
from jobs.settings import Settings, load_settings


def test_queues_are_a_list_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXTMILL_QUEUES", "fast, slow,")

    assert load_settings().queues == ("fast", "slow")


def test_an_empty_list_of_queues_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXTMILL_QUEUES", " ,")

    with pytest.raises(InvalidSettings, match="queues"):
        load_settings()


def test_a_wrong_value_is_named_with_what_is_allowed() -> None:
    with pytest.raises(InvalidSettings, match=r"lease_s: .*greater than or equal to 1.*given 0") as caught:
        load_settings(lease_s=0, device="gpu")

    assert "device" in str(caught.value)


def test_a_secret_comes_from_the_file_its_variable_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "url"
    secret.write_text("postgresql://mill:s3cret@db/mill\n")
    monkeypatch.setenv("TEXTMILL_DATABASE_URL_FILE", str(secret))

    assert load_settings().effective_database_url == "postgresql+psycopg://mill:s3cret@db/mill"


def test_the_environment_wins_over_the_file_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "textmill.toml").write_text('lease_s = 7\nshift_s = 9\nqueues = ["a", "b"]\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TEXTMILL_LEASE_S", "5")

    settings = load_settings()

    assert (settings.lease_s, settings.shift_s, settings.queues) == (5, 9, ("a", "b"))


def test_a_file_that_cannot_be_read_is_a_settings_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "textmill.toml").write_text("lease_s = = 7")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidSettings, match="cannot be read"):
        load_settings()

    (tmp_path / "textmill.toml").unlink()
    monkeypatch.setenv("TEXTMILL_REDIS_URL_FILE", str(tmp_path / "missing"))
    with pytest.raises(InvalidSettings, match="missing"):
        load_settings()


def test_home_may_begin_with_a_tilde(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    assert load_settings(home="~/mill").home == tmp_path / "mill"


@pytest.mark.parametrize("queues", [("one",), ("fast", "slow")])
def test_a_child_process_reads_the_same_queues(monkeypatch: pytest.MonkeyPatch, queues: tuple[str, ...]) -> None:
    handed_on = environment(load_settings(queues=queues))

    monkeypatch.setenv("TEXTMILL_QUEUES", handed_on["TEXTMILL_QUEUES"])

    assert load_settings().queues == queues


def test_a_redis_password_in_the_query_is_refused_without_repeating_it() -> None:
    with pytest.raises(InvalidSettings, match="user and password stand before the host") as caught:
        load_settings(redis_url="redis://cache:6379/0?password=hush")

    assert "hush" not in str(caught.value)


def test_a_redis_url_of_another_scheme_is_refused_without_repeating_its_password() -> None:
    with pytest.raises(InvalidSettings, match="redis_url: a Redis URL begins with redis:// or rediss://") as caught:
        load_settings(redis_url="http://:hush@cache")

    assert "hush" not in str(caught.value)


def test_a_home_that_is_a_file_is_called_one(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(InvalidSettings, match="file is a file; the home is a folder"):
        load_settings(home=tmp_path / "file")


def test_the_readme_names_every_setting_with_its_default() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| `TEXTMILL_(\w+)` \| `?([^`|]*?)`? \|", readme, re.MULTILINE))

    assert told.keys() == {name.upper() for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        if name not in ("home", "queues"):
            assert told[name.upper()].strip() == ("" if field.default in (None, ()) else str(field.default)), name
