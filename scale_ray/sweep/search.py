"""Optuna's part: the stages that are to do become the points of a study that Ray Tune evaluates."""

from collections.abc import Callable
from typing import Any

import optuna
from ray.tune.search import Searcher

from scale_ray.sweep.queue import StageQueue

# What Optuna is told of a stage. Label-free on the target: a target accuracy here would make every search an oracle.
METRIC = "source_val_accuracy"


class StageSearch(Searcher):
    """Suggests each stage exactly once (again only where its process was lost), as soon as it may run.

    Every point is enqueued: of a grid given as plain categoricals a sampler repeats some points and never tries others.
    It is enqueued when its stage is ready, because Optuna's own queue knows no dependencies.

    Args:
        queue: says which may run next.
        places: how many stages may be handed out at once; asked anew each time, for clusters grow and shrink.
    """

    def __init__(self, queue: StageQueue, places: Callable[[], int]):
        super().__init__()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._numbers = {key: number for number, key in enumerate(queue.keys)}
        self._queue, self._places = queue, places
        self._study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
        self._asked: dict[str, optuna.Trial] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its searcher for a restore that the store makes needless."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self._queue.over:
            return Searcher.FINISHED
        if self._queue.running >= self._places():
            return None
        stage = self._queue.next()
        if stage is None:
            return Searcher.FINISHED if self._queue.over else None
        number = self._numbers[stage.key]
        self._study.enqueue_trial({"stage": number}, user_attrs={"key": stage.key, "title": stage.title})
        trial = self._study.ask()
        trial.suggest_int("stage", 0, len(self._numbers) - 1)
        self._asked[trial_id] = trial
        return {"stage": stage.key}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing is pruned: a grid wants all of its cells."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        value = (result or {}).get(METRIC)
        if error:
            self._study.tell(self._asked.pop(trial_id), state=optuna.trial.TrialState.FAIL)
        elif value is None:  # a warm-up that ends between two points of the curve has no accuracy to tell
            self._study.tell(self._asked.pop(trial_id), state=optuna.trial.TrialState.PRUNED)
        else:
            self._study.tell(self._asked.pop(trial_id), value)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a repeated run goes on from the store."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, see `save`."""
