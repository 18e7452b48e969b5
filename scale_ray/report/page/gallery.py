"""The gallery of errors: the target images of which a training was most certain, and wrong.

It needs stored predictions and the images themselves, in the version that was predicted. Without either there is none.
"""

import base64
import io
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scale_ray.records import Record
from scale_ray.store import Store, StoredPredictions
from scale_ray.study import describe

SIDE = 72  # pixels of a thumbnail
_A_CLASS = 4  # images
_CLASSES = 12  # those with the most errors
_TRIALS = 3

# The images (N, 3, S, S) of a record's target and their labels (N,), in the order of its predictions; None where they
# are not at hand.
Images = tuple[NDArray[np.uint8], NDArray[np.int64]]
Reach = Callable[[Record, StoredPredictions], Images | None]


class Mistake(NamedTuple):
    """One image, as a data URI, and what it was taken for."""

    image: str
    predicted: str
    probability: float


class Gallery(NamedTuple):
    """The most certain errors of one training: class, number of errors, images."""

    title: str
    benchmark: str
    errors: int
    images: int
    classes: list[tuple[str, int, list[Mistake]]]


def galleries(store: Store, cells: Iterable[str], reach: Reach) -> list[Gallery]:
    """The galleries of these trainings, of at most three; those without stored predictions or images are left out.

    Args:
        store: has their records.
        cells: ids, the most interesting first.
        reach: opens the images.

    Raises:
        StoreError: stored predictions are damaged.
    """
    stored = set(store.predictions_ids())
    return list(_galleries(store, [cell for cell in cells if cell in stored][:_TRIALS], reach))


def _galleries(store: Store, cells: list[str], reach: Reach) -> Iterator[Gallery]:
    for record in store.records(cells):
        predictions = store.read_predictions(record)
        found = None if predictions is None else reach(record, predictions)
        if predictions is not None and found is not None:
            yield _gallery(record, predictions, *found)


def _gallery(
    record: Record, predictions: StoredPredictions, images: NDArray[np.uint8], labels: NDArray[np.int64]
) -> Gallery:
    certainty = predictions.probabilities.astype(np.float32)[np.arange(len(labels)), predictions.labels]
    wrong = np.flatnonzero(predictions.labels != labels)
    counts = np.bincount(labels[wrong], minlength=len(predictions.classes))
    classes = []
    for index in np.argsort(-counts, kind="stable")[:_CLASSES]:
        of_class = wrong[labels[wrong] == index]
        first = of_class[np.argsort(-certainty[of_class], kind="stable")][:_A_CLASS]
        mistakes = [
            Mistake(
                _thumbnail(images[image]),
                predictions.classes[predictions.labels[image]],
                100 * float(certainty[image]),
            )
            for image in first
        ]
        if mistakes:
            classes.append((predictions.classes[index], int(counts[index]), mistakes))
    return Gallery(describe(record.config), record.config.data.benchmark, len(wrong), len(labels), classes)


def _thumbnail(image: NDArray[np.uint8]) -> str:
    """A JPEG as data URI, made from (3, S, S)."""
    picture = Image.fromarray(np.ascontiguousarray(np.asarray(image).transpose(1, 2, 0)))
    if max(picture.size) > SIDE:
        picture.thumbnail((SIDE, SIDE))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"
