"""The Optuna study of a search: where it is kept, what it searches, and which sampler proposes settings.

It is kept in a journal file in the store, `STORE/tuning/<name>/journal.log`, or in a database by URL. One driver writes
to it (see `run`). `optuna-dashboard STORE/tuning/<name>/journal.log` opens it, also while the search runs.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from scale_ray.config import ConfigError, check_name
from scale_ray.store import Store
from scale_ray.tuning.attributes import check_attributes
from scale_ray.tuning.database import open_database
from scale_ray.tuning.evolution import EvolutionSampler
from scale_ray.tuning.journal import open_journal, remedy
from scale_ray.tuning.space import Space, Values, rounded, size
from scale_ray.urls import redacted

# For `grid`, every setting is enqueued in order, so its sampler never chooses.
SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: TPESampler(seed=seed, constant_liar=True),
    "random": lambda seed: RandomSampler(seed=seed),
    "grid": lambda seed: RandomSampler(seed=seed),
    "cmaes": EvolutionSampler,
}


def folder(name: str) -> str:
    """Where a search keeps its journal and its results, in the store."""
    return f"tuning/{name}"


def values_of(trial: FrozenTrial) -> Values:
    """The setting of one of Optuna's trials. A default outside of the space is no parameter, which samplers read."""
    return trial.user_attrs.get("default") or rounded(trial.params)


def check_sampler(name: str, space: Space) -> None:
    """Raise a ConfigError where there is no such sampler, or it cannot propose settings of this space."""
    check_name("sampler", name, SAMPLERS)
    if name == "grid" and size(space) is None:
        raise ConfigError("sampler 'grid' needs steps or values: write float:LOW:HIGH:STEP or a|b|c, or use tpe")
    if name == "cmaes":
        words = [path for path, each in space.items() if isinstance(each, CategoricalDistribution)]
        if words or len(space) < 2:
            problem = f"{', '.join(words)} takes values of a list" if words else "this is one field"
            raise ConfigError(f"sampler 'cmaes' searches two or more numbers, {problem}: use tpe")


def open_optuna_study(store: Store, name: str, url: str | None, spec: Mapping[str, Any]) -> optuna.Study:
    """The Optuna study of that name, created where it is missing. The caller must be the only driver that writes to it.

    Args:
        url: `sqlite:///file`, `postgresql://…`; None is the journal file in the store.
        spec: what is searched, as JSON: a search can go on only with what it was begun with.

    Raises:
        ConfigError: the store cannot hold a journal, the database cannot be used, or the search was begun with another
            spec or on another store.
        StoreError: the journal cannot be read, or the study holds what no search writes.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = open_journal(_journal_path(store, name)) if url is None else open_database(url)
    optuna_study = optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)
    if url is None:
        journal = _journal_path(store, name)
        check_attributes(optuna_study, str(journal), remedy(journal))
    else:
        check_attributes(optuna_study, f"--study-url {redacted(url)}", "give another --name; the records stay")
    begun_with = optuna_study.user_attrs.get("spec")
    wanted = json.loads(json.dumps(spec))
    if begun_with is None:
        optuna_study.set_user_attr("spec", wanted)
    else:
        _refuse_another_spec(name, begun_with, wanted)
    _refuse_another_store(optuna_study, store)
    return optuna_study


def _refuse_another_spec(name: str, begun_with: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    # Earlier versions also kept the store's location, with which a store that was moved could not go on.
    differing = sorted(key for key in {*begun_with, *wanted} - {"store"} if begun_with.get(key) != wanted.get(key))
    if differing:
        shown = "; ".join(f"{key} was {begun_with.get(key)}, is now {wanted.get(key)}" for key in differing)
        raise ConfigError(
            f"the search {name!r} was begun with other {', '.join(differing)} ({shown}): give another --name"
        )


def _refuse_another_store(optuna_study: optuna.Study, store: Store) -> None:
    """A database does not know its store, and the settings that are done have their numbers in it."""
    done = optuna_study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    cells = [cell for trial in done for cell in trial.user_attrs.get("cells", {}).values()]
    if cells and all(store.read_record(cell) is None for cell in cells):
        raise ConfigError(
            f"the search {optuna_study.study_name!r} has {len(done)} settings that are done, and store "
            f"{store.location} has none of their records: name the store that it was run on, or give another --name"
        )


def _journal_path(store: Store, name: str) -> Path:
    if store.folder is None:
        raise ConfigError(
            f"store {store.location} is not a folder, which Optuna's journal needs: give --study-url sqlite:///FILE or "
            "postgresql://…; records, checkpoints and results still go to the store"
        )
    return store.folder / folder(name) / "journal.log"
