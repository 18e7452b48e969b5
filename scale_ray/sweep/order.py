"""The order of a study's stages when it may end before all of them are trained."""

from collections.abc import Iterable, Sequence
from typing import Any

from scale_ray.cell import Cell
from scale_ray.stage import Stage


def seed_after_seed(stages: Sequence[Stage], cells: Sequence[Cell], baseline: str | None = None) -> list[Stage]:
    """The stages so that what is done at any moment decides most: seed after seed, approach after approach.

    A comparison pairs trainings of one seed and domain pair. So the baseline comes first in a seed, and each approach
    that has its domain pairs after it is compared in full. The order looks at no result, so that the moment at which a
    run ends says nothing about them.

    Args:
        stages: each after its parent, and so they stay.
        cells: of the study.
        baseline: an approach; None: see `baseline_of`.
    """
    first = baseline_of([cell.config.approach for cell in cells], baseline)
    seeds = _places(cell.config.seed for cell in cells)
    backbones = _places(cell.config.model.label for cell in cells)
    approaches = _places([first, *(cell.config.approach for cell in cells)])
    ranks = {
        cell.id: (seeds[cell.config.seed], backbones[cell.config.model.label], approaches[cell.config.approach], number)
        for number, cell in enumerate(cells)
    }
    # A parent waits for the cells of all its children, and so is not behind them: the sort keeps the order of equals.
    return sorted(stages, key=lambda stage: min(ranks[cell.id] for cell in stage.waiting))


def baseline_of(approaches: Sequence[str], named: str | None = None) -> str:
    """What the others are compared with: the one that is named, else `ce`, else the first."""
    return named or ("ce" if "ce" in approaches else approaches[0])


def _places(values: Iterable[Any]) -> dict[Any, int]:
    return {value: place for place, value in enumerate(dict.fromkeys(values))}
