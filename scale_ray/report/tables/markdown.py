"""Tables as GitHub-flavoured Markdown."""

import pandas as pd

from scale_ray.report.tables.grid import Stack
from scale_ray.report.tables.text import row_texts


def markdown(stack: Stack) -> str:
    """A table under its title, followed by its notes. The best of a column is bold, the label of a group italic."""
    columns = stack.all_columns
    table = [["", *map(escape, columns)]]
    for grid in stack.grids:
        if grid.group:
            table.append([f"*{escape(grid.group)}*", *[""] * len(columns)])
        table += [[escape(row), *row_texts(stack, grid, row, escape, _bold)] for row in grid.all_rows]
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    lines = [_line([text.ljust(width) for text, width in zip(line, widths, strict=True)]) for line in table]
    first, *others = widths
    rule = f"|{'|'.join(['-' * (first + 2), *('-' * (width + 1) + ':' for width in others)])}|"
    notes = [f"- {escape(note)}" for note in stack.notes]
    return "\n".join([f"### {escape(stack.title)}", "", lines[0], rule, *lines[1:], "", *notes]).rstrip() + "\n"


def table_lines(table: pd.DataFrame) -> list[str]:
    """The lines of a Markdown table with the texts of a frame."""
    rows = [[escape(text) for text in row] for row in table.to_numpy(dtype=str)]
    return [_line(row) for row in [[str(name) for name in table], ["---"] * table.shape[1], *rows]]


def escape(text: str) -> str:
    return "".join(f"\\{mark}" if mark in "\\|*<" else mark for mark in text)


def _bold(text: str) -> str:
    return f"**{text}**"


def _line(texts: list[str]) -> str:
    return f"| {' | '.join(texts)} |"
