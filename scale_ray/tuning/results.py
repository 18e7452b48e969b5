"""The results of a search, read from its Optuna study and from the store's records."""

from collections import defaultdict
from dataclasses import replace
from statistics import fmean

import optuna
from optuna.trial import FrozenTrial, TrialState

from scale_ray.cell import Cell
from scale_ray.config import ConfigError
from scale_ray.records import Record
from scale_ray.report.selection.set_validators import set_scores
from scale_ray.store import Store, is_current
from scale_ray.training.stages import branch
from scale_ray.tuning.optuna_study import values_of
from scale_ray.tuning.search import Search
from scale_ray.tuning.setting import Setting
from scale_ray.tuning.space import Values, default_setting, warm_ups_meet
from scale_ray.tuning.view import STATES, by_repeat, means


def settings_of(search: Search, optuna_study: optuna.Study, store: Store) -> list[Setting]:
    """Every setting in the order in which it was asked for, without duplicates, which were not trained."""
    sharing, usual = warm_ups_meet(search.space, search.base), default_setting(search.space, search.base)
    warm_ups: set[str] = set()  # of the settings so far
    found: list[Setting] = []
    of_done: list[tuple[int, list[Record | None]]] = []
    for trial, values in _trials(search, optuna_study):
        cells = _cells(search, values)
        records = {cell.id: record for cell in cells if (record := _record(store, cell)) is not None}
        if trial.state == TrialState.COMPLETE:
            of_done.append((len(found), [records.get(cell.id) for cell in cells]))
        ends = {cell.id: cell.config.optim.steps for cell in cells if cell.id in records}
        stopped = trial.user_attrs.get("stopped")
        if stopped and cells:
            ends.setdefault(cells[stopped["repeat"]].id, stopped["step"])
        found.append(
            Setting(
                number=trial.number,
                values=values,
                state="stopped" if stopped else STATES[trial.state],
                reason=trial.user_attrs.get("reason", ""),
                validators=means(scores := by_repeat(list(records.values()))),
                repeats=len(records),
                steps=sum(_steps(cell, ends[cell.id], warm_ups, sharing) for cell in cells if cell.id in ends),
                by_repeat=scores,
                default=values == usual,
            )
        )
    for number, of_set in _set_scores(of_done, store).items():
        found[number] = replace(found[number], validators={**found[number].validators, **of_set})
    return found


def _set_scores(of_done: list[tuple[int, list[Record | None]]], store: Store) -> dict[int, dict[str, float]]:
    """Mean score of every set validator over the repeats, by place of the setting; none where anything lacks.

    Args:
        of_done: place and records, one of each repeat or None, of the settings that are done.
    """
    totals: dict[int, dict[str, list[float]]] = {place: defaultdict(list) for place, _ in of_done}
    for repeat in zip(*(records for _, records in of_done), strict=True):
        present = [record for record in repeat if record is not None]
        scores = set_scores(store, present) if len(present) == len(repeat) else None
        if scores is None:
            return {}
        for name, values in scores.items():
            for (place, _), value in zip(of_done, values, strict=True):
                totals[place][name].append(value)
    return {place: {name: fmean(values) for name, values in scores.items()} for place, scores in totals.items()}


def _record(store: Store, cell: Cell) -> Record | None:
    record = store.read_record(cell.id)
    return record if is_current(record) else None


def _steps(cell: Cell, end: int, warm_ups: set[str], sharing: bool) -> int:
    """Steps up to `end`, without a warm-up that an earlier cell has trained; adds the warm-up to `warm_ups`."""
    first = branch(cell)[0]
    if not sharing or first.ends:
        return end
    trained = first.key in warm_ups
    warm_ups.add(first.key)
    return end - first.last if trained else end


def planned_cells(search: Search, optuna_study: optuna.Study) -> list[Cell]:
    """The cells that the search wants records of: those of all settings that were not ended early."""
    return [
        cell
        for trial, values in _trials(search, optuna_study)
        if trial.state != TrialState.PRUNED
        for cell in _cells(search, values)
    ]


def keys_of_search(search: Search, optuna_study: optuna.Study) -> frozenset[str]:
    """Keys of all states in the store that may belong to a cell of the search."""
    cells = [cell for _, values in _trials(search, optuna_study) for cell in _cells(search, values)]
    return frozenset(stage.key for cell in cells for stage in branch(cell))


def _trials(search: Search, optuna_study: optuna.Study) -> list[tuple[FrozenTrial, Values]]:
    return [
        (trial, {path: value for path, value in values_of(trial).items() if path in search.space})
        for trial in optuna_study.get_trials(deepcopy=False)
        if trial.state in STATES
        and "duplicate_of" not in trial.user_attrs
        and search.space.keys() <= values_of(trial).keys()
    ]


def _cells(search: Search, values: Values) -> list[Cell]:
    try:
        return [search.cell(values, repeat) for repeat in search.repeats]
    except ConfigError:
        return []  # the setting has failed; its reason names the cause
