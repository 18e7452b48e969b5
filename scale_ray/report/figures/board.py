"""A leaderboard as a picture."""

import textwrap

from matplotlib.figure import Figure

from scale_ray.report.figures.style import blank, is_narrow, look, single_seeds, style, within_percent
from scale_ray.report.tables.grid import Grid

_GAP = 0.13  # between the dots of two sets in one row
_LABEL, _NARROW_LABEL = 60, 24  # characters in a line of a row's label


def board_plot(grid: Grid, title: str | None = None) -> Figure:
    """Methods as rows, one dot for each set; a line is the interval for the same pairs and other seeds.

    With fewer than three seeds there is no interval, and the seeds are small dots.

    Args:
        grid: methods by sets, in the order of its rows; those without any number are left out.
        title: of the figure; by default the grid's.
    """
    rows = [row for row in grid.rows if any(grid.entries[row, column].mean is not None for column in grid.columns)]
    labels = [textwrap.fill(row, _NARROW_LABEL if is_narrow() else _LABEL) for row in rows]
    lines = max((label.count("\n") + 1 for label in labels), default=1)
    with style():
        longest = max((len(line) for label in labels for line in label.split("\n")), default=0)
        per_row = (0.2 if len(grid.columns) > 1 else 0.12) + 0.14 * lines
        figure = blank(6.4 + 0.05 * max(0, longest - 30), per_row * len(rows) + 1.6, title or grid.title)
        axes = figure.subplots()
        for index, column in enumerate(grid.columns):
            shift = _GAP * (index - (len(grid.columns) - 1) / 2)
            entries = {place + shift: grid.entries[row, column] for place, row in enumerate(rows)}
            means = {height: entry.mean for height, entry in entries.items() if entry.mean is not None}
            spread = {height: entry for height, entry in entries.items() if entry.low is not None}
            low, high = ([getattr(entry, end) for entry in spread.values()] for end in ("low", "high"))
            dot = look(index)
            axes.plot(list(means.values()), list(means), linestyle="", label=column, **dot)
            seeds = [
                (value, height) for height, entry in entries.items() if entry.low is None for value in entry.by_seed
            ]
            single_seeds(axes, seeds, dot)
            axes.hlines(list(spread), low, high, color=dot["color"], linewidth=1.2)
        for place in range(0, len(rows), 2):
            axes.axhspan(place - 0.5, place + 0.5, color="#f6f6f6", linewidth=0, zorder=0)
        axes.set_yticks(range(len(rows)), labels)
        axes.set_ylim(max(len(rows), 1) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("target accuracy (%)")
        within_percent(axes, "x")
        if len(grid.columns) > 1:
            figure.legend(loc="outside lower center", ncols=2)
    return figure
