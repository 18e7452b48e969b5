"""The store owns identity and progress: a trial with a record in the store is done, all others remain to be run.

    STORE/studies/<name>.json      the planned cells of a study
    STORE/records/<id>.json        one record per trial that is done
    STORE/records/<id>.failed.json  of a trial that is not done: how it failed last (see `record_files`)
    STORE/checkpoints/<key>.pt     the state of an unfinished training
    STORE/stages/<key>.pt          the result of a stage that several cells share
    STORE/models/<id>.safetensors  a trained model, of a frozen encoder its heads alone (see `scale_ray.bundle`)
    STORE/predictions/<id>.npz     a trial's predictions on its target, if they were asked for (see `predictions`)
    STORE/features/<key>.npy       features of a domain by a frozen encoder, and <key>.sha256, written last
    STORE/tuning/<name>/           a search: Optuna's journal and the results
    STORE/data/<key>/              a domain's images in shards, for nodes that do not see them (see `data.shards`)
    STORE/drivers/<id>.json        the drivers that run a study here now (see `liveness`)
    STORE/leases/<key>.<n>.<id>    which driver works on what (see `leases`)
    STORE/index                    what tables read of each record, made from the records (see `report.read.index`)
    STORE/.tune_*                  Ray Tune's own state while a study runs
    STORE/.ray_train/<key>         the latest checkpoint of a training on workers of Ray Train
    STORE/.keep                    on an object store: marks that a store was created here

It is a folder or a prefix of an object store (see `files`). Writes are atomic: a reader sees the old content of a file
or the new one, even if the writer is killed.
"""

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from scale_ray.config import Beside
from scale_ray.errors import shown
from scale_ray.records import Record
from scale_ray.store.files import Files
from scale_ray.store.filesystems import StoreError
from scale_ray.store.plans import PlanFile, StudyPlan
from scale_ray.store.predictions import StoredPredictions, from_bytes, to_bytes
from scale_ray.store.record_files import RecordFiles, Status, first_problem, is_start, record_file, status_of

if TYPE_CHECKING:
    import pyarrow.fs

INDEX = "index"
_FOLDERS = ("studies", "records", "checkpoints", "stages", "models", "predictions", "features", "drivers", "leases")


R = TypeVar("R", bound=Record)


class Store:
    """Records, checkpoints, stages, models, features and study plans under one location. Pickles as its location.

    Args:
        location: a folder, or a URL: s3://bucket/prefix, gs://bucket/prefix.
        create: create the store if it is missing; without this, a missing store is an error.
        missing_ok: take a missing store as an empty one, and create nothing.

    Attributes:
        location: absolute path or URL.
        folder: the local folder; None on an object store.
        files: the files under the location.

    Raises:
        StoreError: from the constructor, if the store is missing, its location is not supported, or (with `create`) it
            cannot be written to; from every method, if the store refuses a call or stays unavailable.
    """

    def __init__(self, location: str | Path, *, create: bool = False, missing_ok: bool = False):
        self.files = Files(location)
        self.location, self.folder = self.files.location, self.files.folder
        self._records = RecordFiles(self.files)
        if create:
            self.prove_writable()
        elif not missing_ok and not self.files.location_exists():
            raise StoreError(
                f"store {self.location}: no such {'prefix' if self.folder is None else 'folder'}: "
                "check the path, or run a study into it first"
            )

    def prove_writable(self) -> None:
        """Create missing folders, and raise a StoreError if one of them cannot be written to."""
        self.files.make_folders(_FOLDERS)

    def remove_temporaries(self) -> None:
        """Remove what killed writers left in the store's folders. No other driver may be alive."""
        for folder in (*_FOLDERS, *(f"tuning/{name}" for name in self.files.folders("tuning"))):
            self.files.remove_temporaries(folder)
        self.files.remove_temporaries("", INDEX)

    # Records

    def record_location(self, trial_id: str, status: Status = "done") -> str:
        """Where the trial's record is. One that failed has a name of its own."""
        return self.files.locate(record_file(trial_id, status))

    def write_record(self, record: Record) -> None:
        """Write a record, and delete the trial's checkpoint if it is done.

        A failure never replaces a record that answers its cell: two drivers may have run the same trial.
        """
        self._records.write(record)
        if record.status == "done":
            self.delete_checkpoint(record.id)

    def remove_overcome_failures(self) -> None:
        """Remove the failures of trials that are done by now. No other driver may be alive."""
        self._records.remove_overcome()

    def read_record(self, trial_id: str) -> Record | None:
        """The trial's record, or None if it has none.

        Raises:
            StoreError: the file exists and cannot be read as the trial's record.
        """
        return self._records.read(trial_id)

    def read_done(self, trial_id: str) -> Record | None:
        """The record that answers the trial, or None. It asks for no failure, which `read_record` does."""
        return self._records.read_done(trial_id)

    def status(self, trial_id: str) -> Status:
        """The status of a trial. A record of another recipe version counts as `missing`."""
        return status_of(self.read_record(trial_id))

    def answers(self, trial_id: str, *, beside: Collection[Beside] = ()) -> bool:
        """Whether the store answers the trial: it has a current record and what is wanted beside it."""
        return self._records.answers(trial_id) and self.has_beside(trial_id, beside)

    def has_beside(self, trial_id: str, kinds: Collection[Beside]) -> bool:
        """Whether the trial has every one of these files beside its record."""
        name_of = {"model": _model, "predictions": _predictions}
        return all(self.files.exists(name_of[kind](trial_id)) for kind in kinds)

    def record_ids(self) -> list[str]:
        """Sorted ids of all trials that have a record. It takes one listing for any number of them.

        Raises:
            StoreError: a file has another name than a record has, as the copies have that programs for synchronisation
                make of a file in conflict.
        """
        return self._records.ids()

    def record_stamps(self) -> dict[str, str]:
        """id -> what changes whenever the trial's record is written, for all trials that have one. One listing.

        Raises:
            StoreError: as by `record_ids`.
        """
        return self._records.stamps()

    def id_of(self, start: str) -> str:
        """The id of the one record that these first characters name.

        Raises:
            StoreError: they are fewer than four hex digits, or no record's or several records' ids start with them.
        """
        if not is_start(start):
            raise StoreError(f"{shown(start)!r}: no beginning of a record's id: give four or more digits of it")
        found = [trial_id for trial_id in self.record_ids() if trial_id.startswith(start)]
        if len(found) != 1:
            told = f"{len(found):,} records' ids start" if found else "no record's id starts"
            raise StoreError(f"store {self.location}: {told} with {start!r}: give more digits of the one you mean")
        return found[0]

    def records(self, ids: Iterable[str] | None = None) -> Iterator[Record]:
        """The existing records among these ids, in the order of the ids; with None, every record, ordered by id.

        Raises:
            StoreError: at the first file that cannot be read as a record. Such a file is never skipped.
        """
        return self.records_as(Record, ids)

    def records_as(self, kind: type[R], ids: Iterable[str] | None = None) -> Iterator[R]:
        """Like `records`, parsed as a subclass of Record, such as one that leaves out a part."""
        return self._records.read_as(kind, ids)

    def statuses(self) -> dict[str, Status]:
        """The `status` of every trial that has a record, in one pass."""
        return {record.id: status_of(record) for record in self.records()}

    # Study plans

    def write_plan(self, plan: StudyPlan) -> None:
        self.files.write(_plan(plan.name), PlanFile.of(plan).content())

    def plans(self) -> list[StudyPlan]:
        """Every study planned in this store, ordered by name.

        Raises:
            StoreError: a file cannot be read as a plan.
        """
        found = []
        for file in self.plan_files():
            try:
                found.append(file.plan())
            except ValueError as error:
                raise self.no_plan(file.name, error) from None
        return found

    def plan_files(self, studies: Iterable[str] | None = None) -> Iterator[PlanFile]:
        """Like `plans`, one after the other and with configs that are not validated; with `studies`, only of these."""
        keys = self._keys("studies", ".json") if studies is None else studies
        for name, content in self.files.read_many(map(_plan, keys)):
            try:
                file = PlanFile.read(content)
                if name != _plan(file.name):
                    raise ValueError(f"it is the plan of study '{shown(file.name)}'")
            except (ValueError, RecursionError) as error:
                raise self.no_plan(Path(name).stem, error) from None
            yield file

    def no_plan(self, study: str, error: Exception) -> StoreError:
        """The error for a study's plan that cannot be read."""
        return StoreError(
            f"{self.location}/{shown(_plan(study))}: not a study plan ({first_problem(error)}): "
            "move it away and run the study again"
        )

    # Checkpoints: the newest one of each unfinished training. Stages: results, kept until no cell needs them.

    def checkpoint_location(self, key: str) -> str:
        return self.files.locate(_checkpoint(key))

    def read_checkpoint(self, key: str) -> bytes | None:
        return self._read_state(_checkpoint(key))

    def write_checkpoint(self, key: str, content: bytes) -> None:
        self.files.write(_checkpoint(key), content)

    def delete_checkpoint(self, key: str) -> None:
        self.files.purge(_checkpoint(key))

    def checkpoint_keys(self) -> list[str]:
        return self._keys("checkpoints", ".pt")

    def stage_location(self, key: str) -> str:
        return self.files.locate(_stage(key))

    def read_stage(self, key: str) -> bytes | None:
        return self._read_state(_stage(key))

    def _read_state(self, name: str) -> bytes | None:
        """The state's bytes; none at all, which no reader takes for a state, where a folder is in its place."""
        try:
            return self.files.read(name)
        except StoreError as error:
            if isinstance(error.__cause__, IsADirectoryError):
                return b""
            raise

    def write_stage(self, key: str, content: bytes) -> None:
        self.files.write(_stage(key), content)

    def has_stage(self, key: str) -> bool:
        return self.files.exists(_stage(key))

    def delete_stage(self, key: str) -> None:
        self.files.purge(_stage(key))

    def stage_keys(self) -> list[str]:
        return self._keys("stages", ".pt")

    # Models

    def model_location(self, trial_id: str) -> str:
        return self.files.locate(_model(trial_id))

    def write_model(self, trial_id: str, content: bytes) -> None:
        self.files.write(_model(trial_id), content)

    def read_model(self, trial_id: str) -> bytes | None:
        """The bytes of a safetensors file, or None if the model is not stored."""
        return self.files.read(_model(trial_id))

    # Predictions

    def predictions_location(self, trial_id: str) -> str:
        return self.files.locate(_predictions(trial_id))

    def write_predictions(self, trial_id: str, predictions: StoredPredictions) -> None:
        self.files.write(_predictions(trial_id), to_bytes(predictions, trial_id))

    def read_predictions(self, record: Record) -> StoredPredictions | None:
        """The predictions of a record's trial on its target, or None if they are not stored.

        Raises:
            StoreError: the file is damaged, or not of this record.
        """
        name = _predictions(record.id)
        content = self.files.read(name)
        try:
            return None if content is None else from_bytes(content, record)
        except ValueError as error:
            raise StoreError(
                f"{self.files.locate(name)}: {error}: delete it and run the study again with --keep-predictions"
            ) from None

    def predictions_ids(self) -> list[str]:
        """Sorted ids of all trials whose predictions are stored."""
        return self._keys("predictions", ".npz")

    # Features

    def features_location(self, key: str) -> str:
        return self.files.locate(f"features/{key}.npy")

    def has_features(self, key: str) -> bool:
        return self.files.exists(f"features/{key}.sha256")

    def read_features(self, key: str) -> tuple[bytes, str] | None:
        """A domain's features as the bytes of a .npy file, and the sha256 recorded when it was written."""
        digest = self.files.read(f"features/{key}.sha256")
        content = None if digest is None else self.files.read(f"features/{key}.npy")
        return None if digest is None or content is None else (content, digest.decode(errors="replace"))

    def write_features(self, key: str, content: bytes, digest: str) -> None:
        self.files.write(f"features/{key}.npy", content)
        self.files.write(f"features/{key}.sha256", digest.encode())

    def delete_features(self, key: str) -> None:
        for suffix in ("sha256", "npy"):  # without the digest the array counts as missing
            self.files.delete(f"features/{key}.{suffix}")

    def arrow_storage(self, name: str) -> "tuple[str, pyarrow.fs.FileSystem | None]":
        """(storage_path, storage_filesystem) of Ray's RunConfig for the store's folder `name`; both can be pickled."""
        return self.files.arrow(name)

    def _keys(self, folder: str, suffix: str) -> list[str]:
        return [name.removesuffix(suffix) for name in self.files.names(folder) if name.endswith(suffix)]


def _plan(study: str) -> str:
    return f"studies/{study}.json"


def _checkpoint(key: str) -> str:
    return f"checkpoints/{key}.pt"


def _stage(key: str) -> str:
    return f"stages/{key}.pt"


def _model(trial_id: str) -> str:
    return f"models/{trial_id}.safetensors"


def _predictions(trial_id: str) -> str:
    return f"predictions/{trial_id}.npz"
