"""What a training takes: some steps of it are measured on Ray, with the resources that it will have."""

from collections.abc import Mapping
from typing import NamedTuple

import ray
from ray.exceptions import RayTaskError
from rich.console import Console

from scale_ray.config import Execution, Resources
from scale_ray.errors import UserError
from scale_ray.stage import Stage
from scale_ray.store import Store
from scale_ray.sweep.cluster import fitting, footprint, start_ray
from scale_ray.sweep.pickling import pickle_entries, unpickle_entries
from scale_ray.sweep.plan import prepare_data, prepare_features
from scale_ray.sweep.push import share_data
from scale_ray.training.features import open_inputs
from scale_ray.training.setup import configure_torch, find_device
from scale_ray.training.trial import Training

_SECONDS = 2.0  # of each training
_FEWEST_STEPS = 3


class Measured(NamedTuple):
    """What trainings take.

    Attributes:
        seconds: of a step after the warm-up, when all terms act, by the name of the training.
        slots: trainings that Ray can hold at a time.
    """

    seconds: dict[str, float]
    slots: int


def measure(
    stages: Mapping[str, Stage], store: Store | None, execution: Execution, resources: Resources, console: Console
) -> Measured:
    """Train each stage for some steps, one after the other, and leave nothing of it but features.

    Args:
        stages: by the name of the training, each with one worker.
        store: keeps features; None keeps them on the machine that computes them.
        execution, resources: of the trainings.
        console: where it is printed which cluster is joined.

    Raises:
        UserError: the data or the weights cannot be used, or no node can ever hold a training.
    """
    reads = list(stages.values())
    try:
        joined = start_ray(resources, console)
        if joined and store is not None:
            share_data(reads, execution.root, store, None)
        else:
            prepare_data(reads, execution.root)
        needs = footprint(resources, execution.device, console, cluster=joined)
        if not joined and "GPU" not in needs.bundle:  # as before a study
            prepare_features(reads, execution, store)
        execution = execution.model_copy(update={"threads": resources.cpus})
        task = ray.remote(num_cpus=needs.bundle["CPU"], num_gpus=needs.bundle.get("GPU", 0))(_seconds_a_step)
        location, entries = None if store is None else store.location, pickle_entries()
        seconds = {name: ray.get(task.remote(stage, execution, location, entries)) for name, stage in stages.items()}
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        return Measured(seconds, max(1, fitting(nodes, needs.bundle) // needs.workers))
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise
    finally:
        ray.shutdown()


def _seconds_a_step(stage: Stage, execution: Execution, store: str | None, entries: bytes) -> float:
    unpickle_entries(entries)
    configure_torch(execution.threads)
    source, targets = open_inputs(stage, execution, None if store is None else Store(store))
    training = Training(stage.config, source, targets, find_device(execution.device), execution)
    return training.seconds_a_step(_SECONDS, _FEWEST_STEPS)
