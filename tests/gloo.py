"""Real processes that train together on this machine's CPU: torch.distributed with gloo, over a file."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import multiprocessing


def run_together(job: Callable[..., Any], folder: Path, *arguments: Any, size: int = 2) -> list[Any]:
    """What `job(*arguments)` returns on each of `size` workers, by rank. An error of one ends all, and is raised.

    Args:
        job: a function of a module, for a fresh process imports it; it returns tensors and plain values.
        folder: empty or not there yet, for this call alone.
    """
    folder.mkdir(exist_ok=True)
    multiprocessing.spawn(_worker, (size, job, folder, arguments), nprocs=size)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(size)]


def _worker(rank: int, size: int, job: Callable[..., Any], folder: Path, arguments: tuple[Any, ...]) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    warnings.simplefilter("error")  # as for every test
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
    try:
        torch.save(job(*arguments), folder / f"{rank}.pt")
        dist.barrier()  # no one leaves while another still talks
    finally:
        dist.destroy_process_group()
