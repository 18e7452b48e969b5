"""scale-ray report and status: what a store holds. Neither needs torch or ray."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from scale_ray.cli.console import console
from scale_ray.store import Store

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
        statuses = {cell.id: opened.status(cell.id) for cell in plan.cells}
        counts = Counter(statuses.values())
        begun = sum(
            Path(opened.checkpoint_location(key)).exists() for key, status in statuses.items() if status != "done"
        )
        row = (len(statuses), counts["done"], counts["failed"], counts["missing"], begun)
        table.add_row(plan.name, *map(str, row))
    console.print(table)
