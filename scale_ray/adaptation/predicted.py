"""What the candidates predict for one target, image by image, beside the one that was chosen."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scale_ray.config import ConfigError, Root
from scale_ray.data.domain_files import DomainFiles, domain_files, image_path
from scale_ray.data.pixels import upright_rgb
from scale_ray.errors import UserError
from scale_ray.records import Record
from scale_ray.store import Store

# Of predictions.csv; those that `scale-ray predict` has too have the same names.
COLUMNS = [
    *("path", "class", "probability", "second_class", "second_probability"),
    *("agrees_with_source_only", "votes", "candidates", "problem"),
]


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
        problems: image that could not be read -> why.
    """

    names: tuple[str, ...]
    where: str
    classes: tuple[str, ...]
    probabilities: dict[str, "NDArray[np.float16]"]
    labels: dict[str, "NDArray[np.int32]"]
    chosen: str
    baseline: str | None
    problems: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def votes(self) -> "NDArray[np.int16]":
        """(N, K) how many candidates predict each class."""
        votes = np.zeros((len(self.names), len(self.classes)), np.int16)
        for labels in self.labels.values():
            votes[np.arange(len(labels)), labels] += 1
        return votes

    @cached_property
    def disputed(self) -> "NDArray[np.int64]":
        """(N,) places of the images: first those on whose class the fewest candidates agree, then the least sure."""
        agreeing = self.votes.max(axis=1)
        certain = self.probabilities[self.chosen].max(axis=1).astype(np.float64)
        return np.lexsort((np.arange(len(agreeing)), certain, agreeing))

    def agreement(self, candidate: str) -> float:
        """Percent of the images on which a candidate predicts what the chosen one does."""
        return 100 * float(np.mean(self.labels[candidate] == self.labels[self.chosen]))

    def majority(self) -> float:
        """Percent of the images whose class more than half of the candidates predict."""
        labels = self.labels[self.chosen]
        return 100 * float(np.mean(2 * self.votes[np.arange(len(labels)), labels] > len(self.labels)))

    def table(self) -> pd.DataFrame:
        """One row for each image, with the columns COLUMNS.

        `agrees_with_source_only` is empty where source_only was not trained; `votes` is how many candidates predict the
        class, the chosen one included. An image that could not be read has a `problem` and nothing else.
        """
        probabilities, labels = self.probabilities[self.chosen], self.labels[self.chosen]
        rows = np.arange(len(labels))
        rest = probabilities.copy()
        rest[rows, labels] = -1
        second = rest.argmax(axis=1)
        alike = None if self.baseline is None else self.labels[self.baseline] == labels
        readable = pd.DataFrame(
            {
                "path": self.names,
                "class": [self.classes[label] for label in labels],
                "probability": probabilities[rows, labels].astype(np.float64).round(4),
                "second_class": [self.classes[label] for label in second],
                "second_probability": probabilities[rows, second].astype(np.float64).round(4),
                "agrees_with_source_only": "" if alike is None else np.where(alike, "yes", "no"),
                "votes": pd.array(self.votes[rows, labels], "Int64"),
                "candidates": pd.array([len(self.labels)] * len(rows), "Int64"),
                "problem": "",
            }
        )
        if self.problems:
            unreadable = pd.DataFrame({"path": list(self.problems), "problem": list(self.problems.values())})
            # By name, as the images of a domain without labels are ordered.
            readable = pd.concat([readable, unreadable]).sort_values("path", ignore_index=True)
        return readable.assign(path=[image_path(self.where, name) for name in readable["path"]])[COLUMNS]


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
        problems={name: _problem(files, name) for name in files.names if name in skipped},
    )


def _problem(files: DomainFiles, name: str) -> str:
    """Why an image that was skipped cannot be read."""
    try:
        upright_rgb(files.read(name), 1)
    except UserError as error:
        return str(error)
    return "it could not be read when it was predicted"
