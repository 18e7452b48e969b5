"""Comparison of contenders in one process, by alternating rounds and medians."""

import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import torch

from steps.case import Contender

WARM_UP = 2  # steps of each before the first round: the first allocate, compile and choose kernels
MOST_ROUNDS = 30


class Times:
    """Seconds per step, round by round."""

    def __init__(self, rounds: dict[str, list[float]]):
        self._rounds = rounds

    def milliseconds(self, name: str) -> float:
        return 1000 * median(self._rounds[name])

    def ratio(self, name: str, other: str) -> float:
        """Median over the rounds of this contender's time divided by the other's in the same round."""
        return median(mine / its for mine, its in zip(self._rounds[name], self._rounds[other], strict=True))


def measure(contenders: Sequence[Contender], device: torch.device, rounds: int, seconds: float) -> Times:
    """Run at least `rounds` rounds, and more until the seconds are over; every second round in reverse order.

    A round times one step of each contender on a CPU. On a GPU it times ten steps between two synchronisations, because
    the steps of a training follow each other without synchronisation.
    """
    steps = 10 if device.type == "cuda" else 1
    for contender in contenders:
        for _ in range(WARM_UP):
            contender.step()
    times: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    began = time.perf_counter()
    for number in range(MOST_ROUNDS):
        if number >= rounds and time.perf_counter() - began > seconds:
            break
        for contender in contenders if number % 2 else reversed(contenders):
            synchronise(device)
            start = time.perf_counter()
            for _ in range(steps):
                contender.step()
            synchronise(device)
            times[contender.name].append((time.perf_counter() - start) / steps)
    return Times(times)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def host_syncs(contender: Contender) -> list[str]:
    """Places (`file.py:line`) where one step after a warm-up made the host wait for the GPU, as torch reports them."""
    for _ in range(WARM_UP):
        contender.step()
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            contender.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    places = [each for each in caught if "called a synchronizing" in str(each.message)]
    return [f"{Path(each.filename).name}:{each.lineno}" for each in places]
