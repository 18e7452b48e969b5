"""scale-ray report and status: what a store holds. Neither needs torch or ray."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from scale_ray.cli.console import console
from scale_ray.store import Store

StorePlace = Annotated[
    str, typer.Argument(metavar="STORE", help="What a study was run into: a folder, s3://… or gs://….")
]


def report(
    store: StorePlace,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where the report goes. Default: STORE/report, or ./report for a URL."),
    ] = None,
) -> None:
    """Collect a store's records into tables, figures and one HTML page. Needs neither torch nor ray."""
    from scale_ray.report import terminal_grid, write_report

    paths = write_report(store, out or (Store(store).folder or Path.cwd()) / "report")
    for grid in paths.grids:
        if grid.metric == "target_accuracy":
            console.print(terminal_grid(grid))
    console.print(f"report: {paths.page}")


def status(store: StorePlace) -> None:
    """Say how far each study in a store is."""
    opened = Store(store)
    plans = opened.plans()
    if not plans:
        console.print(f"{opened.location}: no study, {len(opened.record_ids())} records")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("study", "cells", "done", "failed", "to do", "unfinished with a checkpoint"):
        table.add_column(heading, justify="left" if heading == "study" else "right")
    known, checkpoints = opened.statuses(), set(opened.checkpoint_keys())
    for plan in plans:
        statuses = {cell.id: known.get(cell.id, "missing") for cell in plan.cells}
        counts = Counter(statuses.values())
        begun = sum(key in checkpoints for key, status in statuses.items() if status != "done")
        row = (len(statuses), counts["done"], counts["failed"], counts["missing"], begun)
        table.add_row(plan.name, *map(str, row))
    console.print(table)
