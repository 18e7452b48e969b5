"""Peak memory of a trial by classes, projection and batch; class statistics, whose memory does not grow with the data.

    python benchmarks/memory.py [--network lenet|resnet18|resnet50] [--device cuda] [--features 10000,100000,1000000]

Trials: a real training of a few steps (`training.trial.Training`) on invented images, one process per point. Starting
from a middle (65 classes, projections of 128, 32 images per domain), one quantity changes at a time, with diagonal and
with full covariances. The same training with `ce` alone (no teacher, no target, no contrast) and with `ce+ssl` (no
contrast) is measured for comparison. The steps and the final evaluation are measured separately.

Statistics: N projections of 65 classes go through `models.ClassStatistics` in batches of 256. For comparison,
the paper's way ("requires the entire source dataset") keeps all N x A projections and computes the mean and covariance
of each class at the end. Both get the same numbers, each in its own process.

Memory is the resident set size of the process on a CPU, and what torch has allocated on a GPU. Ray is not needed.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from own_process import measure, peak_mib, reset_peak, resident_mib
from results import leave
from torch import Tensor

from scale_ray.config import Execution, TrialConfig
from scale_ray.data.decoded import Domain
from scale_ray.models import ClassStatistics
from scale_ray.training.loop import Progress
from scale_ray.training.resolve import check_trial
from scale_ray.training.setup import configure_torch, find_device
from scale_ray.training.trial import Training

# Network -> side of its images in pixels.
NETWORKS = {"lenet": 32, "resnet18": 64, "resnet50": 224}
MIDDLE = {"classes": 65, "projection": 128, "batch": 32}
AROUND = {"classes": (10, 65, 345), "projection": (32, 128, 512), "batch": (8, 32, 128)}
STEPS, IMAGES = 6, 4 * 345
ALL = "ce+ssl+dist+reg"
STREAM_BATCH = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--network", choices=NETWORKS, default="lenet")
    parser.add_argument("--device", default="cpu", help="'cpu', 'cuda'")
    parser.add_argument("--features", default="10000,100000,1000000", help="sizes, separated by commas")
    parser.add_argument("--only", choices=["trials", "statistics"], help="one of the two parts; both by default")
    parser.add_argument("--measure", metavar="POINT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        point = json.loads(options.measure)
        print(json.dumps(_trial(**point) if "losses" in point else _statistics(**point)))
        return
    device = find_device(options.device).type
    suffix = "" if device == "cpu" else f"_{device}"
    if options.only != "statistics":
        rows = list(_rows_of_trials(options.network, device))
        print(leave(f"memory{suffix}", "Peak memory of a trial", rows, _notes_of_trials(options.network, device)))
    if options.only != "trials":
        rows = list(_rows_of_statistics(sorted(map(int, options.features.split(","))), device))
        title = "Class statistics: streamed, and of all features at once"
        print(leave(f"memory_statistics{suffix}", title, rows, _notes_of_statistics(device)))


def _ask(**point: Any) -> dict[str, Any]:
    return measure(__file__, "--measure", json.dumps(point))


# Trials


def _rows_of_trials(network: str, device: str) -> Iterator[dict[str, Any]]:
    alike = {"network": network, "device": device}
    without: dict[str, dict[str, Any]] = {}  # by shape; independent of the kind of covariances
    for shape, covariance in _points():
        key = json.dumps(shape)
        if key not in without:
            without[key] = {
                losses: _ask(**alike, **shape, losses=losses, covariance="diagonal") for losses in ("ce", "ce+ssl")
            }
        found = _ask(**alike, **shape, losses=ALL, covariance=covariance)
        of_ce, of_ssl = without[key]["ce"], without[key]["ce+ssl"]
        row = {**shape, "covariance": covariance, "statistics MiB": found["statistics"], "ce MiB": of_ce["steps"]}
        row |= {"ce+ssl MiB": of_ssl["steps"], f"{ALL} MiB": found["steps"]}
        row |= {"more than ce": round(found["steps"] - of_ce["steps"], 1)}
        row |= {"more than ce+ssl": round(found["steps"] - of_ssl["steps"], 1), "evaluation MiB": found["evaluation"]}
        print(row, flush=True)
        yield row


def _points() -> Iterator[tuple[dict[str, int], str]]:
    """The middle once, and the shapes around it."""
    for covariance in ("diagonal", "full"):
        shapes = [MIDDLE | {name: value} for name, values in AROUND.items() for value in values]
        for number, shape in enumerate(shapes):
            if shape not in shapes[:number]:
                yield shape, covariance


def _notes_of_trials(network: str, device: str) -> list[str]:
    return [
        f"{network} at {NETWORKS[network]} px, {STEPS} steps, float32; batch: images of each domain; on {device}",
        f"{_meaning(device)}, at most during the steps; evaluation: at most during that of the last one, of {IMAGES} "
        "images a domain",
        "ce, ce+ssl: the same training with these terms alone; statistics: counts, means, covariances as they are kept",
    ]


def _trial(
    *, network: str, device: str, classes: int, projection: int, batch: int, losses: str, covariance: str
) -> dict[str, float]:
    """Train a few steps; return the MiB beyond what the process had before."""
    configure_torch(1)
    changes = {
        "method": "source_only" if losses == "ce" else "scale",
        "losses.terms": losses,
        "losses.covariance": covariance,
        "losses.threshold": 0.0,  # an untrained network is not confident, and every target image must count
        "data.image_size": NETWORKS[network],
        "data.resize": NETWORKS[network],
        "model.backbone": network,
        "model.weights": "none",
        "model.projection_dim": projection,
        "optim.batch_size": batch,
        "optim.steps": STEPS,
        "optim.warmup_steps": 0,
        "evaluate_every": STEPS,
    }
    config = check_trial(TrialConfig().replace(changes))
    source, target = (_domain(name, classes, NETWORKS[network]) for name in (config.data.source, config.data.target))
    meter, seen = _Meter(device), dict[str, float]()

    def on_step(step: int) -> None:
        if step == STEPS - 1:  # the last step is followed by the evaluation
            seen["steps"] = meter.more()
            meter.reset()

    training = Training(config, source, {target.name: target}, torch.device(device), Execution())
    training.run(progress=Progress(on_step=on_step))
    kept = getattr(training.method, "statistics", None)
    buffers = [] if kept is None else list(kept.buffers())
    size = sum(buffer.numel() * buffer.element_size() for buffer in buffers) / 2**20
    return {"statistics": round(size, 1), "steps": seen["steps"], "evaluation": meter.more()}


def _domain(name: str, classes: int, size: int) -> Domain:
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, 3, size, size), dtype=np.uint8)
    labels = np.arange(IMAGES, dtype=np.int64) % classes
    return Domain(name, images, labels, tuple(f"{label:03}" for label in range(classes)), (), "")


class _Meter:
    """Peak memory of this process beyond its initial memory: allocated on the GPU, or else resident."""

    def __init__(self, device: str):
        self._cuda = device == "cuda"
        self.reset()
        self._before = self._now()

    def reset(self) -> None:
        """Reset the peak."""
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            reset_peak()

    def more(self) -> float:
        """MiB, rounded to a tenth."""
        peak = torch.cuda.max_memory_allocated() / 2**20 if self._cuda else peak_mib()
        return round(peak - self._before, 1)

    def _now(self) -> float:
        return torch.cuda.memory_allocated() / 2**20 if self._cuda else resident_mib()


def _meaning(device: str) -> str:
    if device == "cuda":
        return "MiB: allocated by torch on the GPU"
    return "MiB: resident (RSS) beyond what the process had with its libraries and images loaded"


# Statistics


def _rows_of_statistics(sizes: list[int], device: str) -> Iterator[dict[str, Any]]:
    for covariance in ("diagonal", "full"):
        for size in sizes:
            with tempfile.TemporaryDirectory() as folder:
                ways = {
                    way: _ask(way=way, device=device, covariance=covariance, size=size, out=f"{folder}/{way}.pt")
                    for way in ("streamed", "whole")
                }
                difference = _difference(*(torch.load(f"{folder}/{way}.pt", weights_only=True) for way in ways))
            streamed, whole = ways["streamed"], ways["whole"]
            row: dict[str, Any] = {"covariance": covariance, "features": size}
            row |= {f"{way} MiB": found["memory"] for way, found in ways.items()}
            row |= {"memory, whole / streamed": _ratio(whole["memory"], streamed["memory"])}
            row |= {f"{way} s": found["seconds"] for way, found in ways.items()}
            row |= {"time, streamed / whole": _ratio(streamed["seconds"], whole["seconds"])}
            row |= {"max relative difference": f"{difference:.0e}"}
            print(row, flush=True)
            yield row


def _ratio(above: float, below: float) -> float | str:
    return round(above / below, 2) if below > 0 else ""


def _difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Largest difference of any mean or covariance, relative to the largest number."""
    return max(float((one[name] - other[name]).abs().max() / other[name].abs().max()) for name in other)


def _notes_of_statistics(device: str) -> list[str]:
    return [
        f"{MIDDLE['classes']} classes, projections of {MIDDLE['projection']}, on {device}; streamed: in batches of "
        f"{STREAM_BATCH}, float64 sums; whole: all float32 projections kept, float64 statistics class by class",
        f"{_meaning(device)}; seconds: drawing the projections is not counted",
        "max relative difference: of any mean or covariance between the two ways, relative to the largest of them",
    ]


def _statistics(*, way: str, device: str, covariance: str, size: int, out: str) -> dict[str, float]:
    """Compute statistics of `size` invented projections in one way, and write them to `out`."""
    torch.set_num_threads(1)
    full = covariance == "full"
    compute = _streamed if way == "streamed" else _whole
    compute(STREAM_BATCH, device, full)  # loads what torch loads on its first calls
    meter = _Meter(device)
    found, seconds = compute(size, device, full)
    memory = meter.more()
    torch.save({name: value.cpu() for name, value in found.items()}, Path(out))
    return {"memory": memory, "seconds": round(seconds, 3)}


def _streamed(size: int, device: str, full: bool) -> tuple[dict[str, Tensor], float]:
    clock = _Stopwatch(device)
    statistics = ClassStatistics(MIDDLE["classes"], MIDDLE["projection"], "full" if full else "diagonal").to(device)
    for features, labels in _projections(size, device):
        with clock:
            statistics.update(features, labels)
    return {"mean": statistics.mean, "covariance": statistics.covariance}, clock.seconds


def _whole(size: int, device: str, full: bool) -> tuple[dict[str, Tensor], float]:
    clock = _Stopwatch(device)
    kept = torch.empty(size, MIDDLE["projection"], device=device)
    classes = torch.empty(size, dtype=torch.long, device=device)
    for number, (features, labels) in enumerate(_projections(size, device)):
        with clock:
            place = slice(number * STREAM_BATCH, number * STREAM_BATCH + len(labels))
            kept[place], classes[place] = features, labels
    means, covariances = [], []
    with clock:
        for label in range(MIDDLE["classes"]):
            of_class = kept[classes == label].double()
            means.append(of_class.mean(dim=0))
            centred = of_class - means[-1]
            covariances.append(centred.T @ centred / len(centred) if full else centred.square().mean(dim=0))
    return {"mean": torch.stack(means), "covariance": torch.stack(covariances)}, clock.seconds


def _projections(size: int, device: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of normalised features around one centre per class, and their labels; always the same ones."""
    numbers = torch.Generator(device).manual_seed(0)
    centres = torch.randn(MIDDLE["classes"], MIDDLE["projection"], generator=numbers, device=device)
    for start in range(0, size, STREAM_BATCH):
        # The first batches contain every class, so that every class has a mean.
        labels = (torch.arange(start, min(start + STREAM_BATCH, size), device=device) * 7919) % MIDDLE["classes"]
        noise = torch.randn(len(labels), MIDDLE["projection"], generator=numbers, device=device)
        yield torch.nn.functional.normalize(centres[labels] + noise, dim=1), labels


class _Stopwatch:
    """Seconds spent in its `with` blocks, including the GPU's work."""

    def __init__(self, device: str):
        self.seconds, self._cuda, self._began = 0.0, device == "cuda", 0.0

    def __enter__(self) -> None:
        self._began = self._now()

    def __exit__(self, *_: object) -> None:
        self.seconds += self._now() - self._began

    def _now(self) -> float:
        if self._cuda:
            torch.cuda.synchronize()
        return time.perf_counter()


if __name__ == "__main__":
    main()
