"""The stages of a study: a fixed list, each handed out once and shown to Optuna as one trial."""

from collections.abc import Mapping, Sequence
from typing import Any

import optuna

from scale_ray.stage import Stage
from scale_ray.sweep.cluster import Slots
from scale_ray.sweep.queue import StageQueue

# The value that Optuna is told for a stage. It is label-free on the target: a target accuracy would turn any search
# into one that chooses by target labels.
METRIC = "source_val_accuracy"


class FixedStages:
    """A `WorkSource` that hands out each stage of a list once, again only where its process was lost.

    Every stage is enqueued in an Optuna study in memory when it may run. Given as plain categoricals, a sampler would
    repeat some points of a grid and never try others; and Optuna's own queue knows no dependencies between stages.

    Args:
        stages: what is to run, each after its parent.
        queue: of the same stages.
    """

    def __init__(self, stages: Sequence[Stage], queue: StageQueue):
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.queue, self.reads = queue, stages
        self._numbers = {stage.key: number for number, stage in enumerate(stages)}
        self._optuna_study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
        self._asked: dict[str, optuna.Trial] = {}

    @property
    def over(self) -> bool:
        return self.queue.over

    def next(self) -> Stage | None:
        stage = self.queue.next()
        if stage is None:
            return None
        number = self._numbers[stage.key]
        self._optuna_study.enqueue_trial({"stage": number}, user_attrs={"key": stage.key, "title": stage.title()})
        trial = self._optuna_study.ask()
        trial.suggest_int("stage", 0, len(self._numbers) - 1)
        self._asked[stage.key] = trial
        return stage

    def assignment(self, stage: Stage) -> dict[str, Any]:
        return {"stage": stage.key}

    def ended(self, stage: Stage, result: Mapping[str, Any] | None) -> None:
        trial = self._asked.pop(stage.key)
        if result is None:
            self._optuna_study.tell(trial, state=optuna.trial.TrialState.FAIL)
        elif METRIC not in result:  # a warm-up that ends between two evaluations has no accuracy
            self._optuna_study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            self._optuna_study.tell(trial, result[METRIC])

    def room(self, slots: Slots) -> int:
        """The stages that train, and as many more as there are free slots or may wait for one."""
        return self.queue.started + slots.free() + slots.waiting()
