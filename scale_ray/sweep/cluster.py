"""Starting or joining Ray, and counting how many trainings it can hold at a time."""

import logging
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import ray
from ray._private.ray_constants import GLOBAL_GRPC_OPTIONS
from ray._private.services import find_bootstrap_address
from ray.exceptions import RayError
from ray.util.placement_group import placement_group, remove_placement_group
from rich.console import Console

from scale_ray.config import ConfigError, Resources
from scale_ray.records import Ran
from scale_ray.sweep.environment import starting_ray
from scale_ray.sweep.imports import job_config

# One machine needs no more than this for metrics and configs; images are memory-mapped files, not Ray objects.
_OBJECT_STORE_BYTES = 256 * 2**20

# Seconds for which a count of free slots is kept. Ray itself updates its counts about once a second.
_RECOUNT = 1.0

# Seconds in which the port must be open at an address, and then Ray must answer. Ray itself would ask for minutes.
_ANSWER_SECONDS = 5.0

# Trainings that may wait for a slot on a cluster where no other driver works on the store, and more where the nodes
# hold more. Their placement groups tell an autoscaler how many nodes the study could use, end with the job, and add up
# with those of other jobs.
_WAITING = 32


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
        ConfigError: no cluster answers at the address, or Ray cannot be started here.
    """
    # Tune's own progress display and loggers would mix with ours and write files that nobody reads.
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    # The reason of a failure is in the trial's record, and the driver prints one line about it.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    # After Ctrl-C, Tune would wait for the trials.
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    # Trials stay in the driver's working folder, so that a relative path means the same everywhere.
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"
    # Let Tune prepare as many trials as the search hands out: the search counts the slots itself.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = "100000"
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    named = resources.address or os.environ.get("RAY_ADDRESS") or None
    # Only a cluster that `ray start` announced: Ray's own `auto` would also join the Ray that another study started.
    announced = find_bootstrap_address(None) if named in (None, "auto") else None
    if named == "auto" and announced is None:
        raise ConfigError("this machine belongs to no Ray cluster: start one with `ray start --head`, or write --local")
    address = announced or named or "local"
    if address == "local":
        console.print("starting Ray on this machine")
        _start_here(quiet)
        return False
    if problem := _silence(address):
        if named is not None:
            raise ConfigError(
                f"no Ray cluster at address {address!r} ({problem}): start one with `ray start --head`, or write "
                "--local"
            )
        console.print(f"the Ray cluster that was started here, {address}, is gone: starting Ray on this machine")
        _start_here(quiet)
        return False
    try:
        ray.init(address=address, job_config=job_config(), **quiet)
    except (RayError, RuntimeError, OSError, ValueError) as error:
        raise ConfigError(
            f"the Ray cluster at {address!r} cannot be joined ({_first_line(error)}): check its version and its token, "
            "or write --local"
        ) from error
    return True


def _start_here(options: Mapping[str, Any]) -> None:
    os.environ.pop("RAY_ADDRESS", None)  # it would name another cluster to the processes of this one
    # The dashboard only costs time and memory.
    with starting_ray():
        ray.init(
            address="local",
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            job_config=job_config(),
            **options,
        )


def _silence(address: str) -> str:
    """Why no Ray can be there; empty where something speaks Ray's protocol."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        return "write HOST:PORT"
    host = host.strip("[]")
    try:
        with socket.create_connection((host, int(port)), timeout=_ANSWER_SECONDS):
            pass
    except (OSError, OverflowError, UnicodeError) as error:  # the last is of a name that no host can have
        return _first_line(error)
    if os.environ.get("RAY_USE_TLS", "0") not in ("0", ""):
        return ""  # only Ray has the certificates for more
    # As Ray itself asks: not through an HTTP proxy.
    with grpc.insecure_channel(f"{host}:{port}", options=GLOBAL_GRPC_OPTIONS) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=_ANSWER_SECONDS)
        except grpc.FutureTimeoutError:
            return f"something else listens there, or it gives no answer within {_ANSWER_SECONDS:.0f} s"
    return ""


def _first_line(error: Exception) -> str:
    text = (isinstance(error, OSError) and error.strerror) or str(error).strip()
    return text.partition("\n")[0] or type(error).__name__


def footprint(
    resources: Resources,
    device: str,
    console: Console,
    *,
    cluster: bool,
    check: Callable[[], None] = lambda: None,
) -> Footprint:
    """The resources of one training on the Ray that this process is connected to.

    Args:
        check: is called while this waits for a first node, which what it raises ends.

    Raises:
        ConfigError: Ray on this machine can never hold it. On a cluster, an autoscaler may still add a node that can.
    """
    if cluster and resources.gpus is None and device != "cpu":
        _await_a_node(resources.cpus, console, check)
    there = ray.cluster_resources()
    bundle = bundle_of(resources, device, there.get("GPU", 0))
    for name, number in bundle.items():
        if not cluster and number * resources.workers > there.get(name, 0):
            raise ConfigError(
                f"a trial asks for {number * resources.workers:g} {name}, this machine's Ray has "
                f"{there.get(name, 0):g}: lower --{name.lower()}s-per-trial or --workers-per-trial, or join a larger "
                "cluster"
            )
    return Footprint(bundle, resources.workers, resources.through_train)


def bundle_of(resources: Resources, device: str, gpus_there: float) -> dict[str, float]:
    """What one worker of a training holds.

    Args:
        gpus_there: of all nodes, or of the node that has most: where there is one, a worker gets it by default.
    """
    gpus = resources.gpus
    if gpus is None:
        gpus = float(gpus_there >= 1 and device != "cpu")
    return {"CPU": float(resources.cpus)} | ({"GPU": gpus} if gpus else {})


def _await_a_node(cpus: int, console: Console, check: Callable[[], None]) -> None:
    """Wait for a first worker node: a cluster scaled down to its head does not say whether its nodes have GPUs."""
    bundle = {"CPU": float(cpus)}
    if fitting(_nodes(), bundle):
        return
    console.print(f"waiting for the cluster's first node of {cpus} CPUs; --gpus-per-trial saves the wait")
    wanted = placement_group([bundle])  # tells an autoscaler
    try:
        while not fitting(_nodes(), bundle):
            check()
            time.sleep(_RECOUNT)
    finally:
        remove_placement_group(wanted)


def away_from_the_head() -> dict[str, str]:
    """Selects, by label, the nodes on which trainings can run: every node, but not a head without CPUs."""
    for node in ray.nodes():
        resources = node["Resources"]
        if node["Alive"] and "node:__internal_head__" in resources and not resources.get("CPU"):
            return {"ray.io/node-id": f"!{node['NodeID']}"}
    return {}


def _nodes() -> list[Mapping[str, float]]:
    """The total resources of each living node."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


class Slots:
    """How many trainings Ray can hold at once, counted again as nodes and other jobs come and go.

    Args:
        footprint: the resources of one training.
        cluster: whether nodes may come and go.
        alone: whether no other driver works on the store.
    """

    def __init__(self, footprint: Footprint, *, cluster: bool = False, alone: Callable[[], bool] = lambda: True):
        self._footprint, self._cluster, self._alone = footprint, cluster, alone
        self._counted, self._free, self._all = 0.0, 0, 0

    @property
    def can_grow(self) -> bool:
        """Whether trainings that wait for a slot may bring more nodes."""
        return self._cluster and not self._footprint.through_train

    def free(self) -> int:
        """Trainings that could start now."""
        self._count()
        return self._free

    def waiting(self) -> int:
        """How many more may be handed out and wait for a slot.

        Inside Tune trials, as many as all nodes hold: an actor that has ended a stage takes the next one without
        importing torch again. On a cluster more, because it may grow for them; but another driver cannot take what
        waits here. Under Ray Train one, because each that waits holds the memory of a driver.
        """
        if self._footprint.through_train:
            return 1
        self._count()
        return max(self._all, _WAITING) if self.can_grow and self._alone() else max(self._all, 1)

    def lack(self) -> str | None:
        """Why nothing can start, where the nodes could not hold a training even if nothing else ran; else None."""
        nodes, workers = _nodes(), self._footprint.workers
        fit = fitting(nodes, self._footprint.bundle)
        if fit >= workers:
            return None
        wanted = _amounts(self._footprint.bundle)
        if fit:
            return f"the nodes can hold {fit} workers of {wanted}, a trial has {workers}"
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
