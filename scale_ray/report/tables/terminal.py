"""Tables for the terminal."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from scale_ray.report.tables.grid import Entry, Grid, Stack
from scale_ray.report.tables.text import beside_text, entry_text

_AROUND = 3  # two spaces and a line of each column


@dataclass(frozen=True)
class TerminalTable:
    """A stack as text. Columns that are too many for the console's width go into further tables with the same rows."""

    stack: Stack

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(self.stack.title, style="italic")
        rows = [(grid, row) for grid in self.stack.grids for row in grid.all_rows]
        texts = {(grid.group, row): list(_styled(self.stack, grid, row)) for grid, row in rows}
        below = [max(len(text) for text in column) for column in zip(*texts.values(), strict=True)]
        labels = min(max(len(label) for key in texts for label in key), options.max_width // 2)
        room = options.max_width - labels - _AROUND - 1
        headings = self.stack.all_columns
        if sum(_widths(headings, below)) > room:
            headings = [heading.replace(">", ">\n") for heading in headings]  # domain pairs, in two lines
        for columns in _fitting(_widths(headings, below), room):
            table = Table()
            table.add_column("", overflow="fold", width=labels)
            for column in columns:
                table.add_column(Text(headings[column]), justify="right", overflow="fold")
            for grid in self.stack.grids:
                if grid.group:
                    table.add_row(Text(grid.group, style="italic"))
                for row in grid.all_rows:
                    table.add_row(Text(row), *(texts[grid.group, row][column] for column in columns))
                table.add_section()
            yield table
        yield from (Text(note, style="dim") for note in self.stack.notes)


def terminal_table(stack: Stack) -> TerminalTable:
    """A table for rich: `rich.print(terminal_table(stack))`."""
    return TerminalTable(stack)


def _widths(headings: Sequence[str], below: Sequence[int]) -> list[int]:
    """Of each column, with what is around it."""
    lines = (max(map(len, heading.splitlines())) for heading in headings)
    return [max(line, width) + _AROUND for line, width in zip(lines, below, strict=True)]


def _fitting(widths: Sequence[int], room: int) -> Iterator[list[int]]:
    """Positions of the columns of each table: as many as there is room for, and at least one."""
    columns: list[int] = []
    for position in range(len(widths)):
        if columns and sum(widths[column] for column in (*columns, position)) > room:
            yield columns
            columns = []
        columns.append(position)
    yield columns


def _styled(stack: Stack, grid: Grid, row: str) -> Iterator[Text]:
    for column in grid.columns:
        entry = grid.entries.get((row, column), Entry())
        style = "yellow" if entry.mean is None else "bold" if (row, column) in grid.best else ""
        yield Text(entry_text(entry, grid), style)
    yield from (Text(beside_text(grid, (row, column)), "dim") for column in stack.beside)
