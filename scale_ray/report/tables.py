"""Grids as text: Markdown, CSV, LaTeX (booktabs) and a table for the terminal."""

import csv
import io
from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from scale_ray.report.aggregate import Cell, Grid

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


def markdown(grid: Grid) -> str:
    """A GitHub-flavoured table under its title, with the notes below."""
    table = [["", *grid.columns], *([row, *_texts(grid, row)] for row in grid.rows)]
    table = [[_markdown_escape(text) for text in line] for line in table]
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    lines = [f"| {' | '.join(text.ljust(width) for text, width in zip(line, widths, strict=True))} |" for line in table]
    rule = (
        "|"
        + "|".join("-" * (width + 2) if index == 0 else "-" * (width + 1) + ":" for index, width in enumerate(widths))
        + "|"
    )
    notes = [f"- {_markdown_escape(note)}" for note in grid.notes]
    return (
        "\n".join([f"### {_markdown_escape(grid.title)}", "", lines[0], rule, *lines[1:], "", *notes]).rstrip() + "\n"
    )


def comma_separated(grids: Iterable[Grid]) -> str:
    """One line a place of every grid, numbers to 4 places; an empty mean says that there is none."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head = ["mean", "std", "n", "planned", "done", "failed", "missing", "stale"]
    writer.writerow(["benchmark", "facet", "metric", "row", "column", *head, "text"])
    for grid in grids:
        for (row, column), cell in grid.cells.items():
            numbers = ["" if value is None else f"{value:.4f}" for value in (cell.mean, cell.std)]
            counts = [cell.n, cell.planned, cell.done, cell.failed, cell.missing, cell.stale]
            place = [grid.benchmark, grid.facet, grid.metric, row, column]
            writer.writerow([*place, *numbers, *counts, cell_text(cell, grid)])
    return out.getvalue()


def latex(grid: Grid) -> str:
    """A `table` environment; needs `\\usepackage{booktabs}` and nothing else."""
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{_latex_escape(grid.title)}.}}",
        rf"  \begin{{tabular}}{{l{'r' * len(grid.columns)}}}",
        r"    \toprule",
        f"    {_latex_line(['', *grid.columns])}",
        r"    \midrule",
        *(f"    {_latex_line([row, *_texts(grid, row)])}" for row in grid.rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        *(rf"  \par\footnotesize {_latex_escape(note)}" for note in grid.notes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def terminal_grid(grid: Grid) -> Table:
    """A rich table: `rich.print(terminal_grid(grid))`."""
    caption = Text("\n".join(grid.notes), style="dim")
    table = Table(title=Text(grid.title), caption=caption, caption_justify="left", title_justify="left")
    table.add_column("", no_wrap=True)
    for column in grid.columns:
        table.add_column(Text(column), justify="right")
    for row in grid.rows:
        cells = (grid.cells[row, column] for column in grid.columns)
        texts = (Text(cell_text(cell, grid), style="" if cell.mean is not None else "yellow") for cell in cells)
        table.add_row(Text(row), *texts)
    return table


def _texts(grid: Grid, row: str) -> list[str]:
    return [cell_text(grid.cells[row, column], grid) for column in grid.columns]


def _markdown_escape(text: str) -> str:
    return "".join(f"\\{mark}" if mark in "\\|*<" else mark for mark in text)


def _latex_escape(text: str) -> str:
    return "".join(_LATEX.get(mark, mark) for mark in text)


def _latex_line(texts: list[str]) -> str:
    return " & ".join(map(_latex_escape, texts)) + r" \\"
