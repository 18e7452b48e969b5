"""scale-ray forget: delete records and what lies beside them. Needs neither torch nor ray."""

from collections.abc import Iterator
from typing import Annotated

import typer

from scale_ray.cli.console import console
from scale_ray.cli.report import StoreLocation
from scale_ray.config import ConfigError
from scale_ray.records import Record
from scale_ray.report.read.labels import count
from scale_ray.store import Store
from scale_ray.store.record_files import status_of
from scale_ray.study import describe

_SHOWN = 20


def forget(
    store: StoreLocation,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID", help="Records, by four or more of their ids' first digits.")
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Every record of a failure.")] = False,
    stale: Annotated[bool, typer.Option("--stale", help="Every record of another recipe version.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete records, and what lies beside them: models, predictions, checkpoints.

    Cells that a study plans are missing then, and its command trains them again. Records that a running driver may be
    writing stay, and so do those that are no longer as they were shown.
    """
    from scale_ray.store.forget import files_of
    from scale_ray.store.forget import forget as forget_records

    opened = Store(store)
    if bool(ids) + failed + stale != 1:
        raise ConfigError("forget what? give ids, or --failed, or --stale")
    records = {record.id: record for record in _wanted(opened, ids or [], failed=failed)}
    if not records:
        console.print(f"{opened.location}: nothing to forget")
        return
    files = files_of(opened, list(records))
    for record in list(records.values())[:_SHOWN]:
        console.print(f"{record.id[:12]}  {describe(record.config)}: {_state(record)}, {_beside(files[record.id])}")
    if len(records) > _SHOWN:
        console.print(f"and {len(records) - _SHOWN:,} more")
    if not yes:
        typer.confirm(f"Delete {count(len(records), 'record')} in {opened.location}?", abort=True)
    done = forget_records(opened, records)
    for trial, driver in done.busy.items():
        console.print(f"{trial[:12]} stays: {driver.host}, pid {driver.pid}, works on it since {driver.since}")
    for trial in done.changed:
        console.print(f"{trial[:12]} stays: it is no longer as listed ({_state(records[trial])})")
    deleted = sum(map(len, done.files.values()))
    console.print(f"deleted {count(len(done.files), 'record')} ({count(deleted, 'file')}) of {opened.location}")


def _wanted(store: Store, ids: list[str], *, failed: bool) -> Iterator[Record]:
    if ids:
        yield from store.records(dict.fromkeys(map(store.id_of, ids)))
        return
    for record in store.records():
        if (status_of(record) == "failed") if failed else (status_of(record) == "missing"):
            yield record


def _state(record: Record) -> str:
    if status_of(record) == "missing":
        return f"stale (recipe {record.recipe_version})"
    if record.failure is not None:
        return f"failed, {record.failure.kind}"
    accuracy = record.result.target_accuracy if record.result else None
    return "done" if accuracy is None else f"done, target {accuracy:.2f} %"


def _beside(files: list[str]) -> str:
    """`record, model`: what would go."""
    kinds = dict.fromkeys(name.partition("/")[0].rstrip("s") for name in reversed(files))
    return ", ".join(kinds)
