"""Lets Ray's workers import what the driver imports.

By itself, Ray puts the driver's working folder and the folder of its script before everything else that workers search.
Another checkout of this package there, or a file called `statistics.py`, would be what trains.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ray.job_config import JobConfig


class _Fixed(list[str]):
    """The folders that workers search first, as they are: Ray extends the list by its own."""

    def extend(self, more: Iterable[str]) -> None:
        """Nothing, see the class."""


def job_config() -> JobConfig:
    """For `ray.init`: workers search the folders first that this process searches before the standard library.

    These are the folder of an experiment's script and those of PYTHONPATH. After them, workers have their own
    installation, on a node of a cluster too.
    """
    # Each worker puts one after the other at the front.
    return JobConfig(_py_driver_sys_path=_Fixed(reversed(_searched_first())))


@contextmanager
def without_working_folder() -> Iterator[None]:
    """The processes that are started in this context do not search their working folder.

    By itself, Python does so under `-c` and `-m`: in Ray's dashboard, and where a worker compiles encoders.
    """
    with environment_variable("PYTHONSAFEPATH", "1"):
        yield


@contextmanager
def environment_variable(name: str, value: str) -> Iterator[None]:
    """The processes that are started in this context have the variable."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _searched_first() -> list[str]:
    folders = [os.path.abspath(folder) for folder in sys.path]  # "" is the working folder
    standard_library = str(Path(os.__file__).parent)
    return folders[: folders.index(standard_library)] if standard_library in folders else folders
