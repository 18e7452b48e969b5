"""The figure of a search: the validator's score over two tuned fields."""

from collections.abc import Collection, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from matplotlib.tri import Triangulation

from scale_ray.report.figures.style import INK, SMALL, SOFT, blank, style
from scale_ray.tuning.decision import Decision
from scale_ray.tuning.setting import Setting

_LEVELS = 9
_MARGIN = 0.08  # share of an axis beyond its outermost marks

# Marks differ in shape, so that they can be distinguished in grey.
_MARKS = {
    "done": ("o", "done"),
    "stopped": ("x", "stopped on the curve"),
    "pruned": ("v", "pruned over repeats"),
    "failed": ("+", "failed"),
    "incomplete": ("s", "a record is gone"),
}


def contour(
    settings: Sequence[Setting],
    fields: tuple[str, str],
    logarithmic: Collection[str],
    validator: str,
    decision: Decision,
    title: str,
) -> Figure:
    """Draw the score, interpolated linearly on the triangles between finished settings; nothing is drawn outside.

    Every setting is a mark, the chosen one a star, and the highest a ring where another one is chosen. Where the
    settings span no triangle, only marks are drawn.

    Args:
        fields: the fields on the horizontal and the vertical axis.
        logarithmic: fields that were searched, and are drawn, on a logarithmic scale.
        validator: the score that is drawn; `oracle` is the target accuracy.
        decision: which setting is chosen, and which scores highest.
    """
    done = [setting for setting in settings if setting.state == "done" and validator in setting.validators]
    scores = np.array([setting.validators[validator] for setting in done])
    scales = [field in logarithmic for field in fields]
    with style():
        figure = blank(5.2, 3.9, title)
        axes = figure.subplots()
        axes.grid(False)
        axes.set(xlabel=fields[0], ylabel=fields[1])
        surface = _surface(axes, _coordinates(done, fields), scores, scales)
        for which, column, log in zip("xy", _coordinates(settings, fields).T, scales, strict=True):
            _scale(axes, which, column.min(), column.max(), log)
        if surface is not None:
            bar = figure.colorbar(surface, ax=axes, format="{x:.4g}")
            bar.set_label(f"{validator}, mean over repeats" + (" (target labels)" if validator == "oracle" else ""))
        _mark(axes, settings, fields, decision)
        figure.legend(loc="outside lower center", ncols=3, fontsize=SMALL)
    return figure


def _scale(axes: Axes, which: str, low: float, high: float, log: bool) -> None:
    """Set the limits from low to high, with a margin for the marks at the ends."""
    if log:
        room = (high / low) ** _MARGIN
        limits = (low / room, high * room)
    else:
        room = (high - low) * _MARGIN
        limits = (low - room, high + room)
    axes.set(**{f"{which}scale": "log" if log else "linear"})
    if low < high:
        axes.set(**{f"{which}lim": limits})
    if log:
        axis = axes.xaxis if which == "x" else axes.yaxis
        axis.set_minor_locator(LogLocator(subs=(2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("{x:g}")


def _coordinates(settings: Sequence[Setting], fields: tuple[str, str]) -> np.ndarray:
    return np.array([[float(setting.values[field]) for field in fields] for setting in settings])


def _surface(axes: Axes, coordinates: np.ndarray, scores: np.ndarray, logs: Sequence[bool]) -> ContourSet | None:
    """Shades and lines between the settings; on a logarithmic scale, they are linear in the logarithm."""
    columns = zip(coordinates.T, logs, strict=True)
    drawn = np.column_stack([np.log(column) if log else column for column, log in columns])
    low, spans = drawn.min(axis=0), np.ptp(drawn, axis=0)
    if not spans.all() or scores.min() == scores.max():
        return None
    unit = (drawn - low) / spans  # which settings are neighbours must not depend on units
    if np.linalg.matrix_rank(unit - unit[0], tol=1e-6) < 2:
        return None  # all on one line
    levels = np.linspace(scores.min(), scores.max(), _LEVELS)
    # Marks could not be seen on the dark end of the colour map.
    colours = ListedColormap(mpl.colormaps["cividis"](np.linspace(0.3, 1, 256)))
    triangles = Triangulation(unit[:, 0], unit[:, 1])
    filled = axes.tricontourf(triangles, scores, levels=levels, cmap=colours)
    lines = axes.tricontour(triangles, scores, levels=levels, colors=SOFT, linewidths=0.4)
    for shape in (filled, lines):
        for path in shape.get_paths():
            path.vertices = low + path.vertices * spans
            path.vertices = np.where(logs, np.exp(np.where(logs, path.vertices, 0)), path.vertices)
    return filled


def _mark(axes: Axes, settings: Sequence[Setting], fields: tuple[str, str], decision: Decision) -> None:
    def draw(points: np.ndarray, label: str, marker: str, size: float) -> None:
        across, up = points.T
        if marker in "x+":  # lines alone
            axes.scatter(across, up, s=size, marker=marker, color=INK, linewidth=1.1, zorder=3, label=label)
        else:
            look = {"facecolor": "white", "edgecolor": INK}
            axes.scatter(across, up, s=size, marker=marker, linewidth=1.0, zorder=3, label=label, **look)  # type: ignore[arg-type]

    for state, (marker, label) in _MARKS.items():
        some = [setting for setting in settings if setting.state == state]
        if some:
            draw(_coordinates(some, fields), label, marker, 24)
    if decision.highest is not decision.chosen:
        axes.scatter(
            decision.highest.values[fields[0]],
            decision.highest.values[fields[1]],
            s=150,
            marker="o",
            facecolor="none",
            edgecolor=INK,
            linewidth=1.4,
            zorder=4,
            label="highest",
        )
    draw(_coordinates([decision.chosen], fields), "chosen", "*", 170)
