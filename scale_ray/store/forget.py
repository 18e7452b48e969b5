"""Forgetting records: deleting them with what lies beside them, but none that another driver may be writing now."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from scale_ray.records import Record
from scale_ray.store.files import StoreError
from scale_ray.store.leases import Announcement, Driver
from scale_ray.store.record_files import is_current, status_of
from scale_ray.store.store import Store

# What lies beside a record under its cell's id, in the order of deletion. The record goes last: where a deletion is
# interrupted, the same command finds it again.
_BESIDE = ("checkpoints", "predictions", "models", "records")


@dataclass(frozen=True)
class Forgotten:
    """What was deleted, and what was left.

    Attributes:
        files: id -> names of the deleted files and folders, below the store.
        busy: id -> the driver that may be writing its record now.
        changed: ids of the records whose status is no longer that of the records given.
    """

    files: dict[str, list[str]]
    busy: dict[str, Announcement]
    changed: list[str]


def files_of(store: Store, ids: Collection[str]) -> dict[str, list[str]]:
    """id -> its files and folders in the store, in the order of deletion; one listing a folder."""
    wanted = set(ids)
    found: dict[str, list[str]] = {trial: [] for trial in ids}
    for folder in _BESIDE:
        for name in dict.fromkeys([*store.files.names(folder), *store.files.folders(folder)]):
            if (trial := name.partition(".")[0]) in wanted:
                found[trial].append(f"{folder}/{name}")
    return found


def forget(store: Store, records: Mapping[str, Record]) -> Forgotten:
    """Delete these records and what lies beside them.

    The cells are leased meanwhile, so no driver begins one of them. A driver that trains a warm-up of several cells
    leaves the failures of all of them, so while there is one, records that are no answer stay.

    Args:
        store: is changed.
        records: by id, as whoever asked for it has seen them.

    Raises:
        StoreError: another driver has begun with one of the cells at this moment, or the store cannot be written.
    """
    with Driver(store.files) as driver:
        others = driver.others(now=True)
        holders = driver.holders() if others else {}
        busy = {trial: holders[trial] for trial in records if trial in holders}
        if shared := _of_shared_stages(store, holders):
            busy |= {trial: shared[0] for trial, record in records.items() if not is_current(record)} | busy
        free = [trial for trial in records if trial not in busy]
        if free and not driver.acquire(*free):
            raise StoreError(
                f"store {store.location}: another driver has just begun with one of these cells: nothing was deleted: "
                "give the command again"
            )
        # A failed cell may have succeeded while somebody thought about it. Now nobody else writes.
        now = {record.id: status_of(record) for record in store.records(free)}
        changed = [trial for trial in free if now.get(trial, "missing") != status_of(records[trial])]
        files = files_of(store, [trial for trial in free if trial not in changed])
        folders = {f"{folder}/{name}" for folder in _BESIDE for name in store.files.folders(folder)}
        for kind in _BESIDE:
            names = [name for of_cell in files.values() for name in of_cell if name.startswith(f"{kind}/")]
            store.files.delete_many([name for name in names if name not in folders])
            for name in names:
                if name in folders:
                    store.files.delete_folder(name)
    return Forgotten(files, busy, changed)


def _of_shared_stages(store: Store, holders: Mapping[str, Announcement]) -> list[Announcement]:
    """The holders of leases on stages that go on to several cells, whose failures such a driver writes."""
    keys = [key for key in holders if not key.startswith("tuning-")]
    if not keys:
        return []
    cells = {cell.id for plan in store.plans() for cell in plan.cells} | set(store.record_ids())
    return [holders[key] for key in keys if key not in cells]
