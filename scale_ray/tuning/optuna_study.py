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
from optuna.samplers import BaseSampler, CmaEsSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from scale_ray.config import ConfigError, check_name
from scale_ray.store import Store
from scale_ray.tuning.space import Space, size

# For `grid`, every setting is enqueued in order, so its sampler never chooses.
SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: TPESampler(seed=seed, constant_liar=True),
    "random": lambda seed: RandomSampler(seed=seed),
    "grid": lambda seed: RandomSampler(seed=seed),
    "cmaes": lambda seed: CmaEsSampler(seed=seed),
}


def folder(name: str) -> str:
    """Where a search keeps its journal and its results, in the store."""
    return f"tuning/{name}"


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
            spec.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = _journal(store, name) if url is None else _database(url)
    optuna_study = optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)
    begun_with = optuna_study.user_attrs.get("spec")
    wanted = {**json.loads(json.dumps(spec)), "store": store.location}
    if begun_with is None:
        optuna_study.set_user_attr("spec", wanted)
    elif begun_with != wanted:
        differing = sorted(key for key in begun_with | wanted if begun_with.get(key) != wanted.get(key))
        shown = "; ".join(f"{key} was {begun_with.get(key)}, is now {wanted.get(key)}" for key in differing)
        raise ConfigError(
            f"the search {name!r} was begun with other {', '.join(differing)} ({shown}): give another --name"
        )
    return optuna_study


def _journal(store: Store, name: str) -> BaseStorage:
    if store.folder is None:
        raise ConfigError(
            f"store {store.location} is not a folder, which Optuna's journal needs: give --study-url sqlite:///FILE or "
            "postgresql://…; records, checkpoints and results still go to the store"
        )
    path = store.folder / folder(name) / "journal.log"
    _drop_torn_line(path)
    return JournalStorage(JournalFileBackend(str(path)))


def _drop_torn_line(path: Path) -> None:
    """Remove half a line that a killed writer may have left: the next entry would be appended to it."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        content = file.read()
        if content and not content.endswith(b"\n"):
            file.truncate(content.rfind(b"\n") + 1)


def _database(url: str) -> BaseStorage:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import SQLAlchemyError

    try:
        shown = make_url(url).render_as_string(hide_password=True)
    except SQLAlchemyError:
        raise ConfigError("--study-url: no database URL: write sqlite:///FILE or postgresql://USER@HOST/NAME") from None
    try:
        return RDBStorage(url)
    except (ImportError, SQLAlchemyError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"--study-url {shown}: cannot be used ({reason}): check it, or leave it out") from None
