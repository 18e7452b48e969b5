"""A search as it is shown: its settings, their scores and curves. Read from Optuna's study and the records alone.

It imports neither torch nor ray, so that a report of a search needs none of them.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

import optuna
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState

from scale_ray.config import TrialConfig
from scale_ray.records import ORACLE, Record
from scale_ray.store import Store
from scale_ray.tuning.attributes import check_attributes
from scale_ray.tuning.journal import open_journal, remedy
from scale_ray.tuning.optuna_study import folder
from scale_ray.tuning.results import read_tried, repeats_of, settings_of, space_of
from scale_ray.tuning.setting import Setting
from scale_ray.tuning.space import Space, default_setting

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
        base: the config of the default setting; None where the search was begun before it was kept.
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
    spec, base = optuna_study.user_attrs.get("spec", {}), optuna_study.user_attrs.get("base_config")
    space, repeats, validator = space_of(optuna_study), repeats_of(optuna_study), str(spec.get("validator", ""))
    config = None if base is None else TrialConfig.parse(base)
    default = None if config is None else default_setting(space, config)
    tried = read_tried(optuna_study, store)
    curves = {each.trial.number: _curve(list(each.records.values()), validator) for each in tried}
    return SearchView(
        name=optuna_study.study_name,
        validator=validator,
        space=space,
        repeats=repeats,
        settings=settings_of(tried, repeats, default, store),
        curves={number: curve for number, curve in curves.items() if curve},
        importance=importance(optuna_study),
        cells=frozenset(cell for each in tried for cell in each.trial.user_attrs.get("cells", {}).values()),
        base=config,
    )


def importance(optuna_study: optuna.Study) -> dict[str, float]:
    """Share of the score's variance that each field explains among finished settings (fANOVA), the largest first.

    http://proceedings.mlr.press/v32/hutter14.html
    """
    done = optuna_study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    fields = next((list(each.params) for each in done if each.params), [])  # a default outside the space has none
    if sum(bool(each.params) for each in done) < _FEWEST_DONE:
        return {}
    return get_param_importances(optuna_study, evaluator=FanovaImportanceEvaluator(seed=0), params=fields)


def _curve(records: Sequence[Record], validator: str) -> Curve:
    """The mean score at the steps that all of these records have a point of."""
    scores: dict[int, list[float]] = defaultdict(list)
    for record in records:
        for point in record.result.curve if record.result else ():
            value = point.target_accuracy if validator == ORACLE else point.validators.get(validator)
            if value is not None:
                scores[point.step].append(value)
    return [(step, fmean(values)) for step, values in sorted(scores.items()) if len(values) == len(records)]
