"""Estimates as bars with their intervals."""

from math import isfinite, isnan

import pandas as pd
from matplotlib.figure import Figure

from scale_ray.report.figures.style import BLUE, INK, SMALL, blank, style


def bars_with_intervals(values: pd.DataFrame, title: str, axis: str) -> Figure | None:
    """Horizontal bars with their intervals; a bar is filled where its interval does not contain zero, else hatched.

    Args:
        values: one row per bar, from top to bottom. Columns `label`, `value`, `low`, `high`, percentage points.
        title: of the figure.
        axis: what the length of a bar is.

    Returns:
        None if there is no bar.
    """
    if values.empty:
        return None
    with style():
        figure = blank(5.2, 0.42 * len(values) + 1.1, title)
        axes = figure.subplots()
        for height, (value, low, high) in enumerate(values[["value", "low", "high"]].to_numpy(dtype=float)):
            sure = low > 0 or high < 0
            face, hatch = (BLUE, "") if sure else ("white", "////")
            axes.barh(height, value, height=0.6, edgecolor=BLUE, facecolor=face, hatch=hatch)
            axes.plot([low, high], [height, height], color=INK, linewidth=1.4, marker="|", markersize=8)
            ends = ", ".join(f"{end:+.1f}" if isfinite(end) else "no bound" for end in (low, high))
            interval = "" if isnan(low) else f" [{ends}]"
            text = f"{value:+.1f}{interval}".replace("-", "\N{MINUS SIGN}")
            axes.annotate(text, (1.02, height), xycoords=("axes fraction", "data"), va="center", fontsize=SMALL)
        axes.set_yticks(range(len(values)), values["label"])
        axes.set_ylim(len(values) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_xlabel(axis)
    return figure
