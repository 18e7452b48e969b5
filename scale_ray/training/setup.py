"""A process made ready to train: device, threads, determinism, and the freshly initialised method."""

import os

import torch

from scale_ray.config import ConfigError, TrialConfig
from scale_ray.methods import METHODS, Method, Setting
from scale_ray.models import BACKBONES, Network, build_encoder
from scale_ray.training.seeding import step_seed


def build_method(config: TrialConfig, num_classes: int, steps_per_epoch: int) -> Method:
    """The method with a freshly initialised student, a function of config and seed."""
    torch.manual_seed(step_seed(config.seed, "initialisation", 0))
    encoder = build_encoder(config.model.backbone, config.model.weights)
    student = Network(encoder, BACKBONES[config.model.backbone].feature_dim, num_classes, config.model)
    return METHODS[config.method](student, Setting(config, num_classes, steps_per_epoch))


def find_device(name: str) -> torch.device:
    """The device of that name; `auto` is the GPU where there is one.

    Raises:
        ConfigError: the device is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device {name!r} cannot be used ({str(error).splitlines()[0]}): write 'cpu' or 'auto'"
        ) from None
    return device


def configure_torch(threads: int) -> None:
    """Set the process up for training that is bit-equal from run to run."""
    torch.set_num_threads(threads)
    # cuBLAS needs this for deterministic products; it reads it when its first handle is made.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # Nothing here reads memory before writing it; filling it first cost 7 % of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False


def describe_device(device: torch.device) -> str:
    """As a record names it: the GPU's model, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
