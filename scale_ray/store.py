"""The store: a folder that owns identity and progress. What is in it is done; what is not is still to do.

    STORE/studies/<name>.json      the planned cells of a study
    STORE/records/<id>.json        one record a trial, done or failed
    STORE/checkpoints/<id>.pt      the state of a trial that is not finished
    STORE/models/<id>.safetensors  a trained model, where it was asked for
    STORE/.tune_*                  Ray Tune's own state while a study runs

Every file is written under another name, flushed and moved into place: a reader sees the old content or the new one,
never half of either, whatever kills the writer.
"""

import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from scale_ray.config import RECIPE_VERSION, TrialConfig
from scale_ray.records import SCHEMA_VERSION, Record


class StoreError(ValueError):
    """The store cannot be used as asked; the message names the path and the remedy."""


class PlannedCell(BaseModel):
    """One cell that a study wants a record of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    config: TrialConfig


class StudyPlan(BaseModel):
    """What a study wants: the report measures completeness against it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    created: str
    cells: list[PlannedCell]


class Store:
    """Records, checkpoints and study plans under one folder.

    Args:
        root: the folder.
        create: make it where it is missing; otherwise a missing folder is an error.

    Raises:
        StoreError: the folder is missing, is a file, or cannot be written to (when `create`).
    """

    def __init__(self, root: str | Path, *, create: bool = False):
        if re.match(r"[A-Za-z][\w+.-]+:/", str(root)):  # one slash: a Path has already lost the other
            raise StoreError(f"store {root}: only folders of a mounted file system can be a store: give a path")
        self.root = Path(root).expanduser().absolute()
        if create:
            self._make_folders()
        elif not self.root.is_dir():
            raise StoreError(f"store {self.root}: no such folder: check the path, or run a study into it first")

    def _make_folders(self) -> None:
        try:
            for name in ("studies", "records", "checkpoints", "stages", "models"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=self.root / name):
                    pass
        except OSError as error:
            raise StoreError(
                f"store {self.root}: cannot be written to ({error.strerror}): "
                "choose another folder or change its permissions"
            ) from None

    # Records

    def record_path(self, trial_id: str) -> Path:
        return self.root / "records" / f"{trial_id}.json"

    def write_record(self, record: Record) -> None:
        """Put a record in place; drop the trial's checkpoint if it is done.

        A failure never takes the place of a record that answers its cell: two drivers may have run the same one.
        """
        if record.status == "failed" and is_current(self.read_record(record.id)):
            return
        self._write(self.record_path(record.id), record.to_json())
        if record.status == "done":
            checkpoint = Path(self.checkpoint_location(record.id))
            for path in (checkpoint, *checkpoint.parent.glob(f".{checkpoint.name}.*")):  # those of killed writers too
                path.unlink(missing_ok=True)

    def read_record(self, trial_id: str) -> Record | None:
        """The trial's record, or None where it has none.

        Raises:
            StoreError: the file is there and cannot be read as a record.
        """
        path = self.record_path(trial_id)
        return _parse_record(path) if path.exists() else None

    def status(self, trial_id: str) -> Literal["done", "failed", "missing"]:
        """What the store says of a trial; `missing` too where its record is of another recipe."""
        record = self.read_record(trial_id)
        return record.status if record is not None and record.recipe_version == RECIPE_VERSION else "missing"

    def answers(self, trial_id: str, *, with_model: bool = False) -> bool:
        """Whether the trial need not be trained: a current record is there, and its model where that is asked for."""
        return is_current(self.read_record(trial_id)) and (not with_model or self.has_model(trial_id))

    def records(self) -> Iterator[Record]:
        """Every record, ordered by id.

        Raises:
            StoreError: at the first file that cannot be read as a record; it is never skipped.
        """
        for path in sorted((self.root / "records").glob("*.json")):
            yield _parse_record(path)

    # Study plans

    def write_plan(self, plan: StudyPlan) -> None:
        self._write(self.root / "studies" / f"{plan.name}.json", plan.model_dump_json(indent=1) + "\n")

    def plans(self) -> list[StudyPlan]:
        """Every study planned in this store, ordered by name."""
        plans = []
        for path in sorted((self.root / "studies").glob("*.json")):
            try:
                plans.append(StudyPlan.model_validate_json(path.read_bytes()))
            except ValidationError as error:
                raise StoreError(
                    f"{path}: not a study plan ({_first(error)}): move it away and run the study again"
                ) from None
        return plans

    # Checkpoints, stages and models

    def checkpoint_location(self, key: str) -> str:
        return str(self.root / "checkpoints" / f"{key}.pt")

    def model_location(self, trial_id: str) -> str:
        return str(self.root / "models" / f"{trial_id}.safetensors")

    def stage_location(self, key: str) -> str:
        return str(self.root / "stages" / f"{key}.pt")

    def read_checkpoint(self, key: str) -> bytes | None:
        return _read(Path(self.checkpoint_location(key)))

    def write_checkpoint(self, key: str, content: bytes) -> None:
        self._write_bytes(Path(self.checkpoint_location(key)), content)

    def delete_checkpoint(self, key: str) -> None:
        Path(self.checkpoint_location(key)).unlink(missing_ok=True)

    def read_stage(self, key: str) -> bytes | None:
        return _read(Path(self.stage_location(key)))

    def write_stage(self, key: str, content: bytes) -> None:
        self._write_bytes(Path(self.stage_location(key)), content)

    def has_stage(self, key: str) -> bool:
        return Path(self.stage_location(key)).exists()

    def delete_stage(self, key: str) -> None:
        Path(self.stage_location(key)).unlink(missing_ok=True)

    def stage_keys(self) -> list[str]:
        return sorted(path.stem for path in (self.root / "stages").glob("*.pt"))

    def write_model(self, trial_id: str, content: bytes) -> None:
        self._write_bytes(Path(self.model_location(trial_id)), content)

    def has_model(self, trial_id: str) -> bool:
        return Path(self.model_location(trial_id)).exists()

    def _write_bytes(self, path: Path, content: bytes) -> None:
        with replacing(path) as file:
            file.write(content)

    def _write(self, path: Path, text: str) -> None:
        with replacing(path) as file:
            file.write(text.encode())


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that takes `path`'s place, whole and flushed to disk, when the block ends without an error.

    Raises:
        StoreError: the folder cannot be written to, or the disk is full.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o644)  # mkstemp's 0600 would lock colleagues out of a shared store
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be written ({error.strerror}): check the folder, its permissions and its free space"
        ) from error


def _parse_record(path: Path) -> Record:
    try:
        text = path.read_bytes()
        version: Any = json.loads(text).get("schema_version")
        if version == SCHEMA_VERSION:
            return Record.model_validate_json(text)
    except (ValueError, AttributeError, OSError) as error:
        raise StoreError(
            f"{path}: not a readable record ({_first(error)}): move it away and run the study again"
        ) from None
    raise StoreError(
        f"{path}: record schema {version}, this scale-ray reads {SCHEMA_VERSION}: use the version that wrote it"
    )


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        problem = error.errors()[0]
        return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
    return str(error)


def is_current(record: Record | None) -> bool:
    """Whether this record answers its cell: done, and by this recipe."""
    return record is not None and record.status == "done" and record.recipe_version == RECIPE_VERSION
