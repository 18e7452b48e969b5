"""What the candidates predict for one target, image by image, beside the one that was chosen."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scale_ray.config import ConfigError, Root
from scale_ray.data.domain_files import domain_files
from scale_ray.records import Record
from scale_ray.store import Store


@dataclass(frozen=True)
class Predicted:
    """The predictions of C candidates on the N images of a target.

    Attributes:
        names: (N,) of the images, below `where`.
        where: the target's folder or list.
        classes: (K,) names.
        probabilities: candidate -> (N, K) float16.
        labels: candidate -> (N,) predicted classes.
        chosen: the candidate to use.
        baseline: the candidate without adaptation; None if it was left out.
    """

    names: tuple[str, ...]
    where: str
    classes: tuple[str, ...]
    probabilities: dict[str, "NDArray[np.float16]"]
    labels: dict[str, "NDArray[np.int32]"]
    chosen: str
    baseline: str | None

    @cached_property
    def votes(self) -> "NDArray[np.int64]":
        """(N, K) how many candidates predict each class."""
        of_class = [np.eye(len(self.classes), dtype=np.int64)[labels] for labels in self.labels.values()]
        return np.sum(of_class, axis=0)

    @cached_property
    def disputed(self) -> "NDArray[np.int64]":
        """(N,) places of the images: first those on whose class the fewest candidates agree, then the least sure."""
        agreeing = self.votes.max(axis=1)
        certain = self.probabilities[self.chosen].max(axis=1).astype(np.float64)
        return np.lexsort((np.arange(len(agreeing)), certain, agreeing))

    def agreement(self, candidate: str) -> float:
        """Percent of the images on which a candidate predicts what the chosen one does."""
        return 100 * float(np.mean(self.labels[candidate] == self.labels[self.chosen]))

    def of_class(self, candidate: str) -> list[str]:
        """(N,) names of the predicted classes."""
        return [self.classes[label] for label in self.labels[candidate]]

    def table(self) -> pd.DataFrame:
        """One row for each image: path, class, probability, second class and its probability, and how the others vote.

        `agrees with source_only` is empty where source_only was not trained; `votes` is how many candidates predict the
        class, the chosen one included.
        """
        probabilities = self.probabilities[self.chosen].astype(np.float64)
        labels = self.labels[self.chosen]
        rows = np.arange(len(labels))
        rest = probabilities.copy()
        rest[rows, labels] = -1
        second = rest.argmax(axis=1)
        alike = None if self.baseline is None else self.labels[self.baseline] == labels
        return pd.DataFrame(
            {
                "path": self.paths,
                "class": [self.classes[label] for label in labels],
                "probability": probabilities[rows, labels].round(4),
                "second class": [self.classes[label] for label in second],
                "second probability": probabilities[rows, second].round(4),
                "agrees with source_only": "" if alike is None else np.where(alike, "yes", "no"),
                "votes": self.votes[rows, labels],
                "candidates": len(self.labels),
            }
        )

    @property
    def paths(self) -> list[str]:
        """Paths, or for a data set of Hugging Face its rows."""
        from scale_ray.config import is_hub

        return [f"{self.where}/{name}" if not is_hub(self.where) and "://" not in name else name for name in self.names]


def predicted(store: Store, records: dict[str, Record], chosen: str, baseline: str | None, root: Root) -> Predicted:
    """Read the stored predictions of candidates on the target that their records share.

    Raises:
        StoreError: stored predictions are damaged, or not of their record.
        ConfigError: the images of the target have changed since.
    """
    record = records[chosen]
    files = domain_files(record.config.data.benchmark, record.config.data.target, root)
    assert record.result is not None
    skipped = set(record.result.skipped.get(record.config.data.target, ()))
    found = {candidate: store.read_predictions(each) for candidate, each in records.items()}
    kept = {candidate: each for candidate, each in found.items() if each is not None}
    names = tuple(name for name in files.names if name not in skipped)
    if files.content_digest(files.digests()) != record.inputs["target"] or len(names) != len(kept[chosen].labels):
        raise ConfigError(
            f"{files.where}: its images have changed since they were predicted: run the same command again"
        )
    return Predicted(
        names=names,
        where=files.where,
        classes=kept[chosen].classes,
        probabilities={candidate: each.probabilities for candidate, each in kept.items()},
        labels={candidate: each.labels for candidate, each in kept.items()},
        chosen=chosen,
        baseline=baseline,
    )
