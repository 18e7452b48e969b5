"""The settings of a search with their results, from its Optuna study and the store's records.

It imports neither torch nor ray, so that a report of a search needs none of them.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import optuna
from optuna.distributions import json_to_distribution
from optuna.trial import FrozenTrial, TrialState

from scale_ray.records import ORACLE, Record
from scale_ray.report.selection.set_validators import set_scores
from scale_ray.store import Store, is_current
from scale_ray.tuning.optuna_study import values_of
from scale_ray.tuning.setting import Setting, SettingState
from scale_ray.tuning.space import Space, Values

STATES: Mapping[TrialState, SettingState] = {
    TrialState.COMPLETE: "done",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "open",
}


@dataclass(frozen=True)
class Tried:
    """A setting as Optuna keeps it, and what its repeats have left.

    Attributes:
        trial: of Optuna.
        values: by dotted path.
        records: repeat -> its current record, where it has one; in the order of the repeats.
    """

    trial: FrozenTrial
    values: Values
    records: Mapping[str, Record]


def space_of(optuna_study: optuna.Study) -> Space:
    """The tuned fields and their ranges."""
    texts = optuna_study.user_attrs.get("spec", {}).get("space", {})
    return {path: json_to_distribution(text) for path, text in texts.items()}


def repeats_of(optuna_study: optuna.Study) -> list[str]:
    """`mnist>mnistm seed 0`, on which every setting is trained."""
    return list(optuna_study.user_attrs.get("spec", {}).get("repeats", []))


def tried_values(optuna_study: optuna.Study) -> list[tuple[FrozenTrial, Values]]:
    """Every setting, without duplicates, which are not trained, and without one whose values are not all drawn yet."""
    space = space_of(optuna_study)
    return [
        (trial, {path: value for path, value in values_of(trial).items() if path in space})
        for trial in optuna_study.get_trials(deepcopy=False)
        if trial.state in STATES and "duplicate_of" not in trial.user_attrs and space.keys() <= values_of(trial).keys()
    ]


def read_tried(optuna_study: optuna.Study, store: Store) -> list[Tried]:
    """Every setting with its records, in the order in which it was asked for."""
    repeats = repeats_of(optuna_study)
    return [
        Tried(trial, values, _records(store, trial.user_attrs.get("cells", {}), repeats))
        for trial, values in tried_values(optuna_study)
    ]


def settings_of(tried: Sequence[Tried], repeats: Sequence[str], default: Values | None, store: Store) -> list[Setting]:
    """The settings as they are shown and chosen among.

    Args:
        tried: of the search, all of them: set validators score them among each other.
        repeats: on which every setting is trained.
        default: the default setting, if it is known.
        store: has the predictions that set validators read.
    """
    warm_ups: set[str] = set()  # of the settings so far
    settings = [_setting(each, repeats, default, warm_ups) for each in tried]
    done = [place for place, setting in enumerate(settings) if setting.state == "done"]
    of_sets = _set_scores([tried[place].records for place in done], repeats, store)
    for place, scores in zip(done, of_sets, strict=False):
        settings[place] = replace(settings[place], validators={**settings[place].validators, **scores})
    return settings


def _setting(tried: Tried, repeats: Sequence[str], default: Values | None, warm_ups: set[str]) -> Setting:
    trial, scores = tried.trial, by_repeat(tried.records)
    state: SettingState = "stopped" if "stopped" in trial.user_attrs else STATES[trial.state]
    reason = trial.user_attrs.get("reason", "")
    missing = [repeat for repeat in repeats if repeat not in tried.records]
    if state == "done" and missing:
        state = "incomplete"
        reason = f"no current record of {', '.join(missing)}: the search under another --name trains it again"
    return Setting(
        number=trial.number,
        values=tried.values,
        state=state,
        reason=reason,
        validators={name: fmean(of_repeats.values()) for name, of_repeats in scores.items()},
        repeats=len(tried.records),
        steps=_steps(tried, repeats, warm_ups),
        by_repeat=scores,
        default=tried.values == default,
    )


def by_repeat(records: Mapping[str, Record]) -> dict[str, dict[str, float]]:
    """Name -> repeat -> score, of every validator that all of these records have, and of the oracle."""
    scores: dict[str, dict[str, float]] = defaultdict(dict)
    for repeat, record in records.items():
        assert record.result is not None
        accuracy = record.result.target_accuracy
        for name, value in {**record.result.validators, ORACLE: accuracy}.items():
            if value is not None:
                scores[name][repeat] = value
    return {name: of_repeats for name, of_repeats in scores.items() if len(of_repeats) == len(records)}


def _records(store: Store, cells: Mapping[str, str], repeats: Sequence[str]) -> dict[str, Record]:
    found = {repeat: store.read_record(cells[repeat]) for repeat in repeats if repeat in cells}
    return {repeat: record for repeat, record in found.items() if record is not None and is_current(record)}


def _steps(tried: Tried, repeats: Sequence[str], counted: set[str]) -> int:
    """Steps of all repeats, without warm-ups that an earlier setting has trained; adds those of this one."""
    ends = {repeat: record.result.steps for repeat, record in tried.records.items() if record.result}
    stopped = tried.trial.user_attrs.get("stopped")
    if stopped and repeats:
        ends.setdefault(repeats[stopped["repeat"]], stopped["step"])
    total = sum(ends.values())
    for repeat, (key, steps) in tried.trial.user_attrs.get("warm_ups", {}).items():
        if repeat in ends:
            total -= steps if key in counted else 0
            counted.add(key)
    return total


def _set_scores(done: Sequence[Mapping[str, Record]], repeats: Sequence[str], store: Store) -> list[dict[str, float]]:
    """Mean score of every set validator over the repeats, for each setting that is done; empty where anything lacks."""
    totals: list[dict[str, list[float]]] = [defaultdict(list) for _ in done]
    for repeat in repeats if done else ():
        scores = set_scores(store, [records[repeat] for records in done])
        if scores is None:
            return []
        for name, values in scores.items():
            for total, value in zip(totals, values, strict=True):
                total[name].append(value)
    return [{name: fmean(values) for name, values in total.items()} for total in totals]
