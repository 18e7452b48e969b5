"""Starting or joining Ray, and counting how many trainings it can hold at a time."""

import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray._private.services import find_bootstrap_address
from ray.autoscaler.sdk import request_resources
from ray.exceptions import RayError
from rich.console import Console

from scale_ray.config import ConfigError, Resources
from scale_ray.sweep.environment import starting_ray
from scale_ray.sweep.imports import job_config
from scale_ray.training.trial import Ran

logger = logging.getLogger(__name__)

# One machine needs no more than this for metrics and configs; images are memory-mapped files, not Ray objects.
_OBJECT_STORE_BYTES = 256 * 2**20

# Seconds for which a count of free slots is kept. Ray itself updates its counts about once a second.
_RECOUNT = 1.0

# Seconds after which the request to the autoscaler is repeated.
_REPEAT_REQUEST = 30.0

# Every Ray cluster has this resource on its head node. A thousand drivers fit on it, and none takes a CPU or GPU.
DRIVER_RESOURCES = {"node:__internal_head__": 0.001}


@dataclass(frozen=True)
class Footprint:
    """The Ray resources that each training of a run holds."""

    bundle: Mapping[str, float]  # of one worker
    workers: int
    through_train: bool  # trains under Ray Train; else inside the Tune trial

    @property
    def ran(self) -> Ran:
        """How a record describes it."""
        if not self.through_train:
            return Ran("ray tune")
        # One worker communicates with nobody.
        backend = None if self.workers == 1 else "nccl" if "GPU" in self.bundle else "gloo"
        return Ran("ray train", self.workers, backend)


def start_ray(resources: Resources, console: Console) -> bool:
    """Connect to Ray or start it here; return whether it is a cluster that was running before.

    Raises:
        ConfigError: no cluster answers at the address, or Ray cannot start here.
    """
    # Tune's own progress display and loggers would mix with ours and write files that nobody reads.
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    # The reason of a failure is in the trial's record, and the driver prints one line about it.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    # Trials stay in the driver's working folder, so that a relative path means the same everywhere.
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"
    # Let Tune prepare as many trials as the search hands out: the search counts the slots itself.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = "100000"
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    # Only a cluster that `ray start` announced: `auto` would also join the Ray that another study has started.
    address = resources.address or find_bootstrap_address(None) or "local"
    if address != "local":
        try:
            ray.init(address=address, job_config=job_config(), **quiet)
        except ConnectionError as error:
            if resources.address is not None:
                raise ConfigError(
                    f"no Ray cluster at address {address!r} ({str(error).splitlines()[0]}): "
                    "start one with `ray start --head`, or write --local"
                ) from error
            console.print(
                f"the Ray cluster that was started here, {address}, does not answer: starting Ray on this machine"
            )
        else:
            return True
    # Ray Train cleans up its placement groups through the dashboard. Without Ray Train, the dashboard only costs time.
    with starting_ray():
        ray.init(
            address="local",
            include_dashboard=resources.workers is not None,
            object_store_memory=_OBJECT_STORE_BYTES,
            job_config=job_config(),
            **quiet,
        )
    return False


def leave_ray() -> None:
    """Withdraw the request to the autoscaler and disconnect; a Ray that was started here ends."""
    if not ray.is_initialized():
        return
    try:
        request_resources(bundles=[])
    except (RayError, ConnectionError, RuntimeError) as error:  # a cluster that is gone holds no nodes
        logger.warning("Ray does not answer any more: %s", error)
    ray.shutdown()


def footprint(resources: Resources, device: str, console: Console, *, cluster: bool) -> Footprint:
    """The resources of one training on the Ray that this process is connected to.

    Raises:
        ConfigError: Ray on this machine can never hold it. On a cluster, an autoscaler may still add a node that can.
    """
    gpus = resources.gpus
    if cluster and gpus is None and device != "cpu":
        _await_a_node(resources.cpus, console)
    there = ray.cluster_resources()
    if gpus is None:
        gpus = float(there.get("GPU", 0) >= 1 and device != "cpu")
    bundle = {"CPU": float(resources.cpus)} | ({"GPU": gpus} if gpus else {})
    workers = resources.workers or 1
    for name, number in bundle.items():
        if not cluster and number * workers > there.get(name, 0):
            raise ConfigError(
                f"a trial asks for {number * workers:g} {name}, this machine's Ray has {there.get(name, 0):g}: "
                f"lower --{name.lower()}s-per-trial or --workers-per-trial, or join a larger cluster"
            )
    return Footprint(bundle, workers, through_train=cluster or resources.workers is not None)


def _await_a_node(cpus: int, console: Console) -> None:
    """Wait for a first worker node: a cluster scaled down to its head does not say whether its nodes have GPUs."""
    if fitting(_nodes(), {"CPU": cpus}):
        return
    console.print(f"waiting for the cluster's first node of {cpus} CPUs; --gpus-per-trial saves the wait")
    request_resources(bundles=[{"CPU": cpus}])
    while not fitting(_nodes(), {"CPU": cpus}):
        time.sleep(_RECOUNT)


def _nodes() -> list[Mapping[str, float]]:
    """The total resources of each living node."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


class Slots:
    """How many trainings Ray can hold at once, counted again as nodes and other jobs come and go.

    Args:
        footprint: the resources of one training.
    """

    def __init__(self, footprint: Footprint):
        self._footprint = footprint
        self._counted, self._free, self._all = 0.0, 0, 0
        self._requested, self._requested_at = 0, 0.0

    def free(self) -> int:
        """Trainings that could start now."""
        self._count()
        return self._free

    def all(self) -> int:
        """Trainings that the nodes could hold if nothing else ran on them."""
        self._count()
        return self._all

    def request(self, trainings: int) -> None:
        """Tell the autoscaler how many trainings could run at once; a cluster without one ignores it.

        The request is repeated from time to time, because Ray keeps only the latest request of all jobs.
        """
        if trainings != self._requested or time.monotonic() - self._requested_at > _REPEAT_REQUEST:
            request_resources(bundles=[dict(self._footprint.bundle)] * (trainings * self._footprint.workers))
            self._requested, self._requested_at = trainings, time.monotonic()

    def lack(self) -> str | None:
        """Why nothing can start, where no node of the cluster could hold a worker; None where one could."""
        nodes = _nodes()
        if fitting(nodes, self._footprint.bundle):
            return None
        wanted = _amounts(self._footprint.bundle)
        most = {name: max((node.get(name, 0) for node in nodes), default=0) for name in self._footprint.bundle}
        return f"no node can hold a worker of {wanted}; the most that one has is {_amounts(most)}"

    def _count(self) -> None:
        if time.monotonic() - self._counted < _RECOUNT:
            return
        self._counted = time.monotonic()
        self._all = fitting(_nodes(), self._footprint.bundle) // self._footprint.workers
        free = fitting([ray.available_resources()], self._footprint.bundle) // self._footprint.workers
        self._free = min(free, self._all)


def _amounts(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{number:g} {name}" for name, number in resources.items())


def fitting(nodes: Sequence[Mapping[str, float]], bundle: Mapping[str, float]) -> int:
    """How many bundles fit on these nodes. No bundle spans two nodes.

    Args:
        nodes: resources of each node.
        bundle: resources of one worker, all above zero.
    """
    # A small tolerance, because resources are sums of fractions: ten times 0.1 is not quite 1.
    return sum(min(int(node.get(name, 0) / number + 1e-6) for name, number in bundle.items()) for node in nodes)
