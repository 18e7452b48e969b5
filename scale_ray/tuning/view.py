"""A search as it is shown: its settings, their scores and curves. Read from Optuna's study and the records alone.

It imports neither torch nor ray, so that a report of a search needs none of them.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import optuna
from optuna.distributions import json_to_distribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState

from scale_ray.config import TrialConfig
from scale_ray.records import ORACLE, Record
from scale_ray.store import Store, is_current
from scale_ray.tuning.attributes import check_attributes
from scale_ray.tuning.journal import open_journal, remedy
from scale_ray.tuning.optuna_study import folder, values_of
from scale_ray.tuning.setting import Setting, SettingState
from scale_ray.tuning.space import Space, Values, default_setting

STATES: Mapping[TrialState, SettingState] = {
    TrialState.COMPLETE: "done",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "open",
}

# With fewer settings an importance means little; Optuna itself requires two.
_FEWEST_DONE = 8

Curve = list[tuple[int, float]]  # step, score


@dataclass(frozen=True)
class SearchView:
    """A search as far as it is.

    Attributes:
        name: of the search.
        validator: what chooses.
        space: the tuned fields and their ranges.
        repeats: `mnist>mnistm seed 0`, on which every setting is trained.
        settings: in the order in which they were asked for.
        curves: number of a setting -> the validator's score at every point, mean over the repeats that have a record.
        importance: by field, see `importance`.
        cells: ids of the settings' cells.
        base: a config with the values of fields that are not tuned; None where nothing has a record yet.
    """

    name: str
    validator: str
    space: Space
    repeats: list[str]
    settings: list[Setting]
    curves: dict[int, Curve]
    importance: dict[str, float]
    cells: frozenset[str]
    base: TrialConfig | None


def stored_searches(store: Store) -> Iterator[str]:
    """Names of the searches whose journal is in the store. Those in a database are shown by `scale-ray tune`."""
    for name in store.files.folders("tuning"):
        if store.folder is not None and store.files.exists(f"{folder(name)}/journal.log"):
            yield name


def read_search(store: Store, name: str) -> SearchView | None:
    """A search from its journal in the store; None where nothing is in the journal yet, or any more.

    Raises:
        StoreError: the journal or a record cannot be read.
    """
    assert store.folder is not None
    path = store.folder / folder(name) / "journal.log"
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        optuna_study = optuna.load_study(study_name=name, storage=open_journal(path, writing=False))
    except KeyError:  # no study of that name
        return None
    check_attributes(optuna_study, str(path), remedy(path))
    return view_of(optuna_study, store)


def view_of(optuna_study: optuna.Study, store: Store) -> SearchView:
    """A search from its Optuna study and the records."""
    spec = optuna_study.user_attrs.get("spec", {})
    space: Space = {path: json_to_distribution(text) for path, text in spec.get("space", {}).items()}
    repeats, validator = list(spec.get("repeats", [])), str(spec.get("validator", ""))
    trials = [
        (trial, {path: value for path, value in values_of(trial).items() if path in space})
        for trial in optuna_study.get_trials(deepcopy=False)
        if trial.state in STATES and "duplicate_of" not in trial.user_attrs
    ]
    found = {trial.number: _records(store, trial.user_attrs.get("cells", {}), repeats) for trial, _ in trials}
    base = _base(store, str(spec.get("base", "")), found)
    usual = None if base is None else default_setting(space, base)
    settings = []
    for trial, values in trials:
        scores = by_repeat(found[trial.number])
        settings.append(
            Setting(
                number=trial.number,
                values=values,
                state="stopped" if "stopped" in trial.user_attrs else STATES[trial.state],
                reason=trial.user_attrs.get("reason", ""),
                validators=means(scores),
                repeats=len(found[trial.number]),
                steps=sum(record.result.steps for record in found[trial.number] if record.result),
                by_repeat=scores,
                default=values == usual,
            )
        )
    curves = {number: _curve(records, validator) for number, records in found.items()}
    return SearchView(
        name=optuna_study.study_name,
        validator=validator,
        space=space,
        repeats=repeats,
        settings=settings,
        curves={number: curve for number, curve in curves.items() if curve},
        importance=importance(optuna_study),
        cells=frozenset(cell for trial, _ in trials for cell in trial.user_attrs.get("cells", {}).values()),
        base=base,
    )


def by_repeat(records: Sequence[Record]) -> dict[str, list[float]]:
    """Scores of every validator that all of these records have, and of the oracle where the target has labels."""
    scores: dict[str, list[float]] = defaultdict(list)
    for record in records:
        assert record.result is not None
        accuracy = record.result.target_accuracy
        for name, value in {**record.result.validators, ORACLE: accuracy}.items():
            if value is not None:
                scores[name].append(value)
    return {name: values for name, values in scores.items() if len(values) == len(records)}


def means(scores: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: fmean(values) for name, values in scores.items()}


def importance(optuna_study: optuna.Study) -> dict[str, float]:
    """Share of the score's variance that each field explains among finished settings (fANOVA), the largest first.

    http://proceedings.mlr.press/v32/hutter14.html
    """
    done = optuna_study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    fields = next((list(each.params) for each in done if each.params), [])  # a default outside the space has none
    if sum(bool(each.params) for each in done) < _FEWEST_DONE:
        return {}
    return get_param_importances(optuna_study, evaluator=FanovaImportanceEvaluator(seed=0), params=fields)


def _records(store: Store, cells: Mapping[str, str], repeats: Sequence[str]) -> list[Record]:
    """The current records of a setting's cells, in the order of the repeats."""
    found = (store.read_record(cells[repeat]) for repeat in repeats if repeat in cells)
    return [record for record in found if record is not None and is_current(record)]


def _base(store: Store, first: str, found: Mapping[int, Sequence[Record]]) -> TrialConfig | None:
    """The config of the default setting, whose first cell the search names; else that of any cell."""
    record = store.read_record(first) if first else None
    if record is not None:
        return record.config
    return next((records[0].config for records in found.values() if records), None)


def _curve(records: Sequence[Record], validator: str) -> Curve:
    """The mean score at the steps that all of these records have a point of."""
    scores: dict[int, list[float]] = defaultdict(list)
    for record in records:
        for point in record.result.curve if record.result else ():
            value = point.target_accuracy if validator == ORACLE else point.validators.get(validator)
            if value is not None:
                scores[point.step].append(value)
    return [(step, fmean(values)) for step, values in sorted(scores.items()) if len(values) == len(records)]


def default_values(view: SearchView) -> Values | None:
    """The default setting; None where no record says what it is."""
    return None if view.base is None else default_setting(view.space, view.base)
