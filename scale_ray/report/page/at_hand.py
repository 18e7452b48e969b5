"""Target images that this machine can reach, in the version that a training has seen."""

import itertools
import shlex
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scale_ray.config import Root
from scale_ray.errors import UserError
from scale_ray.records import Record
from scale_ray.report.page.gallery import Images, Reach
from scale_ray.store import StoredPredictions

if TYPE_CHECKING:
    from scale_ray.data.decoded import Domain


def images_in(root: Root | None) -> Reach:
    """What opens the target images of records: drawn digits, or those of `root`. Each domain once."""

    @cache
    def opened(benchmark: str, domain: str, **decoded: Any) -> "Domain | None":
        from scale_ray.data.decoded import open_domains

        try:
            return open_domains(benchmark, [domain], root=root, **decoded)[0]
        except UserError:  # moved away or changed: the page does without
            return None

    def reach(record: Record, predictions: StoredPredictions) -> Images | None:
        data = record.config.data
        if root is None and data.benchmark != "digits":
            return None
        domain = opened(data.benchmark, data.target, resize=data.resize, corrupt=data.corrupt, fit=data.fit)
        if domain is None or domain.labels is None or domain.digest != predictions.target:
            return None
        return (domain.images, np.asarray(domain.labels)) if len(domain.labels) == len(predictions.labels) else None

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
