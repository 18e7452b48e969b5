"""Stores with made-up accuracies that are incomplete in every way."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from report_stores import CREATED, GAIN, PAIRS, cell_of, config_of, digests, record_of

from scale_ray.config import RECIPE_VERSION, TrialConfig
from scale_ray.store import Store, StudyPlan


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., Store]:
    """`make_store([(config, accuracy), ...], planned=[config, ...])`."""

    def make(
        outcomes: Sequence[tuple[TrialConfig, float | None]], planned: Sequence[TrialConfig] = (), name: str = "s"
    ) -> Store:
        store = Store(tmp_path / "store", create=True)
        for config, accuracy in outcomes:
            store.write_record(record_of(config, accuracy))
        if planned:
            store.write_plan(StudyPlan(name=name, created=CREATED, cells=[cell_of(config) for config in planned]))
        return store

    return make


@pytest.fixture
def study_store(tmp_path: Path) -> Store:
    """The study of `write_study`, for one test."""
    return write_study(tmp_path / "study")


@pytest.fixture(scope="session")
def shared_study(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The study of `write_study`, for tests that only read it."""
    return write_study(tmp_path_factory.mktemp("shared") / "study")


def write_study(folder: Path) -> Store:
    """A study of 2 pairs x 4 combinations x 2 backbones x 3 seeds, and 3 cells of `dann` without a record.

    45 of the 48 cells are done, one failed and two are missing; one of the missing has an old record that no study
    plans any more.
    """
    store = Store(folder, create=True)
    planned = []
    for pair_index, (source, target) in enumerate(PAIRS):
        for losses, gain in GAIN.items():
            for backbone in ("resnet18", "lenet"):
                for seed in range(3):
                    config = config_of(source, target, losses, backbone, seed)
                    planned.append(config)
                    key = (source, losses, backbone, seed)
                    if key == ("mnist", "ce+ssl+dist+reg", "resnet18", 1):
                        continue
                    bonus = (2.0 if backbone == "resnet18" else 0.0) - 6.0 * pair_index + 0.5 * seed * (1 + pair_index)
                    failed = key == ("fonts", "ce+ssl+dist", "resnet18", 2)
                    stale = key == ("fonts", "ce+ssl+dist+reg", "lenet", 2)
                    accuracy = None if failed else 48.0 + gain + bonus
                    old = {"recipe": RECIPE_VERSION - 1, "inputs": digests(config) | {"old": "x"}} if stale else {}
                    store.write_record(record_of(config, accuracy, **old))
    planned += [config_of("mnist", "mnistm", "ce", "lenet", seed, method="dann") for seed in range(3)]
    store.write_plan(StudyPlan(name="ablation", created=CREATED, cells=[cell_of(config) for config in planned]))
    return store
