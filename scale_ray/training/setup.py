"""Preparation of a process for training: device, threads, determinism, and the freshly initialised method."""

import ctypes
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from scale_ray.config import ConfigError, Execution, TrialConfig
from scale_ray.methods import METHODS, Method, MethodContext
from scale_ray.models.backbones import synchronise_batch_norm
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
    target_images: int = 0,
) -> Method:
    """Build the config's method with a freshly initialised student.

    The result is a function of the config (the seed included) and the names of the classes. Torch's global generator is
    seeded here.

    Args:
        config: the trial.
        num_classes: K.
        steps_per_epoch: steps in which as many source images are drawn as there are.
        workers: the processes that train this trial together.
        classes: names of the K classes, in the order of the labels.
        target_images: number of images of the target.
    """
    context = MethodContext(config, num_classes, steps_per_epoch, workers, tuple(classes), target_images)
    torch.manual_seed(step_seed(config.seed, "initialisation", 0))
    student = METHODS[config.method].build_student(context)
    if _synchronises(config):
        student = synchronise_batch_norm(student)
    return METHODS[config.method](student, context)


def move_to_device(method: Method, device: torch.device, execution: Execution) -> None:
    """Move a method to its device. `execution` sets the memory layout and whether the encoders are compiled."""
    method.to(device)
    if execution.channels_last:
        method.to(memory_format=torch.channels_last)
    if execution.compile:
        # Otherwise code compiled for an earlier training would count towards torch's limit of recompilations.
        torch.compiler.reset()
        # Compiled in place, so that names in the state dict do not change. Heads and losses are too small to gain.
        method.student.encoder.compile()
        if method.teacher is not None:
            method.teacher.module.encoder.compile()


def check_workers(config: TrialConfig, workers: Workers, device: torch.device) -> None:
    """Check that this process group can train the config.

    Raises:
        ConfigError: the number of workers is not that of the config, or BatchNorm is to be synchronised on a CPU.
    """
    if workers.size != config.parallel.workers:
        raise ConfigError(
            f"parallel.workers={config.parallel.workers}, but this process group has {workers.size}: start "
            f"{config.parallel.workers} processes, or set parallel.workers to {workers.size}"
        )
    if _synchronises(config) and device.type != "cuda":
        raise ConfigError(
            f"parallel.sync_batch_norm works on GPUs only, but this worker's device is {device.type!r}: set it to "
            "false, or set model.batch_norm to 'frozen'"
        )


def _synchronises(config: TrialConfig) -> bool:
    parallel = config.parallel
    return parallel.sync_batch_norm and parallel.workers > 1 and config.model.batch_norm != "frozen"


def find_device(name: str) -> torch.device:
    """The torch device of a name; `auto` is the GPU if there is one, else the CPU.

    Raises:
        ConfigError: the device does not exist on this machine.
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
    """Configure this process so that training gives the same bits in every run.

    What earlier trainings in this process have freed goes back to the system.

    Args:
        threads: CPU threads that torch may use.
    """
    torch.set_num_threads(threads)
    _return_freed_memory()
    _keep_freed_memory()
    # cuBLAS needs this for deterministic products and reads it when its first handle is created.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # No code here reads memory before writing it, and filling new memory cost 7 % of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep freed memory for reuse within the block, and return all of it to the system at the end.

    For a process that computes for a while and then only waits.
    """
    _keep_freed_memory()
    try:
        yield
    finally:
        if (libc := _glibc()) is not None:
            libc.mallopt(_M_MMAP_MAX, 65536)  # these two are glibc's defaults
            libc.mallopt(_M_TRIM_THRESHOLD, 128 * 1024)
        _return_freed_memory()


def _return_freed_memory() -> None:
    """Make glibc return what it keeps, of all threads: a trial's thread finds nothing of what another one has freed."""
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)


def _keep_freed_memory() -> None:
    """Make glibc keep the memory that CPU tensors free, instead of returning it to the system each time.

    By default glibc maps every large block anew and the kernel clears its pages, which took half the time of a
    convolution on 64 images. Results do not change. Other allocators have no such option
    (https://man7.org/linux/man-pages/man3/mallopt.3.html).
    """
    if (libc := _glibc()) is not None:
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def describe_device(device: torch.device) -> str:
    """The device as records name it: the model of the GPU, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
