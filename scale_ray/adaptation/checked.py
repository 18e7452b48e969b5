"""Labels for checking: they measure predictions after everything is trained and chosen, and reach nothing before."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from scale_ray.config import ConfigError, is_list
from scale_ray.data.image_folder import image_names, list_images
from scale_ray.data.lists import read_list
from scale_ray.data.names import quoted
from scale_ray.errors import shown


class Accuracy(NamedTuple):
    """Of predictions on images whose labels are known.

    Attributes:
        right: how many are right.
        images: of how many.
        low, high: exact 95 % interval (Clopper and Pearson, Biometrika 26, 1934), percent.
    """

    right: int
    images: int
    low: float
    high: float

    @property
    def percent(self) -> float:
        return 100 * self.right / self.images

    def __str__(self) -> str:
        return (
            f"{self.right:,} of {self.images:,} right: {self.percent:.1f} % (95 % interval {self.low:.0f} to "
            f"{self.high:.0f})"
        )


def accuracy(predicted: Sequence[str], known: Sequence[str]) -> Accuracy:
    """How many of these classes are the known ones."""
    right = int(np.sum(np.asarray(predicted) == np.asarray(known)))
    interval = binomtest(right, len(known)).proportion_ci(0.95, method="exact")
    return Accuracy(right, len(known), 100 * interval.low, 100 * interval.high)


def read_check(given: Path, names: Sequence[str], where: str, classes: Sequence[str]) -> dict[str, str]:
    """Image -> its label, for those images of the target that have one.

    Args:
        given: a list file with the columns path and label, whose rows without a label are left out; or a folder of
            class folders with copies of, or links to, some of the images, found by their file names.
        names: of the target's images, as paths below `where`.
        where: the target's folder.
        classes: known to the source.

    Raises:
        ConfigError: nothing in it belongs to the target, a file name is not unique, or a label is no class.
        DataError: it cannot be read.
    """
    labels = _of_list(given, names, where) if is_list(str(given)) else _of_folders(given, names)
    if unknown := sorted(set(labels.values()) - set(classes)):
        raise ConfigError(
            f"--check {shown(given)}: {quoted(unknown)}: no class of the source, whose are {quoted(classes)}"
        )
    if not labels:
        raise ConfigError(f"--check {shown(given)}: no row with a label: fill in the column `label` of some")
    return labels


def _of_list(given: Path, names: Sequence[str], where: str) -> dict[str, str]:
    rows = read_list(str(given))
    rows = rows[rows["label"] != ""]
    known = {os.path.abspath(os.path.join(where, name)): name for name in names} | {name: name for name in names}
    folder = given.absolute().parent
    found = {}
    for path, label in zip(rows["path"], rows["label"], strict=True):
        name = known.get(path) or known.get(os.path.abspath(folder / path))
        if name is None:
            raise ConfigError(
                f"--check {shown(given)}: {shown(path)}: no image of the target {shown(where)}: correct it"
            )
        found[name] = label
    return found


def _of_folders(given: Path, names: Sequence[str]) -> dict[str, str]:
    by_file: dict[str, list[str]] = {}
    for name in names:
        by_file.setdefault(name.rpartition("/")[2], []).append(name)
    found = {}
    for image in image_names(list_images(given)):
        label, _, file = image.partition("/")
        of_name = by_file.get(file, [])
        if len(of_name) != 1:
            problem = "no image of the target has this name" if not of_name else f"{len(of_name)} images have this name"
            raise ConfigError(f"--check {shown(given / image)}: {problem}: give a list (.csv) with paths instead")
        found[of_name[0]] = label
    return found


def to_label(names: Sequence[str], where: str, count: int) -> pd.DataFrame:
    """Images to label by hand, drawn at random so that they stand for all: columns path and label, the latter empty."""
    drawn = sorted(np.random.default_rng(0).permutation(len(names))[:count].tolist())
    return pd.DataFrame({"path": [os.path.join(where, names[place]) for place in drawn], "label": ""})
