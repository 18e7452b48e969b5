"""Stacks of grids as text: Markdown, CSV, LaTeX (booktabs), HTML and a table for the terminal."""

import csv
import io
from collections.abc import Callable, Iterable
from html import escape

from rich.table import Table
from rich.text import Text

from scale_ray.report.grid import Cell, Grid, Place, Stack

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", ">": r"$\rightarrow$", "<": r"$<$",
    "±": r"$\pm$", "†": r"$^\dagger$", "—": "---",
}  # fmt: skip


def cell_text(cell: Cell, grid: Grid) -> str:
    """`94.2 ± 0.3`, `94.2 ± 0.3 (n=2) †` where n differs over the grid or records lack, or why there is no number."""
    if cell.mean is None:
        return _reason(cell)
    spread = "" if cell.std is None else f" ± {cell.std:.1f}"
    count = "" if grid.seeds is not None else f" (n={cell.n})"
    return f"{cell.mean:.1f}{spread}{count}{' †' if cell.done < cell.planned else ''}"


def beside_text(grid: Grid, place: Place) -> str:
    """A figure beside the measured ones: `72.2`, or `—` where there is none."""
    mean, std = grid.beside_figure(place)
    if mean is None:
        return "—"
    return f"{mean:.1f}" if std is None else f"{mean:.1f} ± {std:.1f}"


def _reason(cell: Cell) -> str:
    if cell.planned == 0:
        return "—"
    if cell.measured:
        return "nothing in common"
    if cell.done:
        return "no teacher"
    states = {"failed": cell.failed, "missing": cell.missing, "stale": cell.stale}
    present = [status for status, count in states.items() if count]
    if present == ["missing"]:
        return "missing"
    return ", ".join(f"{status} ({states[status]})" for status in present)


def markdown(stack: Stack) -> str:
    """A GitHub-flavoured table under its title, with the notes below; the best of a column is bold, a group italic."""
    columns = _head(stack)
    table = [["", *map(_markdown_escape, columns)]]
    for grid in stack.grids:
        if grid.group:
            table.append([f"*{_markdown_escape(grid.group)}*", *[""] * len(columns)])
        for row in grid.all_rows:
            texts = _texts(stack, grid, row, _markdown_escape, lambda text: f"**{text}**")
            table.append([_markdown_escape(row), *texts])
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    lines = [f"| {' | '.join(text.ljust(width) for text, width in zip(line, widths, strict=True))} |" for line in table]
    rule = (
        "|"
        + "|".join("-" * (width + 2) if index == 0 else "-" * (width + 1) + ":" for index, width in enumerate(widths))
        + "|"
    )
    notes = [f"- {_markdown_escape(note)}" for note in stack.notes]
    return (
        "\n".join([f"### {_markdown_escape(stack.title)}", "", lines[0], rule, *lines[1:], "", *notes]).rstrip() + "\n"
    )


def comma_separated(stacks: Iterable[Stack]) -> str:
    """One line a place of every grid, numbers to 4 places; an empty mean says that there is none.

    `low` and `high` are the 95 % interval of the mean, for these very pairs and other seeds. `best` is 1 where the
    place is the best of its group's column and that holds up. Lines of columns beside the measured ones (published,
    oracle) have no counts.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head = ["mean", "std", "low", "high", "n", "planned", "done", "failed", "missing", "stale", "best"]
    writer.writerow(["benchmark", "facet", "metric", "group", "row", "column", *head, "text"])
    for grid in (grid for stack in stacks for grid in stack.grids):
        of = [grid.benchmark, grid.facet, grid.metric, grid.group]
        for place, cell in grid.cells.items():
            counts = [cell.n, cell.planned, cell.done, cell.failed, cell.missing, cell.stale, int(place in grid.best)]
            figures = _numbers(cell.mean, cell.std, cell.low, cell.high)
            writer.writerow([*of, *place, *figures, *counts, cell_text(cell, grid)])
        for beside in grid.beside:
            for place, (mean, std) in beside.figures.items():
                empty = [""] * (len(head) - 2)
                writer.writerow([*of, *place, *_numbers(mean, std), *empty, beside_text(grid, place)])
    return out.getvalue()


def latex(stack: Stack) -> str:
    """A `table` environment; needs `\\usepackage{booktabs}` and nothing else. A rule and a label begin a group."""
    columns = _head(stack)
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{_latex_escape(stack.title)}.}}",
        rf"  \begin{{tabular}}{{l{'r' * len(columns)}}}",
        r"    \toprule",
        f"    {_latex_line(['', *map(_latex_escape, columns)])}",
    ]
    for grid in stack.grids:
        lines.append(r"    \midrule")
        if grid.group:
            label = rf"\textit{{{_latex_escape(grid.group)}}}"
            lines.append(rf"    \multicolumn{{{len(columns) + 1}}}{{l}}{{{label}}} \\")
        for row in grid.all_rows:
            texts = _texts(stack, grid, row, _latex_escape, _latex_bold)
            lines.append(f"    {_latex_line([_latex_escape(row), *texts])}")
    lines += [
        r"    \bottomrule",
        r"  \end{tabular}",
        *(rf"  \par\footnotesize {_latex_escape(note)}" for note in stack.notes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def html(stack: Stack) -> str:
    """A `<table>` with its caption, a body a group, and the notes as a list: a fragment without styles."""
    columns = _head(stack)
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
            texts = _texts(stack, grid, row, escape, lambda text: f"<strong>{text}</strong>")
            lines.append(f'<tr><th scope="row">{escape(row)}</th>{"".join(f"<td>{text}</td>" for text in texts)}</tr>')
        lines.append("</tbody>")
    lines.append("</table>")
    if stack.notes:
        lines += ['<ul class="notes">', *(f"<li>{escape(note)}</li>" for note in stack.notes), "</ul>"]
    return "\n".join(lines) + "\n"


def terminal_table(stack: Stack) -> Table:
    """A rich table: `rich.print(terminal_table(stack))`."""
    caption = Text("\n".join(stack.notes), style="dim")
    table = Table(title=Text(stack.title), caption=caption, caption_justify="left", title_justify="left")
    table.add_column("", no_wrap=True)
    for column in _head(stack):
        table.add_column(Text(column), justify="right")
    for grid in stack.grids:
        if grid.group:
            table.add_row(Text(grid.group, style="italic"))
        for row in grid.all_rows:
            table.add_row(Text(row), *(Text(text, style=style) for text, style in _styled(stack, grid, row)))
        table.add_section()
    return table


def _styled(stack: Stack, grid: Grid, row: str) -> Iterable[tuple[str, str]]:
    for column in grid.columns:
        cell = grid.cells.get((row, column), Cell())
        yield cell_text(cell, grid), "yellow" if cell.mean is None else "bold" if (row, column) in grid.best else ""
    yield from ((beside_text(grid, (row, column)), "dim") for column in stack.beside)


def _head(stack: Stack) -> list[str]:
    return [*stack.columns, *stack.beside]


def _texts(stack: Stack, grid: Grid, row: str, escaped: Callable[[str], str], bold: Callable[[str], str]) -> list[str]:
    """The row's places as they are written, the best of a column in bold."""
    texts = []
    for column in grid.columns:
        text = escaped(cell_text(grid.cells.get((row, column), Cell()), grid))
        texts.append(bold(text) if (row, column) in grid.best else text)
    return texts + [escaped(beside_text(grid, (row, column))) for column in stack.beside]


def _numbers(*values: float | None) -> list[str]:
    return ["" if value is None else f"{value:.4f}" for value in values]


def _markdown_escape(text: str) -> str:
    return "".join(f"\\{mark}" if mark in "\\|*<" else mark for mark in text)


def _latex_escape(text: str) -> str:
    return "".join(_LATEX.get(mark, mark) for mark in text)


def _latex_bold(text: str) -> str:
    return rf"\textbf{{{text}}}"


def _latex_line(texts: list[str]) -> str:
    return " & ".join(texts) + r" \\"
