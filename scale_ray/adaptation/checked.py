"""Labels for checking: they measure predictions after everything is trained and chosen, and reach nothing before."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from scale_ray.config import Catalogue, ConfigError, is_hub, is_list
from scale_ray.data.domain_files import DomainFiles, domain_files, image_path
from scale_ray.data.image_folder import image_names, list_images
from scale_ray.data.lists import read_list
from scale_ray.data.names import quoted
from scale_ray.errors import shown
from scale_ray.urls import is_url


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


def read_checks(given: Path, catalogue: Catalogue) -> dict[str, dict[str, str]]:
    """`read_check` for the targets of a catalogue, by the names of their images and the classes of its source.

    Raises:
        UserError: as `read_check`, or the images of a domain cannot be found.
    """
    files = {name: domain_files("image_folder", name, catalogue) for name in catalogue.names}
    targets = {name: files[name] for name, place in catalogue.domains if not place.labelled}
    classes = next(files[name].classes for name, place in catalogue.domains if place.labelled)
    return read_check(given, targets, classes, catalogue.class_name)


def read_check(
    given: Path,
    targets: Mapping[str, DomainFiles],
    classes: Sequence[str],
    class_name: Callable[[str], str] = str,
) -> dict[str, dict[str, str]]:
    """Target -> image -> its label, for those images of the targets that have one.

    Args:
        given: a list file with the columns path and label, whose rows without a label are left out; or a folder of
            class folders with copies of, or links to, some of the images, found by their file names.
        targets: the images of each target.
        classes: known to the source.
        class_name: the class of a label as it is written.

    Raises:
        ConfigError: a row belongs to no target or to several images, an image has two labels, a label is no class, or
            there is none.
        DataError: it cannot be read.
    """
    rows = _of_list(given, targets) if is_list(str(given)) else _of_folders(given, targets)
    found: dict[str, dict[str, str]] = {}
    for written, (target, image), label in rows:
        of_target = found.setdefault(target, {})
        if of_target.setdefault(image, class_name(label)) != class_name(label):
            raise ConfigError(
                f"--check {shown(given)}: {shown(written)}: labelled {quoted([of_target[image], class_name(label)])}: "
                "keep one"
            )
    known = {label for of_target in found.values() for label in of_target.values()}
    if unknown := sorted(known - set(classes)):
        raise ConfigError(
            f"--check {shown(given)}: {quoted(unknown)}: no class of the source, whose are {quoted(classes)}"
        )
    if not known:
        raise ConfigError(f"--check {shown(given)}: no row with a label: fill in the column `label` of some")
    return found


# As a message names it, the target and the image, and its label as it is written.
_Row = tuple[str, tuple[str, str], str]


def _of_list(given: Path, targets: Mapping[str, DomainFiles]) -> Iterator[_Row]:
    rows = read_list(str(given))
    rows = rows[rows["label"] != ""]
    whole = {_absolute(files.path(name)): (target, name) for target, files in targets.items() for name in files.names}
    short: dict[str, list[tuple[str, str]]] = {}
    for image in whole.values():
        short.setdefault(image[1], []).append(image)
    for path, label in zip(rows["path"], rows["label"], strict=True):
        found = [whole[path]] if path in whole else short.get(path, [])
        beside = whole.get(_absolute(image_path(str(given.absolute().parent), path)))
        if len(found) != 1 and beside is not None:
            found = [beside]
        if len(found) != 1:
            where = quoted(files.where for files in targets.values())
            problem = "no image of the target" if not found else "several images have this name"
            raise ConfigError(f"--check {shown(given)}: {shown(path)}: {problem}, in {where}: write its whole path")
        yield path, found[0], label


def _of_folders(given: Path, targets: Mapping[str, DomainFiles]) -> Iterator[_Row]:
    by_file: dict[str, list[tuple[str, str]]] = {}
    for target, files in targets.items():
        for name in files.names:
            by_file.setdefault(name.rpartition("/")[2], []).append((target, name))
    for image in image_names(list_images(given)):
        label, _, file = image.partition("/")
        found = by_file.get(file, [])
        if len(found) != 1:
            problem = "no image of the target has this name" if not found else f"{len(found)} images have this name"
            raise ConfigError(f"--check {shown(given / image)}: {problem}: give a list (.csv) with paths instead")
        yield image, found[0], label


def _absolute(path: str) -> str:
    """A path from the root on; URLs and rows of Hugging Face stay as they are."""
    return path if is_url(path) or is_hub(path) else os.path.abspath(path)


def to_label(names: Sequence[str], where: str, count: int) -> pd.DataFrame:
    """Images to label by hand: columns path and label, the latter empty.

    They are drawn at random and stand in the order of drawing, so that the first ones stand for all images too.
    """
    drawn = np.random.default_rng(0).permutation(len(names))[:count].tolist()
    return pd.DataFrame({"path": [image_path(where, names[place]) for place in drawn], "label": ""})
