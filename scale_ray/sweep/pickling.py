"""Sends a user's own entries to Ray's workers by value: these need not be able to import the experiment's files."""

import copyreg
import importlib
from collections.abc import Callable
from types import ModuleType

import torch
from ray import cloudpickle

from scale_ray.training.entries import Reached, add_entries, own_entries


def pickle_entries() -> bytes:
    """The user's own entries with their code.

    Raises:
        ConfigError: the source of an entry cannot be read.
    """
    entries = own_entries()
    reached = Reached("own entries")
    reached.add(list(entries.values()))
    for module in reached.modules:
        if module.__name__ != "__main__":  # which is pickled by value in any case
            cloudpickle.register_pickle_by_value(module)
    # To cloudpickle, a function that uses torch and any attribute called `classes` or `ops` seems to use the modules
    # torch.classes or torch.ops, whose types pickle does not know.
    for special in (torch.classes, torch.ops):
        copyreg.pickle(type(special), _by_name)  # type: ignore[arg-type]
    pickled: bytes = cloudpickle.dumps(entries)
    return pickled


def unpickle_entries(pickled: bytes) -> None:
    """Add the entries to the registries of this process. They come from the driver, never from a store."""
    add_entries(cloudpickle.loads(pickled))


def _by_name(module: ModuleType) -> tuple[Callable[[str], ModuleType], tuple[str]]:
    return importlib.import_module, (module.__name__,)
