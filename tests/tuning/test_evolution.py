"""CMA-ES without a pickle: the optimiser is what the settings that are done make of it, and finds the optimum."""

import json
import os
import pickle
from pathlib import Path

import numpy as np
import optuna
import pytest
from cmaes import CMA
from optuna.distributions import FloatDistribution, IntDistribution
from searches import Driver, search

from scale_ray.store import Store
from scale_ray.tuning.evolution import EvolutionSampler

SPACE = {"a": FloatDistribution(-1, 3), "b": FloatDistribution(0.01, 1, log=True)}


def quality(params: dict[str, float]) -> float:
    return -((params["a"] - 1) ** 2) - np.log10(params["b"] / 0.1) ** 2


def run(settings: int, seed: int = 0) -> optuna.Study:
    study = optuna.create_study(direction="maximize")
    for number in range(settings):
        study.sampler = EvolutionSampler(seed + number)
        trial = study.ask(SPACE)
        study.tell(trial, quality(trial.params))
    return study


def test_it_proposes_what_an_optimiser_would_that_is_kept_from_setting_to_setting() -> None:
    study = run(40)
    bounds = np.array([[0.0, 1.0], [0.0, 1.0]])
    kept = CMA(mean=np.full(2, 0.5), sigma=1 / 6, bounds=bounds, n_max_resampling=20)
    told = []
    for trial in study.trials[1:]:  # the first one is random
        kept.reseed_rng(trial.number)
        asked = kept.ask()
        unit = np.array([(trial.params["a"] + 1) / 4, (np.log10(trial.params["b"]) + 2) / 2])
        np.testing.assert_allclose(unit, asked, rtol=1e-12)
        assert trial.system_attrs == {"cma:generation": kept.generation}
        told.append((unit, -quality(trial.params)))
        if len(told) == kept.population_size == 6:
            kept.tell(told)
            told = []
    assert kept.generation == 6


def test_it_finds_the_optimum() -> None:
    errors = [-trial.values[0] for trial in run(150, seed=5).trials]
    assert np.mean(errors[-12:]) < 0.01 < 0.1 < np.mean(errors[:12])


def test_a_setting_that_is_done_late_changes_no_generation_that_was_told() -> None:
    study = optuna.create_study(direction="maximize")
    late = None
    for number in range(20):
        study.sampler = EvolutionSampler(number)
        trial = study.ask(SPACE)
        if number == 3:
            late = trial
        else:
            study.tell(trial, quality(trial.params))

    def proposal() -> dict[str, float]:
        again = optuna.create_study(direction="maximize", sampler=EvolutionSampler(99))
        again.add_trials(study.get_trials(states=(optuna.trial.TrialState.COMPLETE,)))
        return again.ask(SPACE).params

    before = proposal()
    assert late is not None
    study.tell(late, 1e6)
    assert proposal() == before


def test_steps_and_integers_stay_in_their_range() -> None:
    space = {"a": FloatDistribution(0.5, 0.95, step=0.05), "b": IntDistribution(8, 512, log=True)}
    study = optuna.create_study(direction="maximize")
    for number in range(40):
        study.sampler = EvolutionSampler(number)
        trial = study.ask(space)
        assert 0.5 <= trial.params["a"] <= 0.95
        assert (trial.params["a"] - 0.5) / 0.05 == pytest.approx(round((trial.params["a"] - 0.5) / 0.05))
        assert isinstance(trial.params["b"], int)
        assert 8 <= trial.params["b"] <= 512
        study.tell(trial, trial.params["a"])


class Poison:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_an_optimiser_in_the_journal_is_never_unpickled(tiny_root: Path, tmp_path: Path) -> None:
    """Optuna's sampler left one in the trials of earlier versions' searches; anybody could have put one there."""
    store = Store(tmp_path / "store", create=True)
    wanted = search(tiny_root, sampler="cmaes", repeats=1, settings=12)
    Driver(wanted, store).work(5)
    journal = tmp_path / "store/tuning/try/journal.log"
    poisoned = tmp_path / "poisoned"
    attribute = {"cma:optimizer:0": pickle.dumps(Poison(poisoned)).hex()}
    entries = []
    for line in journal.read_text().splitlines():
        entries.append(json.loads(line))
        if "system_attr" in entries[-1] and "trial_id" in entries[-1]:
            entries.append({key: value for key, value in entries[-1].items() if key != "sha256"})
            entries[-1]["system_attr"] = attribute
    journal.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    again = Driver(wanted, store)
    assert "cma:optimizer:0" in again.optuna_study.trials[4].system_attrs
    assert again.work().settings.over
    assert not poisoned.exists()
