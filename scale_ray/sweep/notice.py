"""Notices to save the state, heard inside a trial: its machine is about to be taken away, or its study is to stop.

Ray calls the first a drain: `ray drain-node`, which `scale_ray.sweep.spot` calls where a cloud gives a notice (spot
instances). For the second see `scale_ray.sweep.stopping`.
"""

import logging
import threading
from collections.abc import Callable

import ray
import torch

from scale_ray.sweep.stopping import is_set
from scale_ray.training.checkpoint import Checkpoints, State

logger = logging.getLogger(__name__)

_POLL_SECONDS = 1.0


class Notice:
    """Whether the node of this process is being drained, or its study stopped; a thread asks Ray once a second.

    Args:
        stop_flag: of the study, see `Stopping`; None where nobody can order it to stop.
    """

    def __init__(self, stop_flag: str | None = None) -> None:
        self._node, self._stop_flag = ray.get_runtime_context().get_node_id(), stop_flag
        self._given = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="notice", daemon=True)

    def __enter__(self) -> "Notice":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    @property
    def given(self) -> bool:
        return self._given.is_set()

    def _listen(self) -> None:
        while not self._over.wait(_POLL_SECONDS):
            try:
                # What Ray Train's own watcher reads; Ray has no public name for it.
                draining = ray._private.state.state.get_draining_nodes()
                stopped = self._stop_flag is not None and is_set(self._stop_flag)
            except Exception as error:  # noqa: BLE001 - no answer is no notice, whatever the reason
                logger.info("no answer about draining nodes: %s", error)
                continue
            if stopped or self._node in draining:
                self._given.set()
                return


class NoticedCheckpoints:
    """Checkpoints that are also due, once, after a notice.

    Args:
        checkpoints: where the state goes.
        noticed: whether the notice was given. Where several workers train together, all must get the same answer.
        every: steps between two questions.
        on_saved: called with the step of every state that was saved.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        noticed: Callable[[], bool],
        *,
        every: int = 1,
        on_saved: Callable[[int], None] = lambda step: None,
    ):
        self._checkpoints, self._noticed, self._every, self._on_saved = checkpoints, noticed, every, on_saved
        self._saved = False

    def load(self, device: torch.device) -> State | None:
        return self._checkpoints.load(device)

    def due(self, step: int) -> bool:
        if not self._saved and step % self._every == 0 and self._noticed():
            self._saved = True
            return True
        return self._checkpoints.due(step)

    def save(self, state: State) -> None:
        self._checkpoints.save(state)
        self._on_saved(state["step"])
