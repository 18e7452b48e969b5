"""scale-ray status: how far a store's studies are, what runs now, and what failed. Needs neither torch nor ray."""

import re
import shlex
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated

import typer
from rich.text import Text

from scale_ray.cli.console import console, plain_table
from scale_ray.cli.report import StoreLocation
from scale_ray.cli.searches import search_names
from scale_ray.config import RECIPE_VERSION, TrialConfig
from scale_ray.costs import Measured, duration, estimate_seconds
from scale_ray.records import Record
from scale_ray.report.read.labels import count
from scale_ray.store import Store, StudyPlan
from scale_ray.store.doing import Training
from scale_ray.store.leases import Announcement, live_holders
from scale_ray.store.record_files import status_of
from scale_ray.study import describe

_SHOWN = 10
_EVERY = 5.0  # seconds


def status(
    store: StoreLocation,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Show it every 5 seconds, until nothing runs; Ctrl-C ends."),
    ] = False,
) -> None:
    """Say how far each study in a store is, what runs now, how long it may take, and what failed."""
    opened = Store(store)
    while True:
        if watch and console.is_terminal:
            console.clear()
        runs = _show(opened)
        if not watch or not runs:
            return
        try:
            time.sleep(_EVERY)
        except KeyboardInterrupt:
            return


def _show(store: Store) -> bool:
    """Print it; return whether a driver is alive."""
    plans, records = store.plans(), {record.id: record for record in store.records()}
    holders = live_holders(store.files)
    _print_searches(store)
    if plans:
        _print_studies(store, plans, records)
    planned = {cell.id for plan in plans for cell in plan.cells}
    unplanned = [record for trial, record in records.items() if trial not in planned]
    if unplanned:
        _print_unplanned(store, unplanned, alone=not plans)
    elif not plans:
        console.print(f"{store.location}: no study and no record: run a study into it first")
    _print_running(holders, plans)
    _print_time_left(plans, records, holders)
    _print_failures([record for record in records.values() if status_of(record) == "failed"], store)
    return bool(holders)


def _print_studies(store: Store, plans: Sequence[StudyPlan], records: Mapping[str, Record]) -> None:
    table = plain_table("study", "cells", "done", "failed", "to do", "unfinished with a checkpoint")
    for column in table.columns[1:]:
        column.justify = "right"
    checkpoints = set(store.checkpoint_keys())
    for plan in plans:
        statuses = {cell.id: status_of(records.get(cell.id)) for cell in plan.cells}
        counts = Counter(statuses.values())
        begun = sum(key in checkpoints for key, status in statuses.items() if status != "done")
        row = (len(statuses), counts["done"], counts["failed"], counts["missing"], begun)
        table.add_row(plan.name, *map(str, row))
    console.print(table)


def _print_unplanned(store: Store, records: Sequence[Record], *, alone: bool) -> None:
    """Records of no study, such as those of `scale-ray train`."""
    what = count(len(records), "record")
    console.print(f"{store.location}: no study, {what}:" if alone else f"{what} that no study plans:")
    table = plain_table("cell", "training", "state", "target", "time", "started")
    latest = sorted(records, key=lambda record: record.provenance.started, reverse=True)
    for record in latest[:_SHOWN]:
        result = record.result
        accuracy = None if result is None else result.target_accuracy
        state = record.status if record.recipe_version == RECIPE_VERSION else f"stale (recipe {record.recipe_version})"
        table.add_row(
            record.id[:12],
            Text(describe(record.config)),
            state,
            "" if result is None else "no labels" if accuracy is None else f"{accuracy:.2f} %",
            duration(record.provenance.wall_seconds),
            record.provenance.started[:16],
        )
    console.print(table)
    if len(latest) > _SHOWN:
        console.print(f"and {len(latest) - _SHOWN:,} older ones")


def _print_running(holders: Mapping[str, Announcement], plans: Sequence[StudyPlan]) -> None:
    """Every driver with what it has leased."""
    titles = {cell.id: describe(cell.config) for plan in plans for cell in plan.cells}
    of_drivers: dict[str, list[str]] = {}
    drivers = {holder.id: holder for holder in holders.values()}
    for key, holder in holders.items():
        of_drivers.setdefault(holder.id, []).append(key)
    for driver_id, keys in of_drivers.items():
        driver = drivers[driver_id]
        searches = [key.removeprefix("tuning-") for key in keys if key.startswith("tuning-")]
        cells = [titles.get(key, f"what several cells share ({key[:12]})") for key in sorted(keys) if "-" not in key]
        handed_out = len(cells)
        if driver.doing is not None and driver.doing.trainings:
            cells = list(map(_training_line, driver.doing.trainings))
        search = f"search {', '.join(searches)}; " if searches else ""
        console.print(
            f"running: driver on {driver.host}, pid {driver.pid}, {_since(driver.since)}: {search}"
            f"{count(handed_out, 'stage')} handed out"
        )
        for cell in cells[:_SHOWN]:
            console.print(f"  {cell}")
        if len(cells) > _SHOWN:
            console.print(f"  and {len(cells) - _SHOWN} more")


def _training_line(training: Training) -> str:
    if not training.started:
        return f"{training.title}: waits for a slot, or has just begun"
    accuracy = "" if training.source_val_accuracy is None else f", source_val {training.source_val_accuracy:.1f} %"
    left = "" if training.seconds_left is None else f", about {duration(training.seconds_left)} left"
    return f"{training.title}: step {training.step:,} of {training.last:,}{accuracy}{left}"


def _print_time_left(
    plans: Sequence[StudyPlan], records: Mapping[str, Record], holders: Mapping[str, Announcement]
) -> None:
    """By the pace of finished records; drivers hand out one stage more than runs, so it is a rough estimate."""
    todo = {cell.id: cell.config for plan in plans for cell in plan.cells if status_of(records.get(cell.id)) != "done"}
    if not todo:
        return
    done = [record for record in records.values() if status_of(record) == "done"]
    seconds = estimate_seconds(_work(todo.values()), Measured(done).seconds_per_step())
    lanes = sum(not key.startswith("tuning-") for key in holders)
    if seconds is None:
        console.print("time left: known once a cell of each kind has finished")
    elif lanes:
        console.print(f"time left: about {duration(seconds / lanes)}, {lanes} at a time")
    else:
        console.print(f"to do: about {duration(seconds)} of one trial slot; nothing runs now")


def _work(configs: Iterable[TrialConfig]) -> Iterator[tuple[TrialConfig, int]]:
    yield from ((config, config.optim.steps) for config in configs)


def _print_failures(failed: Sequence[Record], store: Store) -> None:
    """What each failure says at its end, the most frequent first; messages that differ in numbers are one."""
    alike: dict[str, list[tuple[str, Record]]] = {}
    for record in failed:
        assert record.failure is not None
        line = f"{record.failure.kind}: {record.failure.message.strip().partition(chr(10))[0]}"
        alike.setdefault(re.sub(r"[\d.]+", "#", line), []).append((line, record))
    for found in sorted(alike.values(), key=lambda found: -len(found))[:_SHOWN]:
        console.print(f"failed, {len(found)} x: {found[0][0]}")
        cells = [f"{record.id[:12]} {describe(record.config)}" for _, record in found[:3]]
        more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
        console.print(f"  {'; '.join(cells)}{more}")
    if failed:
        console.print("to forget failures:")
        console.print_command(f"scale-ray forget {shlex.quote(store.location)} --failed")


def _print_searches(store: Store) -> None:
    """How far each search is. One that keeps its settings in a database is not here."""
    for name in search_names(store):
        from scale_ray.tuning.choice import state_counts
        from scale_ray.tuning.decision import highest
        from scale_ray.tuning.view import read_search

        view = read_search(store, name)
        if view is None:
            console.print(f"search {name}: no setting begun")
            continue
        best = highest(view.settings, view.validator)
        leads = "" if best is None else f", setting {best.number} leads with {best.validators[view.validator]:.4g}"
        console.print(
            f"search {name}: {count(len(view.settings), 'setting')} begun: {state_counts(view.settings)}; "
            f"by {view.validator}{leads}"
        )


def _since(moment: str) -> str:
    try:
        seconds = time.time() - datetime.fromisoformat(moment).timestamp()
    except ValueError:  # of an announcement that cannot be read
        return f"since {moment}"
    return f"for {duration(max(0.0, seconds))}"
