"""From a store to a folder: records, tables, figures and the page. The same store gives the same bytes."""

import io
import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from scale_ray.records import Record
from scale_ray.report.effects import text as effects_text
from scale_ray.report.effects.decided import decided, with_equal_seeds
from scale_ray.report.effects.tables import BASELINE, Effects, effects_tables
from scale_ray.report.figures.drawings import Material, drawings, of_trial
from scale_ray.report.figures.style import render, save
from scale_ray.report.page.answer import Answer, answer
from scale_ray.report.page.at_hand import images_in, root_in
from scale_ray.report.page.gallery import galleries
from scale_ray.report.page.page import page
from scale_ray.report.page.template import Picture
from scale_ray.report.page.trials import listed
from scale_ray.report.read.completeness import check, holes
from scale_ray.report.read.curves import Curves
from scale_ray.report.read.errors import ReportError
from scale_ray.report.read.load import load
from scale_ray.report.selection.agreement import agreement, agreement_notes
from scale_ray.report.selection.candidates import candidates
from scale_ray.report.selection.choose import choice, choice_notes, choice_scores, choice_warnings
from scale_ray.report.selection.regret import REGRET_NOTES, regrets
from scale_ray.report.selection.text import CELLS, Chosen, as_text
from scale_ray.report.tables.axes import tabulate
from scale_ray.report.tables.csv import frame_to_csv
from scale_ray.report.tables.formats import FORMATS
from scale_ray.report.tables.forms import FORMS, grids
from scale_ray.report.tables.grid import Grid, stacks
from scale_ray.report.tables.markdown import escape, table_lines
from scale_ray.store import Store
from scale_ray.store.files import replace_file
from scale_ray.store.whole_files import remove_temporaries

MOST_DRAWN = 3  # as many as the paper has backbones; each figure takes some seconds


class ReportPaths(NamedTuple):
    """The files that `write_report` wrote, and the grids in them."""

    page: Path
    records: Path
    holes: Path
    tables: list[Path]  # Markdown, CSV, LaTeX and HTML of each form
    effects: list[Path]  # effects.md and .tex, and each table of effects as CSV
    choice: list[Path]  # validators.csv and .md; on request choice, scores, and with the oracle regret
    figures: list[Path]  # PNG, SVG and PDF
    parquet: list[Path]  # cells and curves, on request
    grids: list[Grid]  # as in `tables`
    claims: pd.DataFrame  # see effects.claims.claims
    chosen: Chosen | None  # on request
    missing: int  # planned cells without a result
    answer: Answer  # what the page opens with


@dataclass(frozen=True)
class Asked:
    """The options of a report.

    Args:
        study: report only this study's cells.
        allow: kinds of mixed records to accept, see `completeness.check`.
        rows, columns, facet: axes of an additional table, see `axes.tabulate`.
        published: show other authors' accuracies beside the measured ones, where the package has some of the benchmark.
        oracle: show best epochs, chosen by target labels, beside the last iterates, and the regret of the validators.
        choose: the validator that chooses a method and setting, see `choose.choice`.
        parquet: also write cells and curves as Parquet.
        baseline: the label that others are compared with, see `comparisons.against_baseline`.
        confusion: trials whose confusion matrices to draw: ids or their first characters.
        most_drawn: the most figures of each kind, and the most facets to compute effects for. Grids always cover all
            cells.
        root: folder of the images of an image benchmark, for the gallery of errors; None: the one that the command of
            the store's studies names.
        searches: name -> file of its page, of the store's searches; cells that only they planned are on those pages.
    """

    study: str | None = None
    allow: Collection[str] = ()
    rows: str | None = None
    columns: str | None = None
    facet: str | None = None
    published: bool = False
    oracle: bool = False
    choose: str | None = None
    parquet: bool = False
    baseline: str = BASELINE
    confusion: Collection[str] = ()
    most_drawn: int = MOST_DRAWN
    root: Path | None = None
    searches: Mapping[str, str] = field(default_factory=dict)

    def options(self) -> list[str]:
        """The options of `scale-ray report` that ask for this, without those that are as by default."""
        usual = Asked()
        words: list[str] = []
        for name, option in _OPTIONS.items():
            value = getattr(self, name)
            if value == getattr(usual, name):
                continue
            if name == "confusion":
                words += [word for trial in value for word in (option, trial)]
            else:
                words += [option] if value is True else [option, ",".join(value) if name == "allow" else str(value)]
        return words


_OPTIONS = {name: f"--{name}" for name in ("study", "allow", "rows", "columns", "facet", "published", "oracle")} | {
    **{name: f"--{name}" for name in ("choose", "parquet", "baseline", "confusion", "root")},
    "most_drawn": "--figures",
}


def default_folder(store: Store) -> Path:
    """Where the report of a store goes unless another folder is asked for."""
    return (store.folder or Path.cwd()) / "report"


def write_report(store: str | Path, out: str | Path, asked: Asked | None = None) -> ReportPaths:
    """Write the report of a store into the folder `out`, which is created if needed.

    Raises:
        StoreError: the store does not exist, something in it cannot be read, or `out` is not writable.
        ReportError: there is nothing to report, the records do not belong in one table (see `completeness.check`), an
            axis is impossible (see `axes.tabulate`), the baseline or the study does not exist, a trial has no confusion
            matrix or no score to choose by, or `out` is a file.
        ConfigError: there is no validator of the name that is asked for.
    """
    asked = asked or Asked()
    loaded, curves = load(store, study=asked.study, oracle=True), Curves(Store(store))
    loaded = loaded[~_of_searches_alone(loaded, asked.searches)].reset_index(drop=True)
    if loaded.empty:
        raise ReportError(f"store {store}: neither a study plan nor a record in it: run a study into it first")
    if (asked.rows is None) != (asked.columns is None) or (asked.facet and asked.rows is None):
        raise ReportError("--rows, --columns, --facet: a table needs both rows and columns: name the two")
    cells, remarks = check(loaded, asked.allow)
    shown_trials = [_record(store, trial) for trial in asked.confusion]
    found = grids(cells, remarks=remarks, published=asked.published, oracle=asked.oracle)
    if asked.rows and asked.columns:
        found += tabulate(cells, asked.rows, asked.columns, asked.facet, remarks=remarks, oracle=asked.oracle)
    effects = effects_tables(cells, asked.baseline, most=asked.most_drawn)
    plans = list(Store(store).plan_files())
    shown_plans = [plan for plan in plans if asked.study in (None, plan.name)]
    of_choice = _choice_tables(with_equal_seeds(cells, shown_plans), Store(store), asked, remarks)
    of_decisions, notes = decided(cells, shown_plans)
    commands = {plan.name: plan.command for plan in plans}
    if len(of_decisions):
        of_choice["decisions"] = Chosen(of_decisions, notes)
    of_page = curves.of(listed(cells)["cell"])  # before anything is written: a record may have become unreadable
    from scale_ray.data.roots import read_root

    root = read_root(asked.root, ())
    out = Path(out)
    try:
        (out / "figures").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReportError(f"{out}: cannot hold a report ({error.strerror}): choose another folder") from None

    shown = loaded if asked.oracle else loaded.drop(columns="oracle_accuracy")
    records = _write_csv(out / "records.csv", shown.drop(columns="traceback"))
    missing = holes(cells)
    tables = []
    for form in dict.fromkeys([*FORMS, *(grid.form for grid in found)]):
        share = stacks(grid for grid in found if grid.form == form)
        tables += [_write(out / f"{form}.{ending}", write(share)) for ending, write in FORMATS.items()]
    of_effects = _write_effects(out, effects)
    choice_files = [path for name, table in of_choice.items() for path in _write_table(out / name, table)]
    parquet = []
    if asked.parquet:
        parquet = [
            _write_parquet(out / "cells.parquet", shown),
            _write_parquet(out / "curves.parquet", curves.of(loaded["cell"])),
        ]

    drawn = drawings(Material(found, cells, curves, effects), asked.most_drawn)
    figures: list[Path] = []
    on_page: dict[str, dict[str, list[Picture]]] = {}
    for drawing in itertools.chain(drawn, *map(of_trial, shown_trials)):
        paths = save(drawing.figure, out / "figures" / drawing.name)
        figures += paths
        if drawing.heading:
            of_benchmark = on_page.setdefault(drawing.benchmark, {})
            narrow = None if drawing.narrow is None else render(drawing.narrow, "svg")
            picture = Picture(drawing.title, paths[1].read_bytes(), narrow)
            of_benchmark.setdefault(drawing.heading, []).append(picture)
    agreed = of_choice.get("validators")
    first = answer(
        cells,
        baseline=asked.baseline,
        choice=of_choice,
        agreed=None if agreed is None else agreed.frame,
        commands=commands,
        location=str(store),
        options=[*asked.options(), *(() if out == default_folder(Store(store)) else ("--out", str(out)))],
    )
    reach = images_in(root or root_in(commands.values()))
    text = page(
        cells,
        found,
        on_page,
        curves=of_page,
        effects=effects,
        choice=of_choice,
        agreed=agreed,
        galleries=galleries(Store(store), _of_interest(cells, of_choice), reach),
        first=first,
        searches=asked.searches,
    )
    written = ReportPaths(
        page=_write(out / "report.html", text),
        records=records,
        holes=_write_csv(out / "holes.csv", missing),
        tables=tables,
        effects=of_effects,
        choice=choice_files,
        figures=figures,
        parquet=parquet,
        grids=found,
        claims=effects.frames["claims"],
        chosen=of_choice.get("choice"),
        missing=len(missing),
        answer=first,
    )
    _remove_temporaries(written)
    return written


def _of_searches_alone(cells: pd.DataFrame, searches: Collection[str]) -> "pd.Series[bool]":
    planned = cells["study"].fillna("").str.split(", ")
    return pd.Series([set(names) <= set(searches) for names in planned], index=cells.index, dtype=bool)


def _remove_temporaries(paths: ReportPaths) -> None:
    """Remove what killed reports left of these files, and nothing of any other program."""
    written = [
        paths.page,
        paths.records,
        paths.holes,
        *paths.tables,
        *paths.effects,
        *paths.choice,
        *paths.figures,
        *paths.parquet,
    ]
    for folder, files in itertools.groupby(sorted(written), key=lambda path: path.parent):
        remove_temporaries(folder, {path.name for path in files})


def _record(store: str | Path, trial: str) -> Record:
    """The only record whose id starts with `trial`."""
    opened = Store(store)
    found = opened.id_of(trial)
    record = opened.read_record(found)
    if record is None or record.result is None or not record.result.confusion:
        raise ReportError(
            f"--confusion {trial}: the record of cell {found} in {opened.location} has no confusion matrix (a "
            "failed trial or an old record): name another trial"
        )
    return record


def _write_effects(out: Path, effects: Effects) -> list[Path]:
    """Write effects as text, and each table with rows as CSV. Delete an earlier report's file of an empty table."""
    texts = {"md": effects_text.markdown(effects), "tex": effects_text.latex(effects)}
    paths = [_write(out / f"effects.{kind}", text) for kind, text in texts.items()]
    for name, frame in effects.frames.items():
        path = out / f"{name}.csv"
        if frame.empty:
            path.unlink(missing_ok=True)
        else:
            paths.append(_write_csv(path, frame))
    return paths


def _choice_tables(cells: pd.DataFrame, store: Store, asked: Asked, remarks: list[str]) -> dict[str, Chosen]:
    """File name -> table of choice: what each validator would choose, and those that were asked for."""
    done = cells[~cells["superseded"] & (cells["status"] == "done")]
    tables: dict[str, Chosen] = {}
    if done.empty and asked.choose is None:
        return tables
    # Predictions are read on request alone: they may be as large as the data.
    found = candidates(done, store if asked.choose is not None or asked.oracle else None)
    if asked.choose is not None:
        notes = choice_notes(found, asked.choose)
        warnings = choice_warnings(found, asked.choose)
        tables["choice"] = Chosen(choice(found, asked.choose), [*notes, *remarks], warnings)
        tables["scores"] = Chosen(choice_scores(found, asked.choose), [])
    if asked.oracle:
        tables["regret"] = Chosen(regrets(found), [*REGRET_NOTES, *found.notes, *remarks])
    agreed = agreement(found)
    if len(agreed):
        tables["validators"] = Chosen(agreed, [*agreement_notes(agreed), *found.notes])
    return tables


def _of_interest(cells: pd.DataFrame, of_choice: dict[str, Chosen]) -> list[str]:
    """Ids of the trainings whose errors are shown: of what was chosen, else of the highest average accuracy."""
    if "choice" in of_choice:
        return " ".join(of_choice["choice"].frame[CELLS]).split()
    done = cells[~cells["superseded"] & (cells["status"] == "done") & cells["target_accuracy"].notna()]
    if done.empty:
        return []
    means = done.groupby(["benchmark", "backbone", "variant", "losses"])["target_accuracy"].transform("mean")
    best = means == means.groupby([done["benchmark"], done["backbone"]]).transform("max")
    return list(done[best].sort_values(["seed", "pair"], kind="stable")["cell"])


def _write_table(path: Path, table: Chosen) -> list[Path]:
    """Write a table as CSV and as Markdown with its notes."""
    lines = [*table_lines(as_text(table.frame)), "", *(f"- {escape(note)}" for note in table.notes)]
    return [
        _write_csv(path.with_suffix(".csv"), table.frame),
        _write(path.with_suffix(".md"), "\n".join(lines) + "\n"),
    ]


def _write_csv(path: Path, frame: pd.DataFrame) -> Path:
    return _write(path, frame_to_csv(frame))


def _write_parquet(path: Path, frame: pd.DataFrame) -> Path:
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return _write(path, buffer.getvalue())


def _write(path: Path, content: str | bytes) -> Path:
    replace_file(path, content.encode() if isinstance(content, str) else content)
    return path
