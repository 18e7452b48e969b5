"""The file formats of tables."""

from collections.abc import Callable

from scale_ray.report.tables.csv import comma_separated
from scale_ray.report.tables.grid import Stack
from scale_ray.report.tables.html import html
from scale_ray.report.tables.latex import latex
from scale_ray.report.tables.markdown import markdown

# Ending of the file -> its text for the tables of one form.
FORMATS: dict[str, Callable[[list[Stack]], str]] = {
    "md": lambda stacks: "\n".join(map(markdown, stacks)),
    "csv": comma_separated,
    "tex": lambda stacks: "\n".join(map(latex, stacks)),
    "html": lambda stacks: "\n".join(map(html, stacks)),
}
