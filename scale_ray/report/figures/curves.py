"""Curves against training steps: accuracy and pseudo-labels."""

import math
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

from scale_ray.report.figures.style import SOFT, Looks, blank, is_narrow, legend, look, style, within_percent
from scale_ray.report.read.labels import by_combination, combination_labels, natural


def accuracy_curves(cells: pd.DataFrame, curves: pd.DataFrame, backbone: str, title: str) -> Figure:
    """Target accuracy against step: one panel per pair, one line per loss combination (the paper's Figure 2).

    A line is the mean over seeds, its band ± the sample standard deviation; the student is solid, the teacher dashed.
    Where no target has labels, the accuracy is that on held-out source images.

    Args:
        cells: cells of one facet. A combination has the same colour and marker for all backbones. A pair without done
            cells has an empty panel.
        curves: points of their curves (`Curves.of`).
        backbone: whose curves to draw.
        title: of the figure.
    """
    points, looks = _labelled(cells, curves, backbone)
    pairs = sorted(cells.loc[cells["backbone"] == backbone, "pair"].unique(), key=natural)
    across = min(len(pairs), 1 if is_narrow() else 3)
    quantity = "target_accuracy" if points["target_accuracy"].notna().any() else "source_val_accuracy"
    down = math.ceil(len(pairs) / across)
    with style():
        figure = blank(max(3.4 * across, 4.8), 2.5 * down + 0.7, title)
        panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).ravel()
        for panel, pair in zip(panels, pairs, strict=False):
            of_pair = points[points["pair"] == pair]
            seeds = _common_seeds(of_pair)
            _draw_pair(panel, of_pair[of_pair["seed"].isin(seeds)], looks, quantity)
            panel.xaxis.set_major_formatter(EngFormatter(sep=""))
            panel.set_title(f"{pair} ({len(seeds)} seed{'s' * (len(seeds) != 1)})")
        within_percent(panels[0], "y")  # of all panels, which share it
        for panel in panels[len(pairs) :]:
            panel.set_visible(False)
        for panel in panels[max(0, len(pairs) - across) : len(pairs)]:
            panel.set_xlabel("step")
            panel.tick_params(labelbottom=True)
        names = {"target_accuracy": "target accuracy (%)", "source_val_accuracy": "accuracy on held-out source (%)"}
        figure.supylabel(names[quantity], fontsize=9)
        teacher = bool(points["teacher_accuracy"].notna().any())
        legend(figure, looks, set(points["label"]), [Line2D([], [], label="teacher", color=SOFT, ls="--")] * teacher)
    return figure


def pseudo_labels(cells: pd.DataFrame, curves: pd.DataFrame, backbone: str, title: str) -> Figure | None:
    """Pseudo-labels that pass the threshold, and how many of them are correct, against step; one line per combination.

    A line is the mean over domain pairs within a seed, then over seeds; its band is ± the sample standard deviation.
    All lines use the (pair, seed) keys that every line has. A line has no point at a step where one of its trials
    keeps nothing or was not measured.

    Args:
        cells, curves, backbone, title: as in `accuracy_curves`. The curves have `kept_fraction` (0 to 1) and, if it
            was measured, `kept_accuracy` (percent).

    Returns:
        None if no pseudo-labels were measured.
    """
    points, looks = _labelled(cells, curves, backbone)
    points = points.groupby("label").filter(lambda line: bool(line["kept_fraction"].notna().any()))
    if points.empty:
        return None
    of_lines = [set(zip(line["pair"], line["seed"], strict=True)) for _, line in points.groupby("label")]
    common = set.intersection(*of_lines)
    points = points[[key in common for key in zip(points["pair"], points["seed"], strict=True)]]
    points = points.assign(kept=100 * points["kept_fraction"])
    quantities = {"kept": "pseudo-labels kept (%)"}
    if "kept_accuracy" in points and points["kept_accuracy"].notna().any():
        quantities["kept_accuracy"] = "correct among the kept (%)"
    with style():
        across, down = (1, len(quantities)) if is_narrow() else (len(quantities), 1)
        figure = blank(3.4 * across + 1.0, 2.6 * down + 0.7, title)
        panels = figure.subplots(down, across, squeeze=False).ravel()
        for panel, (quantity, name) in zip(panels, quantities.items(), strict=True):
            for index, (label, line) in enumerate(looks.items()):
                _draw_line(panel, _over_seeds(points[points["label"] == label], quantity), line, index)
            panel.set_ylabel(name)
            panel.xaxis.set_major_formatter(EngFormatter(sep=""))
            panel.set_xlabel("step")
            within_percent(panel, "y")
        legend(figure, looks, set(points["label"]), [])
    return figure


def _labelled(cells: pd.DataFrame, curves: pd.DataFrame, backbone: str) -> tuple[pd.DataFrame, Looks]:
    """A backbone's points with pair, seed and label, and the looks of all labels, which backbones share."""
    labelled = cells.assign(label=combination_labels(cells))
    looks = {label: look(index) for index, label in enumerate(sorted(set(labelled["label"]), key=by_combination))}
    wanted = labelled.loc[labelled["backbone"] == backbone, ["cell", "pair", "label", "seed"]]
    return curves[curves["cell"].isin(wanted["cell"])].merge(wanted, on="cell"), looks


def _common_seeds(points: pd.DataFrame) -> set[int]:
    """The seeds that every line of a panel has: lines are compared over the same seeds."""
    of_lines = [set(share["seed"]) for _, share in points.groupby("label")]
    return set.intersection(*of_lines) if of_lines else set()


def _over_seeds(points: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """`mean` and `std` over seeds, by step, of means over pairs within a seed; no step with a missing value."""
    lacking = points.loc[points[quantity].isna(), "step"]
    means = points[~points["step"].isin(lacking)].groupby(["step", "seed"])[quantity].mean()
    return means.groupby("step").agg(["mean", "std"])


def _draw_pair(panel: Axes, points: pd.DataFrame, looks: Looks, quantity: str) -> None:
    if points.empty:
        panel.text(0.5, 0.5, "no seed that all lines have", transform=panel.transAxes, ha="center", color=SOFT)
    elif points[quantity].isna().all():
        panel.text(0.5, 0.5, "the target has no labels", transform=panel.transAxes, ha="center", color=SOFT)
    figures = {"mean": (quantity, "mean"), "std": (quantity, "std"), "teacher": ("teacher_accuracy", "mean")}
    by_step = points.groupby(["label", "step"]).agg(**figures)
    of_lines = {label: share.droplevel("label") for label, share in by_step.groupby("label")}
    for index, (label, line) in enumerate(looks.items()):
        if label in of_lines:
            _draw_line(panel, of_lines[label][["mean", "std"]], line, index)
            teacher = of_lines[label]["teacher"].dropna()
            panel.plot(teacher.index, teacher, color=line["color"], linestyle="--", linewidth=0.8, alpha=0.7)


def _draw_line(panel: Axes, by_step: pd.DataFrame, line: dict[str, Any], index: int) -> None:
    """A line of means over seeds and the band of their sample standard deviation. Markers are staggered by `index`.

    Args:
        by_step: columns `mean` and `std`.
    """
    every = max(1, len(by_step) // 6)
    panel.plot(by_step.index, by_step["mean"], markevery=(index % every, every), **line)
    spread = by_step.dropna()
    low, high = spread["mean"] - spread["std"], spread["mean"] + spread["std"]
    panel.fill_between(spread.index, low, high, color=line["color"], alpha=0.15, linewidth=0)
