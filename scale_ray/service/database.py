"""The service's table: one row for each study. What is done, the store knows; the row says what somebody wants.

Beside it lie the tokens and the log of who did what.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

from sqlalchemy import String, Text, create_engine, event, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from scale_ray.config import ConfigError
from scale_ray.urls import redacted

# What it is doing. `waiting`: for places; `ending`: its trainings save their state.
State = Literal["waiting", "starting", "running", "ending", "paused", "cancelled", "done", "failed"]
STATES: tuple[State, ...] = get_args(State)
OVER: frozenset[State] = frozenset({"cancelled", "done", "failed"})


class _Base(DeclarativeBase):
    pass


class StudyRow(_Base):
    """A study that was submitted."""

    __tablename__ = "studies"

    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    owner: Mapped[str] = mapped_column(String(200), index=True)
    document: Mapped[str] = mapped_column(Text)  # the submission, as JSON
    store: Mapped[str] = mapped_column(String(200))  # its name in the settings
    priority: Mapped[int]
    share: Mapped[float]
    cells: Mapped[int]
    done: Mapped[int] = mapped_column(default=0)
    failed: Mapped[int] = mapped_column(default=0)
    wanted: Mapped[str] = mapped_column(String(20), default="run")  # of it: run, pause, cancel
    state: Mapped[str] = mapped_column(String(20), default="waiting")
    problem: Mapped[str] = mapped_column(Text, default="")  # why it is in that state, for a person
    places: Mapped[int] = mapped_column(default=0)  # that it was given
    attempt: Mapped[int] = mapped_column(default=0)  # jobs so far
    job: Mapped[str] = mapped_column(String(200), default="")  # Ray's id of the latest; empty: none is wanted yet
    restart: Mapped[bool] = mapped_column(default=False)  # end the job, and start another one
    fruitless: Mapped[int] = mapped_column(default=0)  # jobs in a row that ended without a new record
    last_words: Mapped[str] = mapped_column(Text, default="")  # of the latest of these jobs
    not_before: Mapped[float] = mapped_column(default=0.0)  # seconds since 1970: no job is submitted earlier
    ending_since: Mapped[float] = mapped_column(default=0.0)  # seconds since 1970; 0: it is not ending
    gpu_seconds: Mapped[str] = mapped_column(Text, default="{}")  # day, as a number since 1970 -> seconds of GPUs
    created: Mapped[float]
    changed: Mapped[float]

    @property
    def gpu_seconds_by_day(self) -> dict[int, float]:
        return {int(day): seconds for day, seconds in json.loads(self.gpu_seconds).items()}

    def add_gpu_seconds(self, seconds: float, moment: float) -> None:
        """Count GPUs that were used; what is older than a week is forgotten."""
        day = int(moment // 86400)
        found = {each: used for each, used in self.gpu_seconds_by_day.items() if each > day - 8}
        self.gpu_seconds = json.dumps(found | {day: found.get(day, 0.0) + seconds})


class TokenRow(_Base):
    """A token, by its digest: the token itself is shown once."""

    __tablename__ = "tokens"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    owner: Mapped[str] = mapped_column(String(200))
    scope: Mapped[str] = mapped_column(String(20))
    note: Mapped[str] = mapped_column(String(200), default="")
    created: Mapped[float]


class Database:
    """The tables at an URL, which are made where they are missing.

    Raises:
        ConfigError: from the constructor, where the database cannot be reached or its driver is not installed.
    """

    def __init__(self, url: str):
        try:
            parsed = make_url(url)
            if parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:"):
                Path(str(parsed.database)).expanduser().parent.mkdir(parents=True, exist_ok=True)
            self._engine = create_engine(parsed)
            if parsed.get_backend_name() == "sqlite":
                event.listen(self._engine, "connect", _prepare_sqlite)
            _Base.metadata.create_all(self._engine)
        except ModuleNotFoundError as error:
            raise ConfigError(f"database {redacted(url)}: {error}: install the driver that the URL names") from None
        except (ArgumentError, OperationalError, OSError) as error:
            reason = str(getattr(error, "orig", None) or error).partition("\n")[0]
            raise ConfigError(
                f"database {redacted(url)}: cannot be opened ({reason}): write sqlite:///FILE or "
                "postgresql+psycopg://USER@HOST/NAME"
            ) from None

    def close(self) -> None:
        """Close the connections that are kept for the next session."""
        self._engine.dispose()

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A transaction: committed at the end of the block, rolled back where it raises."""
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            yield session

    def studies(self, *, owner: str | None = None) -> list[StudyRow]:
        """The studies, the newest first."""
        query = select(StudyRow).order_by(StudyRow.created.desc(), StudyRow.name)
        if owner is not None:
            query = query.where(StudyRow.owner == owner)
        with self.session() as session:
            return list(session.scalars(query))

    def study(self, name: str) -> StudyRow | None:
        with self.session() as session:
            return session.get(StudyRow, name)

    def answers(self) -> bool:
        """Whether the database can be asked."""
        try:
            with self.session() as session:
                session.scalar(select(StudyRow.name).limit(1))
        except SQLAlchemyError:
            return False
        return True


def _prepare_sqlite(connection: Any, _: object) -> None:
    """Readers do not wait for the writer, and a writer waits for another instead of failing."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA busy_timeout=30000")
    cursor.close()


def now() -> float:
    return time.time()
