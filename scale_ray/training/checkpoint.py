"""The state of an unfinished training: enough to go on as if nothing had happened, bit for bit."""

import io
import pickle
import zipfile
from typing import Any, Protocol

import torch

from scale_ray.errors import UserError
from scale_ray.store import Store

State = dict[str, Any]


class CheckpointError(UserError):
    """A checkpoint that cannot be used; the message names its place and the remedy."""


class Checkpoints(Protocol):
    """Where a training keeps its state. Every worker of a training asks alike; one of them writes."""

    def load(self, device: torch.device) -> State | None:
        """The last state, or None where there is none."""

    def due(self, step: int) -> bool:
        """Whether the state after so many steps is to be kept."""

    def save(self, state: State) -> None:
        """Keep this state in place of the last one."""


class NoCheckpoints:
    """For a training whose interruption costs nothing."""

    def load(self, device: torch.device) -> State | None:
        return None

    def due(self, step: int) -> bool:
        return False

    def save(self, state: State) -> None:
        raise AssertionError("never due")


class StoreCheckpoints:
    """The latest state of a training in the store, under the training's key."""

    def __init__(self, store: Store, key: str, every: int):
        self._store, self._key, self._every = store, key, every

    def load(self, device: torch.device) -> State | None:
        content = self._store.read_checkpoint(self._key)
        place = self._store.checkpoint_location(self._key)
        return None if content is None else from_bytes(content, place, device)

    def due(self, step: int) -> bool:
        return step % self._every == 0

    def save(self, state: State) -> None:
        self._store.write_checkpoint(self._key, to_bytes(state))


def to_bytes(state: State) -> bytes:
    """Tensors and plain values as a file of torch.save."""
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def from_bytes(content: bytes, place: str, device: torch.device) -> State:
    """What `to_bytes` was given. Never unpickles code.

    Raises:
        CheckpointError: the content is damaged or no checkpoint; the message names `place`.
    """
    try:
        if not zipfile.is_zipfile(io.BytesIO(content)):  # torch.load would try its older formats, and guess
            raise CheckpointError("not a whole file of torch.save")
        state: State = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except (CheckpointError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{place}: not a readable checkpoint ({reason}): delete it to train from the start"
        ) from None
    return state
