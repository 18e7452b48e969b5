"""The cells that a search wants records of, and the states in the store that belong to it."""

import optuna
from optuna.trial import TrialState

from scale_ray.cell import Cell
from scale_ray.config import ConfigError
from scale_ray.training.stages import branch
from scale_ray.tuning.results import tried_values
from scale_ray.tuning.search import Search
from scale_ray.tuning.space import Values


def planned_cells(search: Search, optuna_study: optuna.Study) -> list[Cell]:
    """The cells that the search wants records of: those of all settings that were not ended early."""
    return [
        cell
        for trial, values in tried_values(optuna_study)
        if trial.state != TrialState.PRUNED
        for cell in _cells(search, values)
    ]


def keys_of_search(search: Search, optuna_study: optuna.Study) -> frozenset[str]:
    """Keys of all states in the store that may belong to a cell of the search."""
    cells = [cell for _, values in tried_values(optuna_study) for cell in _cells(search, values)]
    return frozenset(stage.key for cell in cells for stage in branch(cell))


def _cells(search: Search, values: Values) -> list[Cell]:
    try:
        return [search.cell(values, repeat) for repeat in search.repeats]
    except ConfigError:
        return []  # the setting has failed; its reason names the cause
