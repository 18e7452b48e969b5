"""Files of weights: reading, digesting, and loading into an encoder."""

import hashlib
import logging
import re
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from scale_ray.config import NAMED_WEIGHTS, ConfigError
from scale_ray.models.domain_norm import without_target_statistics

log = logging.getLogger(__name__)


class WeightsError(ConfigError):
    """Weights that cannot be loaded or do not fit the network; the message names the file and the remedy."""


def refuse_torchscript(path: Path) -> None:
    """Refuse a TorchScript archive (torch.jit.save), which contains code. OpenAI publishes CLIP in this form.

    Raises:
        WeightsError: the file is such an archive; the message says how to convert it into a state dict.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            scripted = any(name.endswith("/constants.pkl") for name in archive.namelist())
    except zipfile.BadZipFile:  # safetensors, an old torch.save, or no weights at all: `read_weights` decides
        return
    if scripted:
        raise WeightsError(
            f"{path}: a TorchScript archive, which contains code that is not run here. If you trust its origin, "
            f"convert it into a state dict: python -c \"import torch; torch.save(torch.jit.load('{path}', "
            f"map_location='cpu').state_dict(), '{path.stem}_state.pth')\""
        )


def weights_digest(weights: str) -> str | None:
    """sha256 (hex) of the weights file, which replaces its path in a trial's identity; None for a named weight set.

    Raises:
        WeightsError: the file cannot be read.
    """
    if weights in NAMED_WEIGHTS:
        return None
    try:
        state = Path(weights).stat()
        return _file_digest(weights, state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)
    except OSError as error:
        raise WeightsError(
            f"model.weights: {weights!r} cannot be read ({error.strerror}): check the file and its permissions"
        ) from error


@cache
def _file_digest(path: str, *state: int) -> str:
    """Cached by what changes with the content, as a study asks once per cell."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_weights(encoder: nn.Module, state: dict[str, Tensor], origin: str) -> None:
    """Load a state dict into an encoder and log which of its tensors were used.

    The state dict may contain heads that the encoder does not have. It must contain every tensor of the encoder, as a
    partly random network would give meaningless results.

    Args:
        encoder: changed in place.
        state: name -> tensor; the prefixes `module.` and `encoder.` are removed.
        origin: where the weights come from, for messages.

    Raises:
        WeightsError: tensors of the encoder are missing or have another shape, or a layer has more tensors than the
            encoder's.
    """
    state = {name.removeprefix("module.").removeprefix("encoder."): value for name, value in state.items()}
    wanted = encoder.state_dict()
    missing = [name for name in wanted if name not in state and not name.endswith("num_batches_tracked")]
    misfits = [name for name in wanted if name in state and state[name].shape != wanted[name].shape]
    top_level = {name for name, _ in encoder.named_children()}
    left_over = [name for name in state if name not in wanted]
    foreign = [name for name in left_over if name.split(".")[0] in top_level]
    if missing or misfits or foreign:
        raise WeightsError(
            f"{origin}: weights of another architecture: {len(missing)} tensors missing{_examples(missing)}, "
            f"{len(misfits)} of another shape{_examples(misfits)}, {len(foreign)} too many{_examples(foreign)}: "
            "choose the file or the backbone that fits"
        )
    encoder.load_state_dict({name: state.get(name, value) for name, value in wanted.items()})
    heads = sorted({name.rsplit(".", 1)[0] for name in left_over})
    log.info("%s: %d tensors loaded; in the file but unused: %s", origin, len(wanted), ", ".join(heads) or "nothing")


def _examples(names: list[str]) -> str:
    return f" (such as {names[0]})" if names else ""


def reason(error: Exception) -> str:
    """The type and first sentence of an error; torch's messages continue with advice to switch safe loading off."""
    first = re.split(r"[.] |\n", str(error))[0]
    return f"{type(error).__name__}: {first}"


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a file of torch.save or safetensors. No code in the file is run.

    Returns:
        name -> tensor, on the CPU. A state dict under the key `state_dict` of a checkpoint is found too. The target's
        statistics of a network with `batch_norm=domain` are left out: its BatchNorm begins with the source's.

    Raises:
        WeightsError: the file cannot be read, contains no state dict, or is a TorchScript archive.
    """
    refuse_torchscript(path)
    state: Any
    try:
        if path.suffix == ".safetensors":
            state = safetensors.torch.load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes raise any type of error: UnicodeDecodeError, KeyError, struct.error
        raise WeightsError(
            f"{path}: not a state dict that is safe to load ({reason(error)}): save model.state_dict() with torch.save"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise WeightsError(f"{path}: holds no state dict (name -> tensor): save model.state_dict()")
    return without_target_statistics(state)
