"""What a search has found, as plain data: read from its Optuna study and from the store's records."""

from collections import defaultdict
from collections.abc import Mapping
from statistics import fmean

import optuna
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from scale_ray.config import ConfigError
from scale_ray.records import ORACLE, Record
from scale_ray.store import PlannedCell, Store, is_current
from scale_ray.study import Setting, SettingState
from scale_ray.training.stages import branch
from scale_ray.tuning.search import Search
from scale_ray.tuning.space import Values, rounded, warm_ups_meet

_STATES: Mapping[TrialState, SettingState] = {
    TrialState.COMPLETE: "done",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "open",
}

# Fewer say nothing about importance; Optuna itself asks for two.
_FEWEST_DONE = 8


def settings_of(search: Search, study: optuna.Study, store: Store) -> list[Setting]:
    """Every setting that was asked for, in that order; duplicates, which were not run, are left out."""
    sharing = warm_ups_meet(search.space, search.base)
    warm_ups: set[str] = set()  # of the settings so far
    found = []
    for trial, values in _trials(search, study):
        cells = _cells(search, values)
        records = {cell.id: record for cell in cells if (record := _record(store, cell)) is not None}
        ends = {cell.id: cell.config.optim.steps for cell in cells if cell.id in records}
        stopped = trial.user_attrs.get("stopped")
        if stopped:
            ends.setdefault(cells[stopped["repeat"]].id, stopped["step"])
        found.append(
            Setting(
                number=trial.number,
                values=values,
                state="stopped" if stopped else _STATES[trial.state],
                reason=trial.user_attrs.get("reason", ""),
                validators=_means(list(records.values())),
                repeats=len(records),
                steps=sum(_steps(cell, ends[cell.id], warm_ups, search, sharing) for cell in cells if cell.id in ends),
            )
        )
    return found


def _record(store: Store, cell: PlannedCell) -> Record | None:
    record = store.read_record(cell.id)
    return record if is_current(record) else None


def _steps(cell: PlannedCell, end: int, warm_ups: set[str], search: Search, sharing: bool) -> int:
    """Steps up to `end`, less its warm-up's where a cell before has trained that; adds it to `warm_ups`."""
    first = branch(cell, search.root)[0]
    if not sharing or first.ends:
        return end
    trained = first.key in warm_ups
    warm_ups.add(first.key)
    return end - first.last if trained else end


def importance(study: optuna.Study) -> dict[str, float]:
    """Share of the score's variance that each field explains among settings that are done (fANOVA), the largest first.

    http://proceedings.mlr.press/v32/hutter14.html
    """
    if len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) < _FEWEST_DONE:
        return {}
    return get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))


def planned_cells(search: Search, study: optuna.Study) -> list[PlannedCell]:
    """The cells that the search wants records of: of settings that ended early, none."""
    return [
        cell
        for trial, values in _trials(search, study)
        if trial.state != TrialState.PRUNED
        for cell in _cells(search, values)
    ]


def keys_of_search(search: Search, study: optuna.Study) -> frozenset[str]:
    """Keys under which the store may hold states for any of its cells."""
    cells = [cell for _, values in _trials(search, study) for cell in _cells(search, values)]
    return frozenset(stage.key for cell in cells for stage in branch(cell, search.root))


def _trials(search: Search, study: optuna.Study) -> list[tuple[FrozenTrial, Values]]:
    return [
        (trial, rounded({path: trial.params[path] for path in search.space}))
        for trial in study.get_trials(deepcopy=False)
        if trial.state in _STATES
        and "duplicate_of" not in trial.user_attrs
        and search.space.keys() <= trial.params.keys()
    ]


def _cells(search: Search, values: Values) -> list[PlannedCell]:
    try:
        return [search.cell(values, repeat) for repeat in search.repeats]
    except ConfigError:
        return []  # the setting has failed, and its reason says why


def _means(records: list[Record]) -> dict[str, float]:
    """Of every validator that all of these records have a score of, and of the oracle."""
    scores: dict[str, list[float]] = defaultdict(list)
    for record in records:
        assert record.result is not None
        for name, value in {**record.result.validators, ORACLE: record.result.target_accuracy}.items():
            scores[name].append(value)
    return {name: fmean(values) for name, values in scores.items() if len(values) == len(records)}
