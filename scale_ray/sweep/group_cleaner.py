"""Removes the placement groups of trials whose Ray Train controller has died.

A controller's group holds CPUs and GPUs until the job ends, unless somebody removes it. Ray Train starts a process for
each controller that does this, on the head. One for a whole study is enough.
"""

import logging
import threading

import ray
from ray.actor import ActorHandle
from ray.util.placement_group import PlacementGroup, remove_placement_group

logger = logging.getLogger(__name__)

_POLL_SECONDS = 1.0

# Every Ray cluster has this resource on its head node.
_ON_THE_HEAD = {"node:__internal_head__": 0.001}


class GroupCleaner:
    """Watches controllers by their actor id."""

    def __init__(self) -> None:
        self._groups: dict[str, PlacementGroup] = {}
        self._lock = threading.Lock()
        threading.Thread(target=self._watch, name="placement groups", daemon=True).start()

    def watch(self, controller: str, group: PlacementGroup) -> None:
        """Remove the group once the controller is dead; it replaces the controller's last group."""
        with self._lock:
            self._groups[controller] = group

    def forget(self, controller: str) -> None:
        """The controller removes its group itself."""
        with self._lock:
            self._groups.pop(controller, None)

    def _watch(self) -> None:
        wait = threading.Event()
        while not wait.wait(_POLL_SECONDS):
            with self._lock:
                watched = dict(self._groups)
            for controller, group in watched.items():
                if _is_dead(controller):
                    remove_placement_group(group)
                    self.forget(controller)


def start_cleaner() -> ActorHandle:
    """A cleaner on the head. It ends with this process's job, whose placement groups Ray removes by itself."""
    return ray.remote(GroupCleaner).options(num_cpus=0, resources=_ON_THE_HEAD).remote()


def _is_dead(actor: str) -> bool:
    try:
        state = ray._private.state.actors(actor)
    except Exception as error:  # noqa: BLE001 - without an answer the controller may be alive
        logger.warning("no answer about the actor %s: %s", actor, error)
        return False
    return bool(state) and state["State"] == "DEAD"
