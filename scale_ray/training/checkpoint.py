"""Checkpoints: the state of an unfinished training, from which it resumes bit for bit.

A state is written as one line, a digest and the bytes of torch.save. The digest is of the training's key and of these
bytes, so that a changed byte is noticed, and so is the state of another training under this one's name. A state that
cannot be verified is dropped, also one of a version that wrote no digest: training anew costs time, and a wrong number
would stay.
"""

import hashlib
import io
import logging
import time
from typing import Any, Protocol

import torch

from scale_ray.errors import UserError
from scale_ray.store import Store, StoreError

logger = logging.getLogger(__name__)

State = dict[str, Any]

# Seconds after which a checkpoint is old, and how many times as long as saving it the training goes on at least.
_OLD_SECONDS, _SHARE = 60.0, 20

_HEADER = b"scale-ray state, sha256 %s\n"
_HEADER_LENGTH = len(_HEADER % (b"0" * 64))


class CheckpointError(UserError):
    """A state that cannot be used; the message names its location. The training can start anew."""


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

    A damaged state is dropped and the training starts anew. One that cannot be saved is only logged: the training goes
    on, and the next one is tried as usual.

    Args:
        store: where to save.
        key: key of the training.
        every: steps between checkpoints.
        by_clock: save also a minute after the last time, because a step may take seconds; later where saving takes
            seconds itself. Several workers of one training would not agree about it.
    """

    def __init__(self, store: Store, key: str, every: int, *, by_clock: bool = True):
        self._store, self._key, self._every, self._by_clock = store, key, every, by_clock
        self._next = time.monotonic() + _OLD_SECONDS

    def load(self, device: torch.device) -> State | None:
        content = self._store.read_checkpoint(self._key)
        if content is None:
            return None
        try:
            return from_bytes(content, self._key, self._store.checkpoint_location(self._key), device)
        except CheckpointError as error:
            logger.warning("%s: it is deleted, and the training starts anew", error)
            self._store.delete_checkpoint(self._key)
            return None

    def due(self, step: int) -> bool:
        return step % self._every == 0 or (self._by_clock and time.monotonic() > self._next)

    def save(self, state: State) -> None:
        began = time.monotonic()
        try:
            self._store.write_checkpoint(self._key, to_bytes(state, self._key))
        except StoreError as error:
            logger.warning("no checkpoint after step %s, the training goes on: %s", state["step"], error)
        now = time.monotonic()
        self._next = now + max(_OLD_SECONDS, _SHARE * (now - began))


def to_bytes(state: State, key: str) -> bytes:
    """Serialise tensors and plain values.

    Args:
        state: of a training.
        key: names the training: only it can read the state.
    """
    file = io.BytesIO()
    file.write(b" " * _HEADER_LENGTH)
    torch.save(state, file)
    with file.getbuffer() as content:
        content[:_HEADER_LENGTH] = _header(key, content[_HEADER_LENGTH:])
    return file.getvalue()


def from_bytes(content: bytes, key: str, location: str, device: torch.device) -> State:
    """Inverse of `to_bytes`. No code in the content is run.

    Args:
        content: the serialised state.
        key: names the training.
        location: where it was read, for the message of an error.
        device: where the tensors are put.

    Raises:
        CheckpointError: the content is damaged, the state of another training, or of a version without digests.
    """
    if content[:_HEADER_LENGTH] != _header(key, memoryview(content)[_HEADER_LENGTH:]):
        raise CheckpointError(f"{location}: not the state that was written for this training")
    try:
        state = torch.load(io.BytesIO(content[_HEADER_LENGTH:]), map_location="cpu", weights_only=True)
    except Exception as error:  # whoever can write to the store can make a digest too
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{location}: not a state ({reason})") from error
    moved: State = _on_device(state, device)
    return moved


def _header(key: str, content: memoryview) -> bytes:
    digest = hashlib.sha256(key.encode() + b"\n")
    digest.update(content)
    return _HEADER % digest.hexdigest().encode()


def _on_device(value: Any, device: torch.device) -> Any:
    """The same state with its tensors on the device; a dict or list is changed in place."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict | list):
        for place in value if isinstance(value, dict) else range(len(value)):
            value[place] = _on_device(value[place], device)
    if isinstance(value, tuple):
        return tuple(_on_device(each, device) for each in value)
    return value
