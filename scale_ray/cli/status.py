"""scale-ray status: how far a store's studies are, what runs now, and what failed. Needs neither torch nor ray."""

import re
import shlex
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.text import Text

from scale_ray.cli.console import console, plain_table
from scale_ray.cli.report import StoreLocation
from scale_ray.cli.searches import search_names
from scale_ray.costs import CostKey, Measured, cost_key, duration, estimate_seconds
from scale_ray.report.read.index import read_rows
from scale_ray.report.read.labels import count
from scale_ray.report.read.rows import Rows
from scale_ray.store import Store
from scale_ray.store.doing import Training
from scale_ray.store.leases import Announcement, live_holders
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
    rows = read_rows(store)
    holders = live_holders(store.files)
    _print_searches(store)
    if rows.plans:
        _print_studies(store, rows)
    planned = {cell for cells in rows.plans.values() for cell in cells}
    unplanned = [cell for cell in rows.of_records() if cell not in planned]
    if unplanned:
        _print_unplanned(store, rows, unplanned)
    elif not rows.plans:
        console.print(f"{store.location}: no study and no record: run a study into it first")
    _print_running(holders, rows)
    _print_time_left(rows, planned, holders)
    _print_failures(rows, store)
    return bool(holders)


def _print_studies(store: Store, rows: Rows) -> None:
    table = plain_table("study", "cells", "done", "failed", "to do", "unfinished with a checkpoint")
    for column in table.columns[1:]:
        column.justify = "right"
    checkpoints = set(store.checkpoint_keys())
    for study, cells in sorted(rows.plans.items()):
        statuses = {cell: _status(rows, cell) for cell in cells}
        counts = Counter(statuses.values())
        begun = sum(cell in checkpoints for cell, status in statuses.items() if status != "done")
        row = (len(statuses), counts["done"], counts["failed"], counts["missing"] + counts["stale"], begun)
        table.add_row(study, *map(str, row))
    console.print(table)


def _status(rows: Rows, cell: str) -> str:
    """`done`, `failed`, `stale` or `missing`."""
    found = rows.outcome(cell, "status")
    return "missing" if found is None else found[0]


def _of_record(rows: Rows, cell: str, *columns: str) -> tuple[Any, ...]:
    found = rows.outcome(cell, *columns)
    assert found is not None
    return found


def _print_unplanned(store: Store, rows: Rows, cells: Sequence[str]) -> None:
    """Records of no study, such as those of `scale-ray train`."""
    what = count(len(cells), "record")
    console.print(f"{what} that no study plans:" if rows.plans else f"{store.location}: no study, {what}:")
    table = plain_table("cell", "training", "state", "target", "time", "started")
    columns = ("started", "status", "recipe_version", "steps", "target_accuracy", "wall_seconds")
    latest = sorted(cells, key=lambda cell: _of_record(rows, cell, "started"), reverse=True)
    for cell in latest[:_SHOWN]:
        started, status, recipe, steps, accuracy, seconds = _of_record(rows, cell, *columns)
        table.add_row(
            cell[:12],
            Text(describe(rows.config(cell))),
            f"stale (recipe {recipe})" if status == "stale" else status,
            "" if steps is None else "no labels" if accuracy is None else f"{accuracy:.2f} %",
            duration(seconds),
            started[:16],
        )
    console.print(table)
    if len(latest) > _SHOWN:
        console.print(f"and {len(latest) - _SHOWN:,} older ones")


def _print_running(holders: Mapping[str, Announcement], rows: Rows) -> None:
    """Every driver with what it has leased."""
    planned = {cell for cells in rows.plans.values() for cell in cells}
    of_drivers: dict[str, list[str]] = {}
    drivers = {holder.id: holder for holder in holders.values()}
    for key, holder in holders.items():
        of_drivers.setdefault(holder.id, []).append(key)
    for driver_id, keys in of_drivers.items():
        driver = drivers[driver_id]
        searches = [key.removeprefix("tuning-") for key in keys if key.startswith("tuning-")]
        leased = [key for key in sorted(keys) if "-" not in key]
        titles = [
            describe(rows.config(key)) if key in planned else f"what several cells share ({key[:12]})" for key in leased
        ]
        if driver.doing is not None and driver.doing.trainings:
            titles = list(map(_training_line, driver.doing.trainings))
        search = f"search {', '.join(searches)}; " if searches else ""
        console.print(
            f"running: driver on {driver.host}, pid {driver.pid}, {_since(driver.since)}: {search}"
            f"{count(len(leased), 'stage')} handed out"
        )
        for title in titles[:_SHOWN]:
            console.print(f"  {title}")
        if len(titles) > _SHOWN:
            console.print(f"  and {len(titles) - _SHOWN} more")


def _training_line(training: Training) -> str:
    if not training.started:
        return f"{training.title}: waits for a slot, or has just begun"
    accuracy = "" if training.source_val_accuracy is None else f", source_val {training.source_val_accuracy:.1f} %"
    left = "" if training.seconds_left is None else f", about {duration(training.seconds_left)} left"
    return f"{training.title}: step {training.step:,} of {training.last:,}{accuracy}{left}"


def _print_time_left(rows: Rows, planned: Collection[str], holders: Mapping[str, Announcement]) -> None:
    """By the pace of finished records; drivers hand out one stage more than runs, so it is a rough estimate."""
    todo = [cell for cell in planned if _status(rows, cell) != "done"]
    if not todo:
        return
    works: dict[bytes, tuple[CostKey, int]] = {}  # worked out once for all seeds of a config

    def work_of(cell: str) -> tuple[CostKey, int]:
        text = rows.text(cell)
        if text not in works:
            config = rows.config(cell)
            works[text] = cost_key(config), config.optim.steps
        return works[text]

    measured = Measured()
    for cell in rows.of_records():
        status, steps, wall_seconds = _of_record(rows, cell, "status", "steps", "wall_seconds")
        if status == "done":
            measured.add_steps(work_of(cell)[0], steps, wall_seconds)
    seconds = estimate_seconds(map(work_of, todo), measured.seconds_per_step())
    lanes = sum(not key.startswith("tuning-") for key in holders)
    if seconds is None:
        console.print("time left: known once a cell of each kind has finished")
    elif lanes:
        console.print(f"time left: about {duration(seconds / lanes)}, {lanes} at a time")
    else:
        console.print(f"to do: about {duration(seconds)} of one trial slot; nothing runs now")


def _print_failures(rows: Rows, store: Store) -> None:
    """What each failure says at its end, the most frequent first; messages that differ in numbers are one."""
    alike: dict[str, list[tuple[str, str]]] = {}
    for cell in rows.of_records():
        status, error = _of_record(rows, cell, "status", "error")
        if status == "failed":
            alike.setdefault(re.sub(r"[\d.]+", "#", error), []).append((error, cell))
    for found in sorted(alike.values(), key=lambda found: -len(found))[:_SHOWN]:
        console.print(f"failed, {len(found)} x: {found[0][0]}")
        cells = [f"{cell[:12]} {describe(rows.config(cell))}" for _, cell in found[:3]]
        more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
        console.print(f"  {'; '.join(cells)}{more}")
    if alike:
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
