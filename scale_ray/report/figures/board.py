"""A leaderboard as a picture."""

from matplotlib.figure import Figure

from scale_ray.report.figures.style import blank, legend, look, style
from scale_ray.report.tables.grid import Grid

_GAP = 0.13  # between the dots of two sets in one row


def board_plot(grid: Grid) -> Figure:
    """Methods as rows, one dot for each set; a line is the interval for the same pairs and other seeds.

    Args:
        grid: methods by sets, in the order of its rows.
    """
    looks = {column: look(index) for index, column in enumerate(grid.columns)}
    with style():
        figure = blank(6.4, 0.34 * len(grid.rows) + 1.6, grid.title)
        axes = figure.subplots()
        for index, (column, dot) in enumerate(looks.items()):
            entries = {row: grid.entries[row, column] for row in grid.rows}
            shift = _GAP * (index - (len(looks) - 1) / 2)
            drawn = [(row, entry) for row, entry in enumerate(entries.values()) if entry.mean is not None]
            heights = [row + shift for row, _ in drawn]
            axes.plot([entry.mean for _, entry in drawn], heights, linestyle="", label=column, **dot)
            for height, (_, entry) in zip(heights, drawn, strict=True):
                if entry.low is not None:
                    axes.plot([entry.low, entry.high], [height, height], color=dot["color"], linewidth=1.2)
        for row in range(0, len(grid.rows), 2):
            axes.axhspan(row - 0.5, row + 0.5, color="#f6f6f6", linewidth=0, zorder=0)
        axes.set_yticks(range(len(grid.rows)), grid.rows)
        axes.set_ylim(len(grid.rows) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("target accuracy (%)")
        legend(figure, looks, set(grid.columns), [])
    return figure
