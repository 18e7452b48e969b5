"""Checkpoints: the state of an unfinished training, from which it resumes bit for bit."""

import io
import pickle
import zipfile
from typing import Any, Protocol

import torch

from scale_ray.errors import UserError
from scale_ray.store import Store

State = dict[str, Any]


class CheckpointError(UserError):
    """A checkpoint that cannot be used; the message names its location and the remedy."""


class Checkpoints(Protocol):
    """Storage of a training's state. All workers of a training call it in the same way; one of them writes."""

    def load(self, device: torch.device) -> State | None:
        """The last state, with tensors on `device`; None if there is none."""

    def due(self, step: int) -> bool:
        """Whether the state after `step` steps must be saved."""

    def save(self, state: State) -> None:
        """Save a state, which replaces the last one."""


class NoCheckpoints:
    """Saves nothing: an interrupted training starts again."""

    def load(self, device: torch.device) -> State | None:
        return None

    def due(self, step: int) -> bool:
        return False

    def save(self, state: State) -> None:
        raise AssertionError("never due")


class StoreCheckpoints:
    """Saves the state of a training in the store.

    Args:
        store: where to save.
        key: key of the training.
        every: steps between checkpoints.
    """

    def __init__(self, store: Store, key: str, every: int):
        self._store, self._key, self._every = store, key, every

    def load(self, device: torch.device) -> State | None:
        content = self._store.read_checkpoint(self._key)
        location = self._store.checkpoint_location(self._key)
        return None if content is None else from_bytes(content, location, device)

    def due(self, step: int) -> bool:
        return step % self._every == 0

    def save(self, state: State) -> None:
        self._store.write_checkpoint(self._key, to_bytes(state))


def to_bytes(state: State) -> bytes:
    """Serialise tensors and plain values in the format of torch.save."""
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def from_bytes(content: bytes, location: str, device: torch.device) -> State:
    """Inverse of `to_bytes`. No code in the content is run.

    Args:
        content: the serialised state.
        location: where it was read, for the message of an error.
        device: where the tensors are put.

    Raises:
        CheckpointError: the content is damaged or not a checkpoint.
    """
    try:
        if not zipfile.is_zipfile(io.BytesIO(content)):  # otherwise torch.load would try its older formats
            raise CheckpointError("not a complete file of torch.save")
        state: State = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except (CheckpointError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{location}: not a readable checkpoint ({reason}): delete it to train from the start"
        ) from None
    return state
