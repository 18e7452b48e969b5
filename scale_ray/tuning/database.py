"""The database that may keep an Optuna study: its URL, and a password that nobody else is to see."""

import os
from pathlib import Path

from optuna.storages import BaseStorage, RDBStorage

from scale_ray.config import ConfigError

VARIABLE = "SCALE_RAY_STUDY_URL"
FILE_VARIABLE = f"{VARIABLE}_FILE"
_FORMS = "write sqlite:///FILE or postgresql://USER@HOST/NAME"


def find_study_url(given: str | None) -> str | None:
    """The URL that was given, else that of the environment; None without either.

    Args:
        given: on the command line, which other users of the machine see, and Ray's dashboard shows.

    Raises:
        ConfigError: a password on the command line, no URL, or a file that cannot be read.
    """
    if given is not None:
        from sqlalchemy.engine import make_url

        redacted(given)
        if make_url(given).password is not None and given != os.environ.get(VARIABLE):
            raise ConfigError(
                "--study-url: a password on the command line is seen by others, as in Ray's job table: put the whole "
                f"URL into the environment variable {VARIABLE}, or into a file that {FILE_VARIABLE} names"
            )
        return given
    if url := os.environ.get(VARIABLE):
        return url
    if file := os.environ.get(FILE_VARIABLE):
        try:
            return Path(file).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a text"
            raise ConfigError(f"{FILE_VARIABLE}={file}: cannot be read ({reason}): check the file") from None
    return None


def redacted(url: str) -> str:
    """The URL as it may be shown: without its password, and without its parameters, which may hold one.

    Raises:
        ConfigError: it is no URL of a database. The message does not show it.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return make_url(url).set(query={}).render_as_string(hide_password=True)
    except (SQLAlchemyError, ValueError):
        raise ConfigError(f"--study-url: no database URL: {_FORMS}") from None


def open_database(url: str) -> BaseStorage:
    """Optuna's tables in the database, created where they are missing.

    Raises:
        ConfigError: the database cannot be used.
    """
    from sqlalchemy.engine import make_url

    shown = redacted(url)
    try:
        return RDBStorage(url)
    except Exception as error:  # noqa: BLE001 - each driver has errors of its own
        reason = str(error).partition("\n")[0].replace(url, shown)
        if password := make_url(url).password:
            reason = reason.replace(str(password), "***")
        raise ConfigError(f"--study-url {shown}: cannot be used ({reason}): check it, or leave it out") from None
