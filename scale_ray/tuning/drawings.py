"""The figures of a search: curves of its validator, its score over two fields, importance, parallel coordinates."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from optuna.distributions import CategoricalDistribution

from scale_ray.report.figures.style import BLUE, INK, SMALL, SOFT, blank, is_narrow, narrow, style
from scale_ray.tuning.contour import contour
from scale_ray.tuning.decision import Decision
from scale_ray.tuning.space import Space, logarithmic, numeric
from scale_ray.tuning.view import SearchView

_CHOSEN, _HIGHEST, _DEFAULT = "#D55E00", BLUE, "#000000"


def search_figures(view: SearchView, decision: Decision) -> Iterator[tuple[str, Figure, Figure]]:
    """(heading, figure, the same for a phone's screen), of what can be drawn."""
    kinds: dict[str, Callable[[], Figure | None]] = {
        f"Curves of {view.validator}": partial(validator_curves, view, decision),
        "Score over two fields": partial(_contour, view, decision),
        "Importance of the fields": partial(importance_bars, view.importance),
        "Parallel coordinates": partial(parallel_coordinates, view, decision),
    }
    for heading, draw in kinds.items():
        figure = draw()
        if figure is not None:
            with narrow():
                small = draw()
            assert small is not None
            yield heading, figure, small


def _contour(view: SearchView, decision: Decision) -> Figure | None:
    """The score over the first two fields that are ranges, if there are two."""
    numbers = numeric(view.space)
    if len(numbers) < 2:
        return None
    fields = (numbers[0], numbers[1])
    return contour(view.settings, fields, logarithmic(view.space), view.validator, decision, view.name)


def validator_curves(view: SearchView, decision: Decision) -> Figure | None:
    """The validator's score against the step, one line a setting; the chosen, the highest and the default stand out."""
    if not any(len(curve) > 1 for curve in view.curves.values()):
        return None
    named = _named(view, decision)
    with style():
        figure = blank(5.6, 3.6, f"{view.name}: mean over repeats")
        axes = figure.subplots()
        for number, curve in sorted(view.curves.items(), key=lambda item: item[0] in named):
            steps, scores = zip(*curve, strict=True)
            label, colour = named.get(number, (None, "#c4c4c4"))
            width = 1.8 if label else 0.9
            axes.plot(steps, scores, color=colour, linewidth=width, marker="o", markersize=2 * width, label=label)
        axes.set_xlabel("step")
        axes.set_ylabel(view.validator)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        figure.legend(loc="outside lower center", ncols=1 if is_narrow() else 3, fontsize=SMALL)
    return figure


def importance_bars(importance: dict[str, float]) -> Figure | None:
    """Share of the score's variance that each field explains."""
    if not importance:
        return None
    with style():
        figure = blank(5.2, 0.4 * len(importance) + 1.0, "fANOVA over the settings that are done")
        axes = figure.subplots()
        axes.barh(range(len(importance)), [100 * share for share in importance.values()], height=0.6, color=BLUE)
        axes.set_yticks(range(len(importance)), list(importance))
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("share of the variance (%)")
    return figure


def parallel_coordinates(view: SearchView, decision: Decision) -> Figure | None:
    """One line a setting that is done, across one axis for each field and one for the score; dark lines score high."""
    done = [setting for setting in view.settings if setting.state == "done" and view.validator in setting.validators]
    if len(done) < 2:
        return None
    scores = np.array([setting.validators[view.validator] for setting in done])
    low, span = scores.min(), np.ptp(scores) or 1.0
    named = _named(view, decision)
    with style():
        figure = blank(1.6 * (len(view.space) + 1) + 1.2, 3.4, f"{view.name}: settings that are done")
        axes = figure.subplots()
        axes.grid(False)
        axes.spines[:].set_visible(False)
        for setting, score in sorted(zip(done, scores, strict=True), key=lambda pair: pair[1]):
            places = [_place(view.space, path, value) for path, value in setting.values.items()]
            label, colour = named.get(
                setting.number, (None, mpl.colormaps["cividis_r"](0.1 + 0.8 * (score - low) / span))
            )
            axes.plot([*places, (score - low) / span], color=colour, linewidth=2.2 if label else 1.1, label=label)
        for index, path in enumerate([*view.space, view.validator]):
            axes.axvline(index, color=SOFT, linewidth=0.8)
            ends = _ends(view.space, path) if path in view.space else (f"{low:.4g}", f"{scores.max():.4g}")
            for height, text in zip((-0.06, 1.06), ends, strict=True):
                axes.text(index, height, text, ha="center", va="center", fontsize=SMALL, color=INK)
        names = [path.replace(".", ".\n") if is_narrow() else path for path in view.space]
        axes.set_xticks(range(len(view.space) + 1), [*names, view.validator])
        axes.set_ylim(-0.12, 1.12)
        axes.set_yticks([])
        axes.tick_params(length=0)
        figure.legend(loc="outside lower center", ncols=1 if is_narrow() else 3, fontsize=SMALL)
    return figure


def _named(view: SearchView, decision: Decision) -> dict[int, tuple[str, str]]:
    """Number of a setting -> (label, colour), of those that the page speaks of."""
    roles: dict[int, list[str]] = {}
    usual = [setting.number for setting in view.settings if setting.default]
    for role, number in (("chosen", decision.chosen.number), ("highest", decision.highest.number)):
        roles.setdefault(number, []).append(role)
    for number in usual:
        roles.setdefault(number, []).append("default")
    colours = {"chosen": _CHOSEN, "highest": _HIGHEST, "default": _DEFAULT}
    return {number: (f"setting {number}: {', '.join(role)}", colours[role[0]]) for number, role in roles.items()}


def _place(space: Space, path: str, value: Any) -> float:
    """Where a value is on its axis, from 0 to 1; a default outside of the range is drawn at its end or in between."""
    distribution = space[path]
    if isinstance(distribution, CategoricalDistribution):
        choices = list(distribution.choices)
        return choices.index(value) / max(1, len(choices) - 1) if value in choices else 0.5
    scale: Callable[[float], float] = math.log if path in logarithmic(space) else float
    low, high = scale(distribution.low), scale(distribution.high)  # type: ignore[attr-defined]
    return float(np.clip((scale(value) - low) / (high - low), 0, 1))


def _ends(space: Space, path: str) -> tuple[str, str]:
    distribution = space[path]
    if isinstance(distribution, CategoricalDistribution):
        return str(distribution.choices[0]), str(distribution.choices[-1])
    return f"{distribution.low:g}", f"{distribution.high:g}"  # type: ignore[attr-defined]
