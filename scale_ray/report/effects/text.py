"""Tables of effects as Markdown and LaTeX: short headings with units, intervals as `[1.20, 3.40]`."""

from collections.abc import Iterator, Sequence

import pandas as pd

from scale_ray.report.effects.columns import Column
from scale_ray.report.effects.tables import TABLES, Effects, EffectTable
from scale_ray.report.read.labels import join
from scale_ray.report.tables import latex as latex_text
from scale_ray.report.tables import markdown as markdown_text


def readable(frame: pd.DataFrame, columns: Sequence[Column]) -> pd.DataFrame:
    """The columns of a table of effects as text."""
    return pd.DataFrame({column.heading: column.texts(frame) for column in columns}, dtype="str")


def markdown(effects: Effects) -> str:
    """All tables by benchmark and facet, followed by the notes."""
    lines: list[str] = []
    for table, scope, part in by_scope(effects):
        lines += [f"### {markdown_text.escape(f'{table.title}: {scope}')}", "", table.explanation, ""]
        lines += [*markdown_text.table_lines(readable(part, table.columns)), ""]
    lines += [f"- {markdown_text.escape(note)}" for note in effects.notes]
    return "\n".join(lines).rstrip() + "\n"


def latex(effects: Effects) -> str:
    """One `table` environment per table and scope, with the columns for a paper. Needs booktabs. Notes are comments."""
    found = []
    for table, scope, part in by_scope(effects):
        caption = latex_text.escape(f"{table.title}: {scope}. {table.explanation}")
        shown = readable(part, table.in_paper)
        found.append(shown.to_latex(index=False, escape=True, position="ht", caption=caption))
    return "\n".join([*found, *(f"% {note}" for note in effects.notes)]).rstrip() + "\n"


def by_scope(effects: Effects) -> Iterator[tuple[EffectTable, str, pd.DataFrame]]:
    """Every table by benchmark and facet: (table, scope, its rows)."""
    for table in TABLES:
        frame = effects.frames[table.name]
        if len(frame):
            for (benchmark, facet), part in frame.groupby(["benchmark", "facet"], sort=False):
                yield table, join(str(benchmark), str(facet)), part
