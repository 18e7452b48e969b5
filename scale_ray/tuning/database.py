"""The database that may keep an Optuna study."""

from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from scale_ray.config import ConfigError
from scale_ray.urls import redacted


def open_database(url: str) -> BaseStorage:
    """Optuna's tables in the database, created where they are missing.

    Raises:
        ConfigError: it is no URL of a database, or the database cannot be used. The message shows no password.
    """
    try:
        password = make_url(url).password
    except (SQLAlchemyError, ValueError):
        raise ConfigError("--study-url: no database URL: write sqlite:///FILE or postgresql://USER@HOST/NAME") from None
    try:
        return RDBStorage(url)
    except Exception as error:  # noqa: BLE001 - each driver has errors of its own
        reason = redacted(str(error).partition("\n")[0])
        if password:
            reason = reason.replace(str(password), "***")
        raise ConfigError(
            f"--study-url {redacted(url)}: cannot be used ({reason}): check it, or leave it out"
        ) from None
