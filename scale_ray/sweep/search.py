"""Optuna's part: the cells that are to do become the points of a study that Ray Tune evaluates."""

from collections.abc import Sequence
from dataclasses import dataclass

import optuna
from ray.tune.search.optuna import OptunaSearch

# What Optuna is told about a cell. Label-free on the target: a target accuracy here would make every search an oracle.
METRIC = "source_val_accuracy"


@dataclass(frozen=True)
class CellSpace:
    """Optuna's define-by-run space over cell ids. A class and not a closure: Tune pickles it."""

    ids: tuple[str, ...]

    def __call__(self, trial: optuna.Trial) -> None:
        trial.suggest_categorical("cell", self.ids)


def cell_search(ids: Sequence[str]) -> OptunaSearch:
    """A search that suggests each cell exactly once, in order.

    The space is defined by run and every point is enqueued: of a grid given as plain categoricals TPE repeats some
    points and never tries others.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    points = [{"cell": trial_id} for trial_id in ids]
    return OptunaSearch(space=CellSpace(tuple(ids)), metric=METRIC, mode="max", points_to_evaluate=points, seed=0)
