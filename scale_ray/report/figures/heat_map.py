"""A grid as a picture."""

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from scale_ray.report.figures.style import HOLE, SMALL, SOFT, blank, style
from scale_ray.report.tables.grid import Grid
from scale_ray.report.tables.text import entry_text


def heat_map(grid: Grid) -> Figure:
    """The grid as a picture: the shade is the mean, the text is the table's. Entries without a number are hatched."""
    texts = {position: entry_text(entry, grid) for position, entry in grid.entries.items()}
    with style():
        across = max(0.95, 0.075 * max(map(len, texts.values())) + 0.15)
        labels = max(1.6, 0.075 * max(map(len, grid.rows)) + 0.4)
        width, height = across * len(grid.columns) + labels, 0.42 * len(grid.rows) + 1.0
        figure = blank(max(width, 4.2), height, grid.title)
        axes = figure.subplots()
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.set_xticks(range(len(grid.columns)), grid.columns, rotation=30 if len(grid.columns) > 4 else 0)
        axes.set_yticks(range(len(grid.rows)), grid.rows)
        axes.tick_params(length=0)
        axes.set_xlim(-0.5, len(grid.columns) - 0.5)
        axes.set_ylim(len(grid.rows) - 0.5, -0.5)
        means = [entry.mean for entry in grid.entries.values() if entry.mean is not None]
        low, span = (min(means), max(max(means) - min(means), 1.0)) if means else (0.0, 1.0)
        colours = mpl.colormaps["cividis"]
        for (row, column), entry in grid.entries.items():
            x, y = grid.columns.index(column), grid.rows.index(row)
            # Not the whole map: text is unreadable on its dark end.
            shade = None if entry.mean is None else 0.15 + 0.8 * (entry.mean - low) / span
            face = {"facecolor": HOLE, "hatch": "////"} if shade is None else {"facecolor": colours(shade)}
            axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, edgecolor="white", linewidth=1.5, **face))
            ink = SOFT if shade is None else "white" if shade < 0.5 else "black"
            axes.text(x, y, texts[row, column], ha="center", va="center", color=ink, fontsize=SMALL)
    return figure
