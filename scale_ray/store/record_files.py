"""Records in a store: under which names they lie, and which one holds.

    records/<id>.json         of a trial that is done
    records/<id>.failed.json  of a trial that failed

Two drivers may have trained the same trial, where one was paused and its lease was taken over. Its failure may then
come at any time, also at the moment at which the other driver writes the result. A folder has no exchange that is made
only if the old content is a certain one. So a failure has a name of its own: whatever comes when, it replaces nothing
but a failure. A done record holds, whatever lies beside it.

Version 0.1.0 wrote failures under the name of a done record. They are read, and hold until there is another record.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any, Literal, TypeVar

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from scale_ray.config import RECIPE_VERSION, ConfigError, TrialConfig
from scale_ray.errors import shown
from scale_ray.identity import identity
from scale_ray.records import SCHEMA_VERSION, Record
from scale_ray.store.files import Files
from scale_ray.store.filesystems import StoreError
from scale_ray.store.sealed import RECORD, seal, unseal

Status = Literal["done", "failed", "missing"]

R = TypeVar("R", bound=Record)

_STEM = re.compile(r"([0-9a-f]{64})(\.failed)?")
_START = re.compile(r"[0-9a-f]{4,64}")


def status_of(record: Record | None) -> Status:
    """A record of another recipe version counts as `missing`."""
    return record.status if record is not None and record.recipe_version == RECIPE_VERSION else "missing"


def is_current(record: Record | None) -> bool:
    """Whether this record answers its cell: it is done, and of this recipe version."""
    return status_of(record) == "done"


def is_start(text: str) -> bool:
    """Whether a person may mean a record by these first characters of its id: four hex digits or more."""
    return _START.fullmatch(text) is not None


class RecordFiles:
    """The records of a store; `Store` has the description of its methods."""

    def __init__(self, files: Files):
        self._files = files

    def write(self, record: Record) -> None:
        """Write a record; a failure only where there is no answer."""
        if record.status == "done" or not self.answers(record.id):  # an answer that comes now holds all the same
            self._files.write(record_file(record.id, record.status), seal(record.to_json(), RECORD))

    def read(self, trial_id: str) -> Record | None:
        record = self._read(record_file(trial_id))
        if is_current(record) or (failure := self._read(record_file(trial_id, "failed"))) is None:
            return record
        return _holding([failure, self._read(record_file(trial_id))])  # the trial may have ended since the first look

    def read_done(self, trial_id: str) -> Record | None:
        record = self._read(record_file(trial_id))
        return record if is_current(record) else None

    def answers(self, trial_id: str) -> bool:
        return self.read_done(trial_id) is not None

    def remove_overcome(self) -> None:
        """Remove the failures of trials that are done. No other driver may be alive."""
        failed = [trial_id for trial_id, names in self._listed().items() if len(names) == 2]
        self._files.delete_many([record_file(trial_id, "failed") for trial_id in failed if self.answers(trial_id)])

    def ids(self) -> list[str]:
        return list(self._listed())

    def stamps(self) -> dict[str, str]:
        found = self._files.stamps("records")

        def stamp(names: list[str]) -> str:
            return " ".join(found.get(name.removeprefix("records/"), "-") for name in names)

        return {trial_id: stamp(names) for trial_id, names in self._grouped(found).items()}

    def read_as(self, kind: type[R], ids: Iterable[str] | None) -> Iterator[R]:
        listed = self._listed()
        wanted = listed if ids is None else [trial_id for trial_id in ids if trial_id in listed]
        found = self._files.read_many(name for trial_id in wanted for name in listed[trial_id])
        for _, files in groupby(found, key=lambda file: file[0].partition(".")[0]):
            record = _holding([self._parse(name, content, kind) for name, content in files])
            if record is not None:
                yield record

    def _listed(self) -> dict[str, list[str]]:
        return self._grouped(self._files.names("records"))

    def _grouped(self, names: Iterable[str]) -> dict[str, list[str]]:
        """id -> the files to read; where a failure was listed, also the record that may have come since."""
        found: dict[str, list[str]] = {}
        for name in names:  # sorted: a failure comes before the record
            if not name.endswith(".json"):
                continue
            match = _STEM.fullmatch(name.removesuffix(".json"))
            if match is None:
                raise StoreError(
                    f"{self._files.locate('records')}/{shown(name)}: no record has this name (64 hex digits): if a "
                    "program for synchronisation or an editor copied a record, compare the two and move one away"
                )
            failure = [record_file(match[1], "failed")] if match[2] else []
            found.setdefault(match[1], [*failure, record_file(match[1])])
        return found

    def _read(self, name: str) -> Record | None:
        content = self._files.read(name)
        return None if content is None else self._parse(name, content, Record)

    def _parse(self, name: str, content: bytes, kind: type[R]) -> R:
        location = self._files.locate(name)
        record = _parse(location, content, kind)
        if name not in {record_file(record.id), record_file(record.id, record.status)}:
            raise unreadable(location, f"it is the {record.status} record of cell {shown(record.id)}")
        return record


def record_file(trial_id: str, status: Status = "done") -> str:
    return f"records/{trial_id}.failed.json" if status == "failed" else f"records/{trial_id}.json"


def _holding(found: Iterable[R | None]) -> R | None:
    """Of a trial's records, the one that holds; of two failures the first, which is not of version 0.1.0."""
    records = [record for record in found if record is not None]
    return max(records, key=lambda record: (record.recipe_version, record.status == "done"), default=None)


def unreadable(location: str, problem: object) -> StoreError:
    """The error for a file that cannot be read as a record."""
    return StoreError(f"{location}: not a readable record ({problem}): move it away and run the study again")


def _parse(location: str, content: bytes, kind: type[R]) -> R:
    try:
        text, sealed = unseal(content, RECORD)
    except ValueError as error:
        raise unreadable(location, error) from None
    try:
        record = kind.model_validate_json(text if sealed else _without_digest(text))
        # A record of another schema may validate by chance, and one without a version by the field's default.
        if record.schema_version == SCHEMA_VERSION and "schema_version" in record.model_fields_set:
            if not sealed and record.recipe_version == RECIPE_VERSION:
                _check_identity(location, record)
            return record
        problem = None
    except ValidationError as error:
        problem = first_problem(error)
    try:
        version: Any = from_json(text).get("schema_version")
    except (ValueError, AttributeError) as error:
        version, problem = SCHEMA_VERSION, first_problem(error)
    if version == SCHEMA_VERSION:
        raise unreadable(location, problem)
    raise StoreError(
        f"{location}: record schema {shown(str(version))}, this scale-ray reads {SCHEMA_VERSION}: use the version that "
        "wrote it"
    )


def _without_digest(text: bytes) -> bytes:
    """A record that a tool wrote again, without the digest that no longer fits, wherever it is."""
    if b'"sha256"' not in text:
        return text
    try:
        values = from_json(text)
        del values["provenance"]["sha256"]
    except (ValueError, KeyError, TypeError):
        return text
    return to_json(values, inf_nan_mode="constants")


def _check_identity(location: str, record: Record) -> None:
    """Refuse a record whose config or inputs were changed. Nothing else tells in a record without a digest.

    A subclass of Record may leave the config as it was read.
    """
    try:
        config = record.config if isinstance(record.config, TrialConfig) else TrialConfig.parse(record.config)
    except ConfigError as error:
        raise unreadable(location, f"config: {error}") from None
    if identity(config, record.inputs) != record.id:
        raise unreadable(location, "its config and inputs are those of another cell")


def first_problem(error: Exception) -> str:
    """What is wrong with a file, in one line."""
    if isinstance(error, ValidationError):
        problem = error.errors()[0]
        return f"{shown('.'.join(map(str, problem['loc'])))}: {problem['msg']}"
    return str(error)
