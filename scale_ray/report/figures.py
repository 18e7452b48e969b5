"""Accuracy curves (the paper's Figure 2) and the picture of a grid: no display needed, the same bytes each time."""

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from scale_ray.report.aggregate import Grid, by_combination, combination_labels, natural
from scale_ray.report.tables import cell_text

# Okabe and Ito's colours, told apart by the colour-blind; markers tell them apart in grey.
_COLOURS = ["#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C"]
_MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "lines.markersize": 4,
    "legend.frameon": False,
    "svg.hashsalt": "scale-ray",
    "svg.fonttype": "path",
}


@contextmanager
def _style() -> Iterator[None]:
    with mpl.rc_context():
        mpl.rcdefaults()  # a user's matplotlibrc must not change a report
        mpl.rcParams.update(_STYLE)
        yield


def render(figure: Figure, kind: str) -> bytes:
    """The figure as `png` or `svg`, without a date or a version in it."""
    out = io.BytesIO()
    with _style():
        metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
        figure.savefig(out, format=kind, dpi=160, metadata=metadata, bbox_inches="tight")
    return out.getvalue()


def accuracy_curves(cells: pd.DataFrame, curves: pd.DataFrame, backbone: str, title: str) -> Figure:
    """Target accuracy against step: one panel a pair, one line a loss combination, mean over seeds, band ± sample std.

    Args:
        cells: cells of one facet. A combination has one colour for all its backbones; a pair where nothing is done
            keeps an empty panel.
        curves: points of their curves (`Contents.curves`). Student solid, teacher dashed.
    """
    labelled = cells.assign(label=combination_labels(cells))
    looks = {label: _look(index) for index, label in enumerate(sorted(set(labelled["label"]), key=by_combination))}
    labelled = labelled[labelled["backbone"] == backbone]
    points = curves.merge(labelled[["cell", "pair", "label", "seed"]], on="cell")
    pairs = sorted(labelled["pair"].unique(), key=natural)
    across = min(len(pairs), 4)
    down = math.ceil(len(pairs) / across)
    with _style():
        figure = Figure(figsize=(max(3.1 * across, 4.8), 2.5 * down + 0.7), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).ravel()
        for panel, pair in zip(panels, pairs, strict=False):
            of_pair = points[points["pair"] == pair]
            seeds = _common_seeds(of_pair)
            _draw_pair(panel, of_pair[of_pair["seed"].isin(seeds)], looks)
            panel.set_title(f"{pair} ({len(seeds)} seed{'s' * (len(seeds) != 1)})")
        for panel in panels[len(pairs) :]:
            panel.set_visible(False)
        for panel in panels[max(0, len(pairs) - across) : len(pairs)]:
            panel.set_xlabel("step")
        figure.supylabel("target accuracy (%)", fontsize=9)
        figure.suptitle(title, fontsize=10)
        teacher = bool(points["teacher_accuracy"].notna().any())
        handles = [
            Line2D([], [], label=label, **look) for label, look in looks.items() if label in set(points["label"])
        ]
        handles += [Line2D([], [], label="teacher", color="#666666", linestyle="--")] * teacher
        figure.legend(handles=handles, loc="outside lower center", ncols=max(1, min(len(handles), 5)))
    return figure


def _common_seeds(points: pd.DataFrame) -> set[int]:
    """The seeds that every line of a panel has: lines are compared over the same ones."""
    of_lines = [set(share["seed"]) for _, share in points.groupby("label")]
    return set.intersection(*of_lines) if of_lines else set()


def _look(index: int) -> dict[str, Any]:
    return {"color": _COLOURS[index % len(_COLOURS)], "marker": _MARKERS[index % len(_MARKERS)]}


def _draw_pair(panel: Axes, points: pd.DataFrame, looks: dict[str, dict[str, Any]]) -> None:
    if points.empty:
        panel.text(0.5, 0.5, "no seed that all lines have", transform=panel.transAxes, ha="center", color="#666666")
    for label, look in looks.items():
        by_step = points[points["label"] == label].groupby("step")
        student = by_step["target_accuracy"].agg(["mean", "std"])
        every = max(1, len(student) // 8)
        panel.plot(student.index, student["mean"], markevery=every, **look)
        spread = student.dropna()
        low, high = spread["mean"] - spread["std"], spread["mean"] + spread["std"]
        panel.fill_between(spread.index, low, high, color=look["color"], alpha=0.15, linewidth=0)
        teacher = by_step["teacher_accuracy"].mean().dropna()
        panel.plot(teacher.index, teacher, color=look["color"], linestyle="--", linewidth=1)


def heat_map(grid: Grid) -> Figure:
    """The grid as a picture: shade is the mean, the text is the table's; hatched places have no number."""
    with _style():
        width, height = 1.15 * len(grid.columns) + 1.6, 0.5 * len(grid.rows) + 1.0
        figure = Figure(figsize=(max(width, 4.2), height), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        axes.grid(False)
        axes.spines[:].set_visible(False)
        axes.set_xticks(range(len(grid.columns)), grid.columns, rotation=30 if len(grid.columns) > 4 else 0)
        axes.set_yticks(range(len(grid.rows)), grid.rows)
        axes.tick_params(length=0)
        axes.set_xlim(-0.5, len(grid.columns) - 0.5)
        axes.set_ylim(len(grid.rows) - 0.5, -0.5)
        axes.set_title(grid.title, fontsize=10)
        means = [cell.mean for cell in grid.cells.values() if cell.mean is not None]
        low, span = (min(means), max(max(means) - min(means), 1.0)) if means else (0.0, 1.0)
        colours = mpl.colormaps["cividis"]
        for (row, column), cell in grid.cells.items():
            x, y = grid.columns.index(column), grid.rows.index(row)
            # Not the whole map: its dark end swallows text.
            shade = None if cell.mean is None else 0.15 + 0.8 * (cell.mean - low) / span
            look = {"facecolor": "#f2f2f2", "hatch": "////"} if shade is None else {"facecolor": colours(shade)}
            axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, edgecolor="white", linewidth=1.5, **look))
            ink = "#444444" if shade is None else "white" if shade < 0.45 else "black"
            axes.text(x, y, cell_text(cell, grid), ha="center", va="center", color=ink, fontsize=8)
    return figure
