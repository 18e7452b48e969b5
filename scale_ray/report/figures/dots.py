"""Methods side by side on domain pairs."""

import pandas as pd
from matplotlib.figure import Figure

from scale_ray.report.figures.style import SOFT, blank, legend, look, single_seeds, style, within_percent
from scale_ray.report.read.labels import natural
from scale_ray.report.tables.grid import AVERAGE


def dot_plot(dots: pd.DataFrame, title: str) -> Figure | None:
    """Accuracy of every method on every domain pair, with its interval; the average is below, set apart by a line.

    Args:
        dots: one row per dot. Columns `pair`, `method`, `value` (percent; a dot without it is not drawn), `low` and
            `high` (of the interval, NaN if there is none: then the seeds are small marks), `by_seed` (their values).
            Methods keep their order of appearance.
        title: of the figure.

    Returns:
        None if there is nothing to draw.
    """
    shown = dots[dots["value"].notna()]
    if shown.empty:
        return None
    pairs = sorted(set(shown["pair"]), key=lambda pair: (pair == AVERAGE, natural(pair)))
    looks = {method: look(index) for index, method in enumerate(dict.fromkeys(dots["method"]))}
    gap = 0.8 / max(len(looks), 2)
    with style():
        figure = blank(6.4, (0.11 * len(looks) + 0.08) * len(pairs) + 1.4, title)
        axes = figure.subplots()
        for index, (method, dot) in enumerate(looks.items()):
            share = shown[shown["method"] == method]
            heights = [pairs.index(pair) + gap * (index - (len(looks) - 1) / 2) for pair in share["pair"]]
            axes.hlines(heights, share["low"], share["high"], color=dot["color"], linewidth=1.2)
            axes.plot(share["value"], heights, linestyle="", label=method, **dot)
            few = zip(heights, share["low"].isna(), share["by_seed"], strict=True)
            single_seeds(axes, [(value, height) for height, alone, seeds in few if alone for value in seeds], dot)
        axes.set_yticks(range(len(pairs)), pairs)
        axes.set_ylim(len(pairs) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        for edge in range(1, len(pairs)):
            strong = pairs[edge] == AVERAGE
            axes.axhline(edge - 0.5, color=SOFT if strong else "#e6e6e6", linewidth=1.0 if strong else 0.6, zorder=0)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("target accuracy (%)")
        within_percent(axes, "x")
        legend(figure, looks, set(shown["method"]), [])
    return figure
