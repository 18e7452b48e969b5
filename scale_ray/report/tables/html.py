"""Tables as HTML fragments without styles."""

from html import escape

from scale_ray.report.tables.grid import Stack
from scale_ray.report.tables.text import row_texts


def html(stack: Stack) -> str:
    """A `<table>` with its caption and one body per group, followed by the notes as a list."""
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
            lines.append(f'<tr><th scope="row">{escape(row)}</th>{"".join(f"<td>{text}</td>" for text in texts)}</tr>')
        lines.append("</tbody>")
    lines.append("</table>")
    if stack.notes:
        lines += ['<ul class="notes">', *(f"<li>{escape(note)}</li>" for note in stack.notes), "</ul>"]
    return "\n".join(lines) + "\n"
