"""Losses that read class distributions, and the class statistics, against loops over the classes.

    python benchmarks/losses.py [--device cuda] [--quick]

Each is timed forward and backward on float32 features with A = 128, in one process and in alternating rounds. A ratio
is the median over the rounds of the loop's time divided by the package's. The loops are straightforward tensor code
that handles one class at a time (for the statistics a class of the batch, for the bank its own positives and the
negatives of each class).
`difference` is the largest difference between the two losses, gradients or statistics, relative to the largest value.
"""

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from results import leave
from torch import Tensor

from scale_ray.losses import bank_contrast, distribution_contrast, prototype_contrast, prototype_uniformity
from scale_ray.models import ClassStatistics
from scale_ray.training.setup import configure_torch, describe_device, find_device

CLASSES, QUERIES, A, TAU = (10, 65, 345), (64, 1024), 128, 0.1
BANK = 20  # features kept per class


@dataclass(frozen=True)
class Inputs:
    queries: Tensor  # (N, A), L2-normalised, requires a gradient
    labels: Tensor  # (N,)
    mean: Tensor  # (K, A)
    variance: Tensor  # (K, A)
    covariance: Tensor  # (K, A, A)
    bank: Tensor  # (K, M, A)
    filled: Tensor  # (K, M), all of it

    @classmethod
    def draw(cls, classes: int, queries: int, device: torch.device) -> "Inputs":
        numbers = torch.Generator().manual_seed(0)
        mean = F.normalize(torch.randn(classes, A, generator=numbers), dim=1)
        roots = 0.02 * torch.randn(classes, A, A, generator=numbers) / A**0.5
        covariance = roots @ roots.mT
        bank = F.normalize(mean[:, None] + 0.05 * torch.randn(classes, BANK, A, generator=numbers), dim=2)
        rows = F.normalize(torch.randn(queries, A, generator=numbers), dim=1)
        labels = torch.randint(classes, (queries,), generator=numbers)
        variance = covariance.diagonal(dim1=1, dim2=2).contiguous()
        filled = torch.ones(classes, BANK, dtype=torch.bool)
        tensors = (each.to(device) for each in (rows, labels, mean, variance, covariance, bank, filled))
        drawn = cls(*tensors)
        drawn.queries.requires_grad_()
        return drawn


# What is timed: inputs -> a scalar loss. The package's, then the loops.


def contrast_in_loop(of: Inputs, quadratic: Callable[[int], Tensor | float]) -> Tensor:
    similarities = [of.queries @ of.mean[k] / TAU for k in range(len(of.mean))]
    scores = torch.stack([each + quadratic(k) for k, each in enumerate(similarities)], dim=1)
    normaliser, total = scores.logsumexp(dim=1), torch.zeros((), device=of.queries.device)
    for k, similarity in enumerate(similarities):
        of_class = of.labels == k
        total = total + (normaliser[of_class] - similarity[of_class]).sum()
    return total / len(of.queries)


def diagonal_in_loop(of: Inputs) -> Tensor:
    return contrast_in_loop(of, lambda k: (of.queries.square() * of.variance[k]).sum(dim=1) / (2 * TAU**2))


def full_in_loop(of: Inputs) -> Tensor:
    return contrast_in_loop(of, lambda k: ((of.queries @ of.covariance[k]) * of.queries).sum(dim=1) / (2 * TAU**2))


def proto_in_loop(of: Inputs) -> Tensor:
    return contrast_in_loop(of, lambda k: 0.0)


def bank_in_loop(of: Inputs) -> Tensor:
    similarities = [of.queries @ kept.T / TAU for kept in of.bank]  # K of (N, M)
    means = torch.stack([each.exp().mean(dim=1) for each in similarities], dim=1)
    total = torch.zeros((), device=of.queries.device)
    for k, similarity in enumerate(similarities):
        of_class = of.labels == k
        negatives = (means[of_class].sum(dim=1) - means[of_class, k])[:, None]
        positives = similarity[of_class].exp()
        total = total - (positives / (positives + negatives)).log().mean(dim=1).sum()
    return total / len(of.queries)


def uniformity_in_loop(of: Inputs) -> Tensor:
    scores = torch.stack([of.queries.mean(dim=0) @ of.mean[k] / TAU for k in range(len(of.mean))])
    normaliser, total = scores.logsumexp(dim=0), torch.zeros((), device=of.queries.device)
    for score in scores:
        total = total + normaliser - score
    return total / len(scores)


LOSSES: dict[str, tuple[Callable[[Inputs], Tensor], Callable[[Inputs], Tensor]]] = {
    "DistCL, diagonal": (
        lambda of: distribution_contrast(of.queries, of.labels, of.mean, of.variance, TAU),
        diagonal_in_loop,
    ),
    "DistCL, full": (
        lambda of: distribution_contrast(of.queries, of.labels, of.mean, of.covariance, TAU),
        full_in_loop,
    ),
    "ProtoCL": (lambda of: prototype_contrast(of.queries, of.labels, of.mean, TAU), proto_in_loop),
    f"BankCL, {BANK} a class": (
        lambda of: bank_contrast(of.queries, of.labels, of.bank, of.filled, TAU),
        bank_in_loop,
    ),
    "reg": (lambda of: prototype_uniformity(of.queries.mean(dim=0), of.mean, TAU), uniformity_in_loop),
}


class StatisticsInLoop:
    """Count, mean and covariance of every class, in float64 as in the package."""

    def __init__(self, classes: int, full: bool, device: torch.device):
        self.full, self.count = full, [0] * classes
        self.mean = torch.zeros(classes, A, device=device, dtype=torch.float64)
        self.covariance = torch.zeros(classes, A, *([A] if full else []), device=device, dtype=torch.float64)

    def update(self, features: Tensor, labels: Tensor) -> None:
        features = features.double()
        for k in labels.unique().tolist():
            rows = features[labels == k]
            mean = rows.mean(dim=0)
            deviation, shift = rows - mean, self.mean[k] - mean
            spread = deviation.T @ deviation / len(rows) if self.full else deviation.square().mean(dim=0)
            between = torch.outer(shift, shift) if self.full else shift.square()
            weight = len(rows) / (len(rows) + self.count[k])
            self.covariance[k] = (1 - weight) * self.covariance[k] + weight * spread + weight * (1 - weight) * between
            self.mean[k] -= weight * shift
            self.count[k] += len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="few rounds of the smaller sizes; writes no results")
    options = parser.parse_args()
    device = find_device(options.device)
    configure_torch(options.threads)
    rounds = 3 if options.quick else options.rounds
    rows = []
    for classes in CLASSES[:2] if options.quick else CLASSES:
        for queries in QUERIES[:1] if options.quick else QUERIES:
            inputs = Inputs.draw(classes, queries, device)
            for name, (mine, loop) in LOSSES.items():
                rows.append(_loss_row(name, mine, loop, inputs, rounds))
            rows += [_statistics_row(full, inputs, rounds) for full in (False, True)]
    notes = [
        "BankCL's loop takes exp of similarities as they are, which overflows at a small tau; the package's does not",
        f"device {describe_device(device)}, {options.threads} CPU threads",
    ]
    if options.quick:
        print(*notes, sep="\n")
    else:
        name = "losses_cuda" if device.type == "cuda" else "losses"
        print(leave(name, "Losses and class statistics against loops over the classes", rows, notes))


def _loss_row(
    name: str, mine: Callable[[Inputs], Tensor], loop: Callable[[Inputs], Tensor], inputs: Inputs, rounds: int
) -> dict[str, Any]:
    def both_ways(loss: Callable[[Inputs], Tensor]) -> tuple[Tensor, Tensor]:
        value = loss(inputs)
        (gradient,) = torch.autograd.grad(value, inputs.queries)
        return value.detach(), gradient

    difference = max(
        _relative(found, expected) for found, expected in zip(both_ways(mine), both_ways(loop), strict=True)
    )
    return _row(name, inputs, lambda: both_ways(mine), lambda: both_ways(loop), difference, rounds)


def _statistics_row(full: bool, inputs: Inputs, rounds: int) -> dict[str, Any]:
    device, features = inputs.queries.device, inputs.queries.detach()
    loop = StatisticsInLoop(len(inputs.mean), full, device)
    mine = ClassStatistics(len(inputs.mean), A, "full" if full else "diagonal").to(device)
    for shifted in (features, features + 1):
        mine.update(shifted, inputs.labels)
        loop.update(shifted, inputs.labels)
    difference = max(_relative(mine.mean, loop.mean), _relative(mine.covariance, loop.covariance))
    name = f"statistics, {'full' if full else 'diagonal'}"
    return _row(
        name,
        inputs,
        lambda: mine.update(features, inputs.labels),
        lambda: loop.update(features, inputs.labels),
        difference,
        rounds,
    )


def _relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def _row(
    name: str, inputs: Inputs, mine: Callable[[], object], loop: Callable[[], object], difference: float, rounds: int
) -> dict[str, Any]:
    device = inputs.queries.device
    ways = {"package": mine, "loop": loop}
    times: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds):
        for way, call in ways.items() if number % 2 else reversed(ways.items()):
            times[way].append(_seconds(call, device))
    row: dict[str, Any] = {
        "what": name,
        "K": len(inputs.mean),
        "N": len(inputs.queries),
        "package, ms": round(1000 * median(times["package"]), 3),
        "loop, ms": round(1000 * median(times["loop"]), 3),
        "loop / package": round(
            median(its / ours for its, ours in zip(times["loop"], times["package"], strict=True)), 1
        ),
        "difference": f"{difference:.1e}",
    }
    print(row, flush=True)
    return row


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    call()
    _synchronise(device)
    start = time.perf_counter()
    call()
    _synchronise(device)
    return time.perf_counter() - start


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
