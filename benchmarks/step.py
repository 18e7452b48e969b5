"""One training step against its forward and backward passes, a step written by hand, and a method of pytorch-adapt.

    python benchmarks/step.py [--quick | --profile] [--compile]
    python benchmarks/step.py --device cuda --backbone resnet50 --sides 224 --precision bf16,float32

All contenders run in one process in alternating rounds. A time is the median over the rounds, and so is a ratio.
Batches are 32 + 32 noise images of 65 classes, and weights are random. Every contender gets the same prepared batches.

- floor: the forward and backward passes that a step of this combination must make, of encoder, pooling and heads (the
  student's on source and strong target, the teacher's on weak target and source); no loss, statistics, optimiser or
  moving average. `separate` runs the student once per domain, `joint` once on both. The goal is 1.15 times the floor.
- scale: the step of the training loop on the built method on its device: losses, backward, optimiser, teacher, metrics.
- by hand: the same algorithm in Python loops (steps/by_hand.py), checked in float64 to give the same losses.
- pytorch-adapt: ATDOC of that package (steps/adapt.py), relative to its own two passes.
- combinations: the cost of each loss term. Variants: precision, memory layout, --compile.

On a GPU (torch and torchvision of at least 2.11 and 0.26, kornia, pydantic, platformdirs, safetensors; neither ray nor
optuna) it also counts the places where a step makes the host wait for it: the goal is none.
"""

import argparse
import gc
import os
from dataclasses import replace
from typing import Any, cast

import torch
from results import leave
from steps.adapt import INSTALL, atdoc, installed, two_passes
from steps.bare import floor
from steps.by_hand import by_hand
from steps.case import Case, Contender, Prepared, ours, views
from steps.clock import Times, host_syncs, measure
from steps.profile import profile
from torch import Tensor

from scale_ray.config import TrialConfig
from scale_ray.data.batches import Batches
from scale_ray.training.resolve import check_trial
from scale_ray.training.setup import configure_torch, describe_device, find_device

COMBINATIONS = ("ce", "ce+ssl", "ce+dist", "ce+ssl+dist+reg")
SCALE = "scale, separate"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet18,resnet50")
    parser.add_argument("--sides", default="64,128", help="pixels")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="float32,bf16", help="the first one everywhere, the second as a variant")
    parser.add_argument("--compile", action="store_true", help="also with compiled encoders, for the floor too")
    parser.add_argument("--rounds", type=int, default=3, help="minimal rounds of a case")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--quick", action="store_true", help="the smallest case only; writes no results")
    either.add_argument("--profile", action="store_true", help="profile one step instead of the comparison")
    options = parser.parse_args()
    device = find_device(options.device)
    configure_torch(options.threads)
    backbones, sides = options.backbone.split(","), [int(side) for side in options.sides.split(",")]
    precision, *others = options.precision.split(",")
    suffix = "_cuda" if device.type == "cuda" else ""
    smallest = [Case(backbone, min(sides), device, precision) for backbone in backbones]
    for case in smallest:
        check_trial(case.config())
    if options.profile:
        print(leave(f"step_profile{suffix}", *profile(smallest[-1])))
        return
    rows, notes = [], [f"device {describe_device(device)}, {options.threads} CPU threads"]
    seconds = 0 if options.quick else 15
    if options.quick:
        backbones, sides, smallest = backbones[:1], [min(sides)], smallest[:1]
    for case in [Case(backbone, side, device, precision) for backbone in backbones for side in sides]:
        if case.side == min(sides) and case.precision == "float32":
            notes.append(_same_losses(case))
        rows += _rows(case, _whole(case), options.rounds, seconds)
    for case in smallest[:1]:
        rows += _rows(case, _combinations(case), options.rounds, seconds, baseline="scale ce+ssl+dist+reg")
    for case in smallest:
        for variant in _variants(case, others, options.compile):
            rows += _rows(variant, _variant(variant), options.rounds, seconds)
    if device.type == "cuda":
        notes += _waits(smallest[0])
    if not installed():
        notes.append(f"pytorch-adapt is not installed: {INSTALL}")
    if options.quick:
        print(*rows, *notes, sep="\n")
    else:
        print(leave(f"step{suffix}", "One training step, batch 32 + 32", rows, notes))


def _whole(case: Case) -> list[Contender]:
    """All implementations of the full step of scale, and the method of the other package."""
    contenders = []
    for mode in ("separate", "joint"):
        contenders += [
            floor(case, f"floor, {mode}", batch_norm=mode),
            ours(case, f"scale, {mode}", f"floor, {mode}", case.config(batch_norm=mode), case.prepared),
        ]
    contenders.append(views(case))
    if case.precision == "float32":
        contenders.append(by_hand(case, "by hand, separate", "floor, separate"))
        if installed():
            contenders += [
                two_passes(case, "floor of pytorch-adapt"),
                atdoc(case, "pytorch-adapt ATDOC", "floor of pytorch-adapt"),
            ]
    return contenders


def _combinations(case: Case) -> list[Contender]:
    contenders = []
    for terms in COMBINATIONS:
        contenders += [
            floor(case, f"floor {terms}", terms=terms),
            ours(case, f"scale {terms}", f"floor {terms}", case.config(terms), case.prepared),
        ]
    return contenders


def _variants(case: Case, precisions: list[str], compiled: bool) -> list[Case]:
    found = [replace(case, channels_last=False), *(replace(case, precision=precision) for precision in precisions)]
    return [*found, *([replace(case, compile=True)] if compiled else [])]


def _variant(case: Case) -> list[Contender]:
    usual = floor(case, "floor, separate")
    return [usual, ours(case, SCALE, usual.name, case.config(), case.prepared)]


def _rows(
    case: Case, contenders: list[Contender], rounds: int, seconds: float, baseline: str = SCALE
) -> list[dict[str, Any]]:
    times = measure(contenders, case.device, rounds, seconds)
    rows = [_row(case, contender, times, baseline) for contender in contenders]
    contenders.clear()
    gc.collect()  # makes room for the next case's networks
    return rows


def _row(case: Case, contender: Contender, times: Times, baseline: str) -> dict[str, Any]:
    return {
        "backbone": case.backbone,
        "side": case.side,
        "precision": case.precision,
        "layout": "channels last" if case.channels_last else "channels first",
        "compiled": "yes" if case.compile else "no",
        "step": contender.name,
        "ms": round(times.milliseconds(contender.name), 1),
        "over its floor": round(times.ratio(contender.name, contender.floor), 3) if contender.floor else "",
        "of scale's time": round(times.ratio(contender.name, baseline), 3),
    }


def _same_losses(case: Case) -> str:
    """Compare three steps of the loop with three steps by hand: both must train the same.

    In float64, because within three steps a deep network with random weights amplifies the rounding errors of float32
    to per cents.
    """
    exact = replace(case, dtype=torch.float64)
    mine = ours(exact, "scale", "", exact.config(), exact.prepared)
    other = by_hand(exact, "by hand", "")
    differences = []
    for _ in range(3):
        found, expected = cast(dict[str, Tensor], mine.step()), cast(dict[str, float], other.step())
        differences += [abs(float(loss.detach()) / expected[name] - 1) for name, loss in found.items()]
    assert max(differences) < 1e-9, f"the step by hand trains something else: {differences}"
    return f"{case.backbone}: the losses of three steps by hand, in float64, are the loop's to {max(differences):.0e}"


def _waits(case: Case) -> list[str]:
    """Host synchronisations of a step with and without its input, and with the other kinds of contrast."""
    config = case.config()
    ways: dict[str, tuple[TrialConfig, Batches | Prepared]] = {
        "step": (config, case.prepared),
        "step with its input": (config, case.batches),
        "step, full covariance": (config.replace({"losses.covariance": "full"}), case.prepared),
        "step, contrast with a bank": (config.replace({"losses.contrast": "bank"}), case.prepared),
    }
    notes = []
    for name, (of_way, batches) in ways.items():
        places = host_syncs(ours(case, name, "", of_way, batches))
        notes.append(f"host syncs, {name}: {len(places)} {', '.join(sorted(set(places)))}".rstrip())
    return notes


if __name__ == "__main__":
    main()
