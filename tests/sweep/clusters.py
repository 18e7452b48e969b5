"""Ray clusters of several nodes on this machine, and what is left on them."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster
from ray.experimental.internal_kv import _internal_kv_list
from ray.util import placement_group_table
from studies import LIMIT

_OBJECT_STORE_BYTES = 80 * 2**20  # Ray's least is 75 MB


@contextmanager
def cluster(*cpus: int, head_cpus: int = 0, **of_nodes: Any) -> Iterator[Cluster]:
    """A head that trains nothing, and one node for each number of logical CPUs.

    Args:
        of_nodes: further arguments of all these nodes: num_gpus, labels.
    """
    Path(os.environ["RAY_TMPDIR"], "ray").mkdir(exist_ok=True)  # where Ray notes the address of a head
    # Short, because Ray makes sockets below it; one's own, because /tmp/ray would name this cluster to everybody.
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder:
        made = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": head_cpus,
                "include_dashboard": True,
                "dashboard_port": 0,
                "temp_dir": folder,
                "object_store_memory": _OBJECT_STORE_BYTES,
            },
        )
        try:
            for number in cpus:
                made.add_node(num_cpus=number, object_store_memory=_OBJECT_STORE_BYTES, **of_nodes)
            made.wait_for_nodes()
            yield made
        finally:
            made.shutdown()


@contextmanager
def connected(address: str) -> Iterator[None]:
    ray.init(address=address, log_to_driver=False, logging_level="ERROR", namespace=f"look-{os.getpid()}")
    try:
        yield
    finally:
        ray.shutdown()


def groups() -> dict[str, str]:
    """Placement groups of the connected cluster, by id, with their state."""
    states = {key: group["state"] for key, group in placement_group_table().items()}
    return {key: state for key, state in states.items() if state != "REMOVED"}


def values_left(address: str) -> list[bytes]:
    """What studies have left in the key-value store of the head."""
    with connected(address):
        return list(_internal_kv_list("scale_ray:"))


def left_behind(address: str) -> dict[str, str]:
    """Placement groups that stay after their study, by id, with their state."""
    with connected(address):
        deadline = time.monotonic() + LIMIT
        while (alive := groups()) and time.monotonic() < deadline:
            time.sleep(0.5)
        return alive
