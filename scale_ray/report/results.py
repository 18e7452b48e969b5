"""What a study has in its store, as an object that a notebook shows: records, tables, answer and report."""

from collections.abc import Collection
from functools import cached_property
from html import escape
from pathlib import Path

import pandas as pd

from scale_ray.report.build import Asked, default_folder, write_report
from scale_ray.report.page.answer import answer
from scale_ray.report.read.completeness import check
from scale_ray.report.read.errors import ReportError
from scale_ray.report.read.load import load
from scale_ray.report.tables.forms import grids
from scale_ray.report.tables.grid import Stack, first_metrics, stacks
from scale_ray.report.tables.html import html
from scale_ray.report.tables.markdown import markdown
from scale_ray.store import Store


class Table:
    """One table of a study: means ± standard deviation over seeds, by row and column.

    A notebook shows it with the interval of each mean below it; with two seeds, the value of each.

    Args:
        stack: what it shows.

    Attributes:
        title: what its numbers are.
        metric: `target_accuracy`, `teacher_accuracy`, `source_val_accuracy`, or a validator's score.
    """

    def __init__(self, stack: Stack):
        self.stack, self.title, self.metric = stack, stack.title, stack.metric

    @property
    def frame(self) -> pd.DataFrame:
        """One row an entry: group, row, column, mean, std, low and high (percent), n seeds, cells done and planned."""
        names = ["mean", "std", "low", "high", "n", "done", "planned"]
        rows = [
            [grid.group, *position, *(getattr(entry, name) for name in names)]
            for grid in self.stack.grids
            for position, entry in grid.entries.items()
        ]
        return pd.DataFrame(rows, columns=["group", "row", "column", *names])

    def _repr_html_(self) -> str:
        return html(self.stack, small_print=True)

    def __repr__(self) -> str:
        return markdown(self.stack)


class Results:
    """What a study has in its store. A notebook shows the answer in sentences, and the tables below it.

    Args:
        store: folder or URL.
        study: only the cells that this study planned; None: all of the store.
        allow: kinds of mixed records to accept, see `completeness.check`.

    Attributes:
        cells: one row a cell, as `load` returns them.
        store, study: as given.

    Raises:
        StoreError: no such store, or a file in it that cannot be read.
        ReportError: no such study.
    """

    def __init__(self, store: str | Path, study: str | None = None, allow: Collection[str] = ()):
        self.store, self.study, self._allow = str(store), study, tuple(allow)
        self._loaded = load(store, study=study, oracle=True)
        self.cells = self._loaded.drop(columns="oracle_accuracy")

    @property
    def done(self) -> int:
        """Cells with a result."""
        return self._number("done")

    @property
    def failed(self) -> int:
        """Cells whose last run ended with an error: see the column `error` of `cells`."""
        return self._number("failed")

    @property
    def to_do(self) -> int:
        """Cells that the same `run` would train: failed ones, and those without a result."""
        return len(self._counted) - self.done

    @cached_property
    def tables(self) -> list[Table]:
        """The tables of the report: combinations by backbone, methods by domain pair, each by metric.

        Where no target has labels, they show validators instead of accuracies.

        Raises:
            ReportError: the records do not belong in one table.
        """
        cells, remarks = self._checked
        return [Table(stack) for stack in stacks(grids(cells, remarks=remarks))]

    @cached_property
    def answer(self) -> str:
        """What the report says first: what is best, by how much, how sure, and what is missing.

        Raises:
            ReportError: the records do not belong in one table.
        """
        cells, _ = self._checked
        return answer(cells, location=self.store).text

    def report(self, out: str | Path | None = None) -> Path:
        """Write the report with all tables, figures and the page, and return the page's path.

        Args:
            out: its folder. Default: `report` in the store, or in this folder for a URL.

        Raises:
            UserError: nothing is there to report, or the folder cannot be written to.
        """
        folder = default_folder(Store(self.store)) if out is None else out
        return write_report(self.store, folder, Asked(study=self.study, allow=self._allow)).page

    @cached_property
    def _checked(self) -> tuple[pd.DataFrame, list[str]]:
        return check(self._loaded, self._allow)

    @property
    def _counted(self) -> pd.DataFrame:
        return self.cells[~self.cells["superseded"]]

    def _number(self, status: str) -> int:
        return int((self._counted["status"] == status).sum())

    def _repr_html_(self) -> str:
        try:
            paragraphs = [str(self), *self.answer.splitlines()]
            tables = [table._repr_html_() for table in map(Table, first_metrics(table.stack for table in self.tables))]
        except ReportError as error:  # an object that cannot be shown would be a traceback wherever it is named
            paragraphs, tables = [str(self), *str(error).splitlines()], []
        return "".join([*(f"<p>{escape(text)}</p>" for text in paragraphs), *tables])

    def __repr__(self) -> str:
        name = f"{self.study} in {self.store}" if self.study else self.store
        failed = f" ({self.failed} failed)" if self.failed else ""
        return f"{name}: {len(self._counted)} cells, {self.done} done, {self.to_do} to do{failed}"
