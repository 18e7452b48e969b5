"""Tables as HTML fragments without styles."""

from html import escape

from scale_ray.report.tables.grid import Entry, Grid, Stack
from scale_ray.report.tables.text import interval_text, question, row_texts


def html(stack: Stack, *, small_print: bool = False) -> str:
    """A `<table>` with its caption and one body per group, followed by the notes as a list.

    With `small_print`, each mean has its interval below it, or the seeds where they are too few for one.
    """
    columns = stack.all_columns
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    lines = [
        '<table class="grid">',
        f"<caption>{escape(stack.title)}</caption>",
        f"<thead><tr><th></th>{head}</tr></thead>",
    ]
    for grid in stack.grids:
        lines.append("<tbody>")
        if grid.group:
            label = f'<th scope="rowgroup" colspan="{len(columns) + 1}">{escape(grid.group)}</th>'
            lines.append(f'<tr class="group">{label}</tr>')
        for row in grid.all_rows:
            texts = row_texts(stack, grid, row, escape, lambda text: f"<strong>{text}</strong>")
            if small_print:
                texts = [text + below for text, below in zip(texts, _below(stack, grid, row), strict=True)]
            lines.append(f'<tr><th scope="row">{escape(row)}</th>{"".join(f"<td>{text}</td>" for text in texts)}</tr>')
        lines.append("</tbody>")
    lines.append("</table>")
    notes = [question(stack), *stack.notes] if small_print else stack.notes
    if notes:
        lines += ['<ul class="notes">', *(f"<li>{escape(note)}</li>" for note in notes), "</ul>"]
    return "\n".join(lines) + "\n"


def _below(stack: Stack, grid: Grid, row: str) -> list[str]:
    """What is below each entry of a row; nothing below the columns beside them."""
    texts = [interval_text(grid.entries.get((row, column), Entry())) for column in grid.columns]
    return [f"<br><small>{text}</small>" if text else "" for text in texts] + [""] * len(stack.beside)
