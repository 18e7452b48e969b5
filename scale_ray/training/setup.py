"""A process made ready to train: device, threads, determinism, and the freshly initialised method."""

import ctypes
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch.nn import SyncBatchNorm

from scale_ray.config import ConfigError, Execution, TrialConfig
from scale_ray.methods import METHODS, Method, Setting
from scale_ray.training.seeding import step_seed
from scale_ray.workers import ALONE, Workers

# Parameters of glibc's mallopt.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def build_method(
    config: TrialConfig,
    num_classes: int,
    steps_per_epoch: int,
    workers: Workers = ALONE,
    classes: Sequence[str] = (),
) -> Method:
    """The method with a freshly initialised student, a function of config, classes' names and seed."""
    setting = Setting(config, num_classes, steps_per_epoch, workers, tuple(classes))
    torch.manual_seed(step_seed(config.seed, "initialisation", 0))
    student = METHODS[config.method].build_student(setting)
    if _synchronises(config):
        student = SyncBatchNorm.convert_sync_batchnorm(student)
    return METHODS[config.method](student, setting)


def place(method: Method, device: torch.device, execution: Execution) -> None:
    """Move a method to its device, in the memory layout asked for; compile its encoders where that is asked for."""
    method.to(device)
    if execution.channels_last:
        method.to(memory_format=torch.channels_last)
    if execution.compile:
        # What was compiled for an earlier training counts towards torch's limit of recompilations.
        torch.compiler.reset()
        # In place, and the encoders alone: names in a state dict stay, and heads and losses are small.
        method.student.encoder.compile()
        if method.teacher is not None:
            method.teacher.module.encoder.compile()


def check_workers(config: TrialConfig, workers: Workers, device: torch.device) -> None:
    """Refuse to train with other processes than the config says, or where they cannot do what it says.

    Raises:
        ConfigError: another number of workers, or BatchNorm to be synchronised on a CPU.
    """
    if workers.size != config.parallel.workers:
        raise ConfigError(
            f"parallel.workers={config.parallel.workers}, but {workers.size} in this process group: start as many "
            f"processes, or set parallel.workers to {workers.size}"
        )
    if _synchronises(config) and device.type != "cuda":
        raise ConfigError(
            f"parallel.sync_batch_norm works on GPUs only, and this worker's device is {device.type!r}: set it to "
            "false, or model.batch_norm to 'frozen'"
        )


def _synchronises(config: TrialConfig) -> bool:
    parallel = config.parallel
    return parallel.sync_batch_norm and parallel.workers > 1 and config.model.batch_norm != "frozen"


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
    _keep_freed_memory()
    # cuBLAS needs this for deterministic products; it reads it when its first handle is made.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # Nothing here reads memory before writing it; filling it first cost 7 % of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """For a process that computes now and then only waits: at the end all that is free goes back to the system."""
    _keep_freed_memory()
    try:
        yield
    finally:
        if (libc := _glibc()) is not None:
            libc.mallopt(_M_MMAP_MAX, 65536)  # glibc's own
            libc.mallopt(_M_TRIM_THRESHOLD, 128 * 1024)
            libc.malloc_trim(0)


def _keep_freed_memory() -> None:
    """Keep what tensors on the CPU free, for the next ones, instead of giving it back to the system each time.

    glibc maps every large block anew, and the kernel clears its pages: half the time of a convolution on 64 images.
    No result changes; other systems' allocators have no such switch (https://man7.org/linux/man-pages/man3/mallopt.3.html).
    """
    if (libc := _glibc()) is not None:
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def describe_device(device: torch.device) -> str:
    """As a record names it: the GPU's model, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
