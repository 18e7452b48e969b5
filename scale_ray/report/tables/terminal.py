"""Tables for the terminal."""

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from scale_ray.report.tables.grid import Entry, Grid, Stack
from scale_ray.report.tables.text import beside_text, entry_text


def terminal_table(stack: Stack) -> Table:
    """A rich table: `rich.print(terminal_table(stack))`."""
    caption = Text("\n".join(stack.notes), style="dim")
    table = Table(title=Text(stack.title), caption=caption, caption_justify="left", title_justify="left")
    table.add_column("", no_wrap=True)
    for column in stack.all_columns:
        table.add_column(Text(column), justify="right")
    for grid in stack.grids:
        if grid.group:
            table.add_row(Text(grid.group, style="italic"))
        for row in grid.all_rows:
            table.add_row(Text(row), *(Text(text, style=style) for text, style in _styled(stack, grid, row)))
        table.add_section()
    return table


def _styled(stack: Stack, grid: Grid, row: str) -> Iterator[tuple[str, str]]:
    for column in grid.columns:
        entry = grid.entries.get((row, column), Entry())
        yield entry_text(entry, grid), "yellow" if entry.mean is None else "bold" if (row, column) in grid.best else ""
    yield from ((beside_text(grid, (row, column)), "dim") for column in stack.beside)
