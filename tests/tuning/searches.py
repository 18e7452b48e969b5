"""Searches whose trainings are invented: the score is a function of the config, everything else is the real part."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
from tiny_trial import TINY

from scale_ray.cell import Cell
from scale_ray.config import TrialConfig
from scale_ray.records import Provenance, Record, Result
from scale_ray.store import Store
from scale_ray.tuning.optuna_study import open_optuna_study, values_of
from scale_ray.tuning.search import Repeat, Search
from scale_ray.tuning.settings import SettingQueue
from scale_ray.tuning.space import read_space

FACTS = Provenance(
    started="2026-01-01T00:00:00+00:00",
    wall_seconds=1,
    host="",
    device="",
    threads=1,
    git_commit=None,
    git_dirty=None,
    versions={},
)
CONTINUOUS = ("losses.threshold=float:0.5:0.95", "losses.temperature=float:0.03:1:log")
FEW = ("losses.threshold=0.7|0.8|0.9", "optim.batch_size=int:4:8:2")  # nine settings


def search(root: Path, space: Sequence[str] = CONTINUOUS, repeats: int = 2, **options: Any) -> Search:
    base = TrialConfig().replace(TINY)
    seeds = [Repeat("plain", "inverted", seed) for seed in range(repeats)]
    given = {"validator": "im", "settings": 6, "root": root} | options
    return Search(name="try", base=base, space=read_space(space, base), repeats=seeds, **given)


def quality(config: TrialConfig) -> float:
    """Best at threshold 0.8 and temperature 0.1; a seed shifts it."""
    distance = (config.losses.threshold - 0.8) ** 2 + math.log10(config.losses.temperature / 0.1) ** 2
    return 1 - distance + 0.001 * config.seed


def write_done(store: Store, cell: Cell, score: float) -> None:
    result = Result(
        target_accuracy=50 * score, teacher_accuracy=None, source_val_accuracy=1, steps=cell.config.optim.steps,
        curve=[], validators={"im": score}, skipped={},
    )  # fmt: skip
    store.write_record(
        Record(id=cell.id, status="done", config=cell.config, inputs=cell.inputs, result=result, provenance=FACTS)
    )


class Driver:
    """What a driver does, without Ray: opens the search anew and works it off, one cell at a time."""

    def __init__(
        self,
        wanted: Search,
        store: Store,
        score: Callable[[TrialConfig], float] = quality,
        still_owned: Callable[[], None] = lambda: None,
        url: str | None = None,
    ):
        store.files.make_folders([f"tuning/{wanted.name}"])
        self.search, self.store, self.score = wanted, store, score
        self.optuna_study: optuna.Study = open_optuna_study(store, wanted.name, url, wanted.spec())
        self.settings = SettingQueue(wanted, self.optuna_study, store, still_owned)
        self.trained: list[Cell] = []

    def work(self, cells: int = 1000) -> "Driver":
        for _ in range(cells):
            cell = self.settings.next()
            if cell is None:
                break
            self.train(cell)
            self.settings.ended(cell.id)
        return self

    def train(self, cell: Cell) -> None:
        self.trained.append(cell)
        write_done(self.store, cell, self.score(cell.config))

    def values(self) -> list[tuple[Any, ...]]:
        """Of every setting that was run, in order."""
        trials = [trial for trial in self.optuna_study.get_trials() if "duplicate_of" not in trial.user_attrs]
        return [tuple(values_of(trial)[path] for path in self.search.space) for trial in trials]
