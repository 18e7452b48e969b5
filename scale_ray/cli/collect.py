"""scale-ray report and status: what a store holds. Neither needs torch or ray."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from scale_ray.cli.console import console
from scale_ray.store import Store, is_current

StoreFolder = Annotated[Path, typer.Argument(metavar="STORE", help="The folder that a study was run into.")]


def report(
    store: StoreFolder,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where the report goes. Default: STORE/report.")
    ] = None,
) -> None:
    """Collect a store's records into tables, figures and one HTML page. Needs neither torch nor ray."""
    from scale_ray.report import grids, load, terminal_grid, write_report

    paths = write_report(store, out or store / "report")
    for grid in grids(load(store)):
        if grid.metric == "target_accuracy":
            console.print(terminal_grid(grid))
    console.print(f"report: {paths.page}")


def status(store: StoreFolder) -> None:
    """Say how far each study in a store is."""
    opened = Store(store)
    plans = opened.plans()
    if not plans:
        console.print(f"{opened.root}: no study, {sum(1 for _ in opened.records())} records")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("study", "cells", "done", "failed", "to do", "unfinished with a checkpoint"):
        table.add_column(heading, justify="left" if heading == "study" else "right")
    for plan in plans:
        records = {cell.id: opened.read_record(cell.id) for cell in plan.cells}
        done = sum(is_current(record) for record in records.values())
        failed = sum(record is not None and record.status == "failed" for record in records.values())
        begun = sum(opened.checkpoint_path(key).exists() for key, record in records.items() if not is_current(record))
        row = (len(records), done, failed, len(records) - done - failed, begun)
        table.add_row(plan.name, *map(str, row))
    console.print(table)
