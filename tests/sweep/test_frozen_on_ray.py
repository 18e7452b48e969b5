"""A study on features of a frozen encoder: the driver computes them once, and every trial maps them."""

from datetime import datetime
from pathlib import Path

import pytest
from studies import results, run, run_search

from scale_ray.config import Execution
from scale_ray.store import Store
from scale_ray.training.trial import run_trial


def features_in(folder: Path) -> list[str]:
    return sorted(path.suffix for path in folder.iterdir())


@pytest.mark.slow
def test_features_are_computed_once_and_the_records_are_those_of_trials_without_ray(
    tiny_root: Path, lenet_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCALE_RAY_CACHE", str(tmp_path / "cache"))
    store = tmp_path / "study"
    more = ("--frozen", "--set", f"model.weights={lenet_weights}", "--set", "model.frozen_views=2", "--seeds", "1")
    finished = run(tiny_root, store, *more)
    assert finished.returncode == 0, finished.stderr
    assert "lenet (frozen)" in finished.stdout
    for domain in ("plain", "inverted"):
        assert finished.stderr.count(f"features of {domain} by lenet") == 1
    assert features_in(store / "features") == [".npy", ".npy", ".sha256", ".sha256"]
    records = list(Store(store).records())
    assert len(records) == 2
    alone = Store(tmp_path / "alone", create=True)
    for record in records:
        run_trial(record.config, Execution(root=tiny_root, device="cpu"), alone)
    assert results(alone.location) == results(store)


@pytest.mark.slow
def test_a_search_computes_them_before_its_first_setting(
    tiny_root: Path, lenet_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCALE_RAY_CACHE", str(tmp_path / "cache"))
    more = ("--frozen", "--set", f"model.weights={lenet_weights}", "--set", "model.frozen_views=2")
    finished = run_search(tiny_root, tmp_path / "store", *more, trials=3)
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr.count("features of plain by lenet") == 1
    features = tmp_path / "store" / "features"
    assert features_in(features) == [".npy", ".npy", ".sha256", ".sha256"]
    first = min(datetime.fromisoformat(record.provenance.started) for record in Store(tmp_path / "store").records())
    assert max(path.stat().st_mtime for path in features.iterdir()) <= first.timestamp()
