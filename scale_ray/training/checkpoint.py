"""The state of an unfinished trial: enough to go on as if nothing had happened, bit for bit."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from scale_ray.files import replacing


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the file and the remedy."""


def save(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values atomically."""
    with replacing(path) as file:
        torch.save(state, file)


def load(path: Path, device: torch.device) -> dict[str, Any] | None:
    """The state saved at `path`, or None where there is none. Never unpickles code.

    Raises:
        CheckpointError: the file is damaged or no checkpoint.
    """
    if not path.exists():
        return None
    try:
        if not zipfile.is_zipfile(path):  # torch.load would take it for one of its older formats, and guess
            raise CheckpointError("not a whole file of torch.save")
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except (CheckpointError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{path}: not a readable checkpoint ({reason}): delete it to train from the start"
        ) from None
    return state
