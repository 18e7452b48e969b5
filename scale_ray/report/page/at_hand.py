"""Target images that this machine can reach, in the version that a training has seen."""

import itertools
import shlex
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from scale_ray.errors import UserError
from scale_ray.records import Record
from scale_ray.report.page.gallery import Images, Reach
from scale_ray.store import StoredPredictions


def images_in(root: Path | None) -> Reach:
    """What opens the target images of records: drawn digits, or those in the folder `root`."""

    def reach(record: Record, predictions: StoredPredictions) -> Images | None:
        from scale_ray.data.decoded import open_domains

        data = record.config.data
        if root is None and data.benchmark != "digits":
            return None
        try:
            (domain,) = open_domains(
                data.benchmark, [data.target], root=root, resize=data.resize, corrupt=data.corrupt, fit=data.fit
            )
        except UserError:  # moved away or changed: the page does without
            return None
        labels = getattr(domain, "labels", None)
        if labels is None or domain.digest != predictions.target or len(labels) != len(predictions.labels):
            return None
        return domain.images, np.asarray(labels)

    return reach


def root_in(commands: Iterable[str | None]) -> Path | None:
    """The --root that the commands of a store's studies name, if it is one folder that exists here."""
    found = set()
    for command in commands:
        words = shlex.split(command or "")
        found |= {after for word, after in itertools.pairwise(words) if word == "--root"}
        found |= {word.removeprefix("--root=") for word in words if word.startswith("--root=")}
    roots = [Path(root).expanduser() for root in found]
    return roots[0] if len(roots) == 1 and roots[0].is_dir() else None
