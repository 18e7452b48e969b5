"""Stores with made-up accuracies, scores and predictions of several methods."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from report_stores import config_of, record_of

from scale_ray.config import TrialConfig
from scale_ray.records import Record
from scale_ray.store import Store, StoredPredictions

CLASSES = ["cat", "dog", "owl"]


def scored(config: TrialConfig, accuracy: float, scores: Mapping[str, float]) -> Record:
    record = record_of(config, accuracy)
    return record.model_copy(update={"result": record.result.model_copy(update={"validators": dict(scores)})})


def with_predictions(store: Store, record: Record, labels: Sequence[int], sure: float = 0.9) -> None:
    """Write a record and predictions of these classes, each with the probability `sure`."""
    rest = (1 - sure) / (len(CLASSES) - 1)
    probabilities = np.full((len(labels), len(CLASSES)), rest)
    probabilities[np.arange(len(labels)), list(labels)] = sure
    counts = np.bincount(labels, minlength=len(CLASSES)).tolist()
    result = record.result.model_copy(update={"classes": CLASSES, "confusion": [counts, [0] * 3, [0] * 3]})
    store.write_record(record.model_copy(update={"result": result}))
    store.write_predictions(record.id, StoredPredictions.of(probabilities, CLASSES, record.inputs["target"]))


# Target images are classified as these by each method, on two pairs. Of the ensemble, the first four agree on all.
LABELS = {
    "dann": {"mnist": [0, 0, 1, 1, 2, 2, 0, 0], "fonts": [0, 0, 1, 1, 2, 2, 0, 1]},
    "mcc": {"mnist": [0, 0, 1, 1, 2, 2, 0, 1], "fonts": [0, 0, 0, 1, 2, 2, 0, 1]},
    "source_only": {"mnist": [0, 0, 1, 1, 2, 0, 1, 1], "fonts": [0, 0, 1, 1, 2, 2, 0, 0]},
}
ACCURACY = {
    "dann": {"mnist": 60.0, "fonts": 50.0},
    "mcc": {"mnist": 70.0, "fonts": 40.0},
    "source_only": {"mnist": 55.0, "fonts": 52.0},
}
IM = {"dann": 1.2, "mcc": 1.5, "source_only": 0.8}


def choice_store(folder: Path, *, seeds: int = 2, predictions: bool = True) -> Store:
    """mnist>mnistm and fonts>mnistm by three methods: the same predictions for every seed."""
    store = Store(folder, create=True)
    for method, of_pairs in LABELS.items():
        for source, labels in of_pairs.items():
            for seed in range(seeds):
                config = config_of(source, "mnistm", "ce", "lenet", seed, method)
                record = scored(config, ACCURACY[method][source] + seed, {"im": IM[method] + seed / 10})
                if predictions:
                    with_predictions(store, record, labels)
                else:
                    store.write_record(record)
    return store
