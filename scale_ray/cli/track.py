"""scale-ray track: what a store holds, sent to trackers. Needs neither torch nor ray."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scale_ray.cell import Cell
from scale_ray.cli import complete
from scale_ray.cli.console import console
from scale_ray.cli.interrupt import on_ctrl_c
from scale_ray.cli.options import TRACKER
from scale_ray.cli.report import StoreLocation
from scale_ray.config import ConfigError, check_name
from scale_ray.errors import UserError
from scale_ray.report.read.labels import count
from scale_ray.store import Store
from scale_ray.urls import redacted

if TYPE_CHECKING:
    from scale_ray.track import Names


def track(
    store: StoreLocation,
    to: Annotated[list[str], typer.Option("--to", metavar="TRACKER", autocompletion=complete.tracker, help=TRACKER)],
    study: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only the cells that this study planned. Default: all records."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Its report. Default: STORE/report, where there is one."),
    ] = None,
) -> None:
    """Send a store's records to trackers: one run for each cell.

    What a tracker shows already is not sent again, so the same command may run at any time.
    """
    from scale_ray.track import TrackError, open_trackers, report_files, send_records, send_report, study_cells
    from scale_ray.track.trackers import reason

    opened = Store(store)
    studies = dict(study_cells(opened))
    if not studies:
        raise ConfigError(f"{opened.location}: neither a study nor a record in it: run a study into it first")
    if study is not None:
        check_name("study", study, studies)
    trackers = open_trackers(to)
    on_ctrl_c("run the same command again to send the rest")
    recorded = set(opened.record_ids())
    for name, cells in studies.items():
        if study not in (None, name):
            continue
        names, present = _names(opened, name, cells), recorded.intersection(cell.id for cell in cells)
        files = report_files(opened, name, report, present)
        for shown, tracker in trackers.items():
            try:
                sent = send_records(tracker, name, [cell.id for cell in cells], names, opened)
                with_report = bool(files) and send_report(tracker, name, files)
            except UserError:
                raise
            except Exception as error:
                raise TrackError(f"{shown}: {reason(error)}: run the same command again to send the rest") from error
            and_report = ", and the report" if with_report else ""
            console.print(f"{shown}: {name}: {count(sent.sent, 'run')} sent{and_report}, {sent.there:,} there before")
    for tracker in trackers.values():
        tracker.close()


def show_report(targets: Sequence[str], store: Store, study: str) -> None:
    """Send the report that was just written; a tracker that fails is warned of."""
    from scale_ray.report.build import default_folder
    from scale_ray.track import open_trackers, report_files, send_report
    from scale_ray.track.trackers import reason

    if not targets:
        return
    files = report_files(store, study, default_folder(store))
    for target in targets:
        try:
            for tracker in open_trackers([target]).values():
                send_report(tracker, study, files)
                tracker.close()
        except Exception as error:  # noqa: BLE001 - of a tracker's own package, which has errors of every kind
            console.print(f"warning: {redacted(target)}: the report was not sent: {reason(error)}")


def _names(store: Store, study: str, cells: Sequence[Cell]) -> "Names":
    """What the runs are called: as they were while the study or search ran."""
    from scale_ray.cli.searches import search_names
    from scale_ray.track import Names

    if study not in search_names(store):
        return Names(cells)
    from scale_ray.tuning.view import read_search

    view = read_search(store, study)
    return Names(cells) if view is None else Names([], list(view.space))
