"""scale-ray report and status: what a store holds. Neither needs torch or ray."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scale_ray.cli import complete
from scale_ray.cli.console import console, print_frame
from scale_ray.cli.read import split_list
from scale_ray.cli.searches import holds_searches_alone, page_name, search_names, write_search_pages
from scale_ray.store import Store

if TYPE_CHECKING:
    from scale_ray.report.selection.text import Chosen

TABLES = "Tables"
FIGURES = "Figures"
Choose = Annotated[
    str | None,
    typer.Option(
        metavar="VALIDATOR",
        autocompletion=complete.chooser,
        help="Say what to use without target labels: by transfer_score, ensv (which reads --keep-predictions) …",
    ),
]
StoreLocation = Annotated[
    str, typer.Argument(metavar="STORE", help="What a study was run into: a folder, s3://… or gs://….")
]


def report(
    store: StoreLocation,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where the report goes. Default: STORE/report, or ./report for a URL."),
    ] = None,
    study: Annotated[str | None, typer.Option(metavar="NAME", help="Only the cells that this study planned.")] = None,
    rows: Annotated[
        str | None,
        typer.Option(
            metavar="AXIS",
            help="One more table: a config field as in losses.threshold, or pair, method, losses, backbone, seed.",
            rich_help_panel=TABLES,
        ),
    ] = None,
    columns: Annotated[str | None, typer.Option(metavar="AXIS", help="Its other axis.", rich_help_panel=TABLES)] = None,
    facet: Annotated[
        str | None, typer.Option(metavar="AXIS", help="One such table for each value.", rich_help_panel=TABLES)
    ] = None,
    published: Annotated[
        bool,
        typer.Option("--published", help="Other authors' figures beside.", rich_help_panel=TABLES),
    ] = False,
    oracle: Annotated[
        bool,
        typer.Option(
            "--oracle",
            help="Best epochs, and the regret of every validator: by target labels.",
            rich_help_panel=TABLES,
        ),
    ] = False,
    choose: Choose = None,
    baseline: Annotated[
        str,
        typer.Option(
            metavar="LABEL", help="What the others are compared with: ce, ce+ssl, dann.", rich_help_panel=TABLES
        ),
    ] = "ce",
    figures: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Figures of each kind at most, and effects of as many groups of settings; tables are always of all.",
            rich_help_panel=FIGURES,
        ),
    ] = 3,
    confusion: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID",
            help="Draw this trial's confusion matrix and the accuracy of each class; the id's beginning is enough. "
            "Repeat it.",
            rich_help_panel=FIGURES,
        ),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Images of a benchmark, for the gallery of the most certain errors, of cells with stored predictions. "
            "Default: the folder that the study's command names.",
            rich_help_panel=FIGURES,
        ),
    ] = None,
    parquet: Annotated[bool, typer.Option("--parquet", help="Write cells.parquet and curves.parquet too.")] = False,
    allow: Annotated[
        str,
        typer.Option(
            metavar="KINDS",
            help="Make tables although records are mixed: recipe, duplicates, code, data, with commas between. Every "
            "table says so.",
        ),
    ] = "",
) -> None:
    """Collect a store's records into tables, figures and one HTML page. Needs neither torch nor ray."""
    from scale_ray.report import ReportError, stacks, terminal_table, write_report
    from scale_ray.report.build import Asked, default_folder
    from scale_ray.report.effects.claims import TOO_FEW
    from scale_ray.report.tables.grid import first_metrics

    asked = Asked(
        study=study,
        allow=tuple(split_list(allow)),
        rows=rows,
        columns=columns,
        facet=facet,
        published=published,
        oracle=oracle,
        choose=choose,
        parquet=parquet,
        baseline=baseline,
        confusion=confusion or (),
        most_drawn=figures,
        root=root,
    )
    opened = Store(store)
    out = out or default_folder(opened)
    searches = [] if study else search_names(opened)
    if searches and holds_searches_alone(opened, searches):
        if given := asked.options():
            raise ReportError(
                f"{opened.location} holds searches alone, and {', '.join(word for word in given if word[:2] == '--')} "
                "cannot change their pages: leave it out"
            )
        pages = write_search_pages(opened, searches, out, first="report.html")
        console.print(f"report: {', '.join(map(str, pages))}")
        return
    paths = write_report(store, out, replace(asked, searches={name: page_name(name) for name in searches}))
    console.print(paths.answer.text)
    form = f"{rows}_by_{columns}" if rows else None
    for stack in first_metrics(stacks(paths.grids)):
        if form in (None, stack.form):
            console.print(terminal_table(stack))
    if paths.chosen is not None:
        _print_choice(paths.chosen)
    if paths.missing:
        console.print(f"holes: {paths.missing} planned cells have no result: {paths.holes}")
    if len(paths.claims):
        verdicts = Counter(paths.claims["verdict"])
        told = ", ".join(f"{verdict}: {verdicts[verdict]}" for verdict in ("holds", "does not hold", TOO_FEW))
        console.print(f"the paper's claims on these cells: {told}")
    for step in paths.answer.steps:
        console.print(f"next: {step.text}")
        if step.command:
            console.print_command(step.command)
    if searches:
        write_search_pages(opened, searches, out)
    console.print(f"report: {paths.page}")


def _print_choice(chosen: "Chosen") -> None:
    from scale_ray.report.selection.text import as_text

    print_frame(as_text(chosen.frame))
    for note in chosen.notes:
        console.print(note)
