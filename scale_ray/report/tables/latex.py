"""Tables as LaTeX. They need `\\usepackage{booktabs}` and nothing else."""

from scale_ray.report.tables.grid import Stack
from scale_ray.report.tables.text import row_texts

_ESCAPED = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", ">": r"$\rightarrow$", "<": r"$<$",
    "±": r"$\pm$", "†": r"$^\dagger$", "‡": r"$^\ddagger$", "—": "---",
}  # fmt: skip


def latex(stack: Stack) -> str:
    """A `table` environment with the notes below. A group starts with a rule and its label."""
    columns = stack.all_columns
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{escape(stack.title)}.}}",
        rf"  \begin{{tabular}}{{l{'r' * len(columns)}}}",
        r"    \toprule",
        f"    {_line(['', *map(escape, columns)])}",
    ]
    for grid in stack.grids:
        lines.append(r"    \midrule")
        if grid.group:
            label = rf"\textit{{{escape(grid.group)}}}"
            lines.append(rf"    \multicolumn{{{len(columns) + 1}}}{{l}}{{{label}}} \\")
        rows = ([escape(row), *row_texts(stack, grid, row, escape, _bold)] for row in grid.all_rows)
        lines += [f"    {_line(row)}" for row in rows]
    lines += [
        r"    \bottomrule",
        r"  \end{tabular}",
        *(rf"  \par\footnotesize {escape(note)}" for note in stack.notes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    return "".join(_ESCAPED.get(mark, mark) for mark in text)


def _bold(text: str) -> str:
    return rf"\textbf{{{text}}}"


def _line(texts: list[str]) -> str:
    return " & ".join(texts) + r" \\"
