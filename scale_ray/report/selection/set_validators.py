"""Set validators: scores of several trainings on one domain pair and seed, from all their target predictions at once.

Each gets the class probabilities (C, N, K) of C trainings on the same N target images and their predicted classes
(C, N), and gives C scores; higher is better. Stored probabilities are rounded, so two may be equal where one was
higher. Only scores of the same set are comparable. None sees a target label.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from scale_ray.records import Record
from scale_ray.report.read.errors import ReportError
from scale_ray.store import Store, StoredPredictions

SetValidator = Callable[[NDArray[np.floating], NDArray[np.integer]], NDArray[np.float64]]


def ensv(probabilities: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """Percent of the target images on which each training agrees with the ensemble of all of them.

    100 mean_i [argmax_k p_c(i, k) = argmax_k mean_c' p_c'(i, k)]. Hu, Luo, Liang, Foo: Towards Reliable Model Selection
    for Unsupervised Domain Adaptation: An Empirical Study and A Certified Baseline, NeurIPS 2024 Datasets and
    Benchmarks (https://openreview.net/forum?id=rI7kbFTSpr). The ensemble's labels stand for the true ones, so the score
    is an estimate of the target accuracy. It is blind to what most candidates do wrong alike, and candidates that
    resemble each other count as often as they occur.
    """
    ensemble = probabilities.mean(axis=0, dtype=np.float64).argmax(axis=1)
    agreement: NDArray[np.float64] = 100 * (labels == ensemble).mean(axis=1)
    return agreement


SET_VALIDATORS: dict[str, SetValidator] = {"ensv": ensv}


def set_scores(store: Store, records: Sequence[Record]) -> dict[str, list[float]] | None:
    """The score of every set validator for each of these trainings on one pair and seed, in order.

    None if one of them has no stored predictions.

    Raises:
        StoreError: a file is damaged, or not of its record.
        ReportError: they are predictions on different images or classes.
    """
    found: list[StoredPredictions] = []
    for record in records:
        predictions = store.read_predictions(record)
        if predictions is None:
            return None
        found.append(predictions)
        if (predictions.target, predictions.classes) != (found[0].target, found[0].classes):
            raise ReportError(
                f"cells {records[0].id} and {record.id}: their predictions are of different versions of the target "
                f"{record.config.data.target}: choose among cells of one version of the data"
            )
    probabilities = np.stack([each.probabilities for each in found])
    labels = np.stack([each.labels for each in found])
    return {name: validator(probabilities, labels).tolist() for name, validator in SET_VALIDATORS.items()}
