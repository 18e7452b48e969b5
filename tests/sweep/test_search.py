"""Optuna hands out each cell exactly once."""

import pickle

from scale_ray.sweep.search import METRIC, cell_search


def test_every_cell_once_and_in_order() -> None:
    ids = [f"{number:064x}" for number in range(48)]
    search = cell_search(ids)
    handed_out = []
    for trial in range(len(ids)):
        handed_out.append(search.suggest(f"trial-{trial}")["cell"])
        if trial % 3:  # some fail; that hands out none of them again
            search.on_trial_complete(f"trial-{trial}", {METRIC: 1.0})
        else:
            search.on_trial_complete(f"trial-{trial}", error=True)
    assert handed_out == ids


def test_the_metric_is_label_free() -> None:
    assert METRIC == "source_val_accuracy"


def test_a_search_can_be_pickled() -> None:
    """Tune does so at every checkpoint of its own."""
    search = cell_search(["a", "b"])
    assert pickle.loads(pickle.dumps(search._space)).ids == ("a", "b")
