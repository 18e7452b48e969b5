"""The database of a search: where its URL is from, and that nobody sees its password."""

from pathlib import Path

import pytest

from scale_ray.config import ConfigError
from scale_ray.tuning.database import find_study_url, open_database, redacted

SECRET = "correct-horse"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SCALE_RAY_STUDY_URL", "SCALE_RAY_STUDY_URL_FILE"):
        monkeypatch.delenv(name, raising=False)


def test_the_url_is_of_the_command_line_or_of_the_environment_or_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_study_url(None) is None
    (tmp_path / "url").write_text(f"postgresql://ann:{SECRET}@host/file\n")
    monkeypatch.setenv("SCALE_RAY_STUDY_URL_FILE", str(tmp_path / "url"))
    assert find_study_url(None) == f"postgresql://ann:{SECRET}@host/file"
    monkeypatch.setenv("SCALE_RAY_STUDY_URL", f"postgresql://ann:{SECRET}@host/environment")
    assert find_study_url(None) == f"postgresql://ann:{SECRET}@host/environment"
    assert find_study_url("sqlite:///study.db") == "sqlite:///study.db"


def test_a_password_on_the_command_line_is_refused_and_not_shown() -> None:
    with pytest.raises(
        ConfigError, match="into the environment variable SCALE_RAY_STUDY_URL, or into a file"
    ) as raised:
        find_study_url(f"postgresql://ann:{SECRET}@host/studies")
    assert SECRET not in str(raised.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCALE_RAY_STUDY_URL_FILE", str(tmp_path / "url"))
    with pytest.raises(ConfigError, match=rf"^SCALE_RAY_STUDY_URL_FILE={tmp_path}/url: cannot be read \(No such file"):
        find_study_url(None)


def test_what_is_shown_has_neither_password_nor_parameters() -> None:
    url = f"postgresql://ann:{SECRET}@host:5432/studies?sslpassword={SECRET}"
    assert redacted(url) == "postgresql://ann:***@host:5432/studies"


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "",
        f"postgresql://ann:{SECRET}@host:port/",
        f"postgresql://ann:{SECRET}@[::1/x",
        f"nothing://ann:{SECRET}@host/x",
        f"postgresql+nothing://ann:{SECRET}@host/x",
        f"sqlite:////no/such/folder/{SECRET}?password={SECRET}",
        f"redis://:{SECRET}@host/0",
    ],
)
def test_a_database_that_cannot_be_used_is_one_line_without_the_password(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^--study-url") as raised:
        open_database(url)
    assert "\n" not in str(raised.value)
    assert SECRET not in str(raised.value) or url.startswith("sqlite")
    if "port/" in url:
        with pytest.raises(ConfigError, match=r"^--study-url: no database URL: write sqlite:///FILE or postgresql"):
            find_study_url(url)
