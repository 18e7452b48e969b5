"""How much several small cells could gain by training together: heads on frozen features, stacked with torch.func.vmap.

    python benchmarks/stacked.py [--heads 1,2,4,8,16] [--precisions float32,bf16] [--rounds 5]

A step is the core of `ce+ssl` on random features, as many as a frozen MobileNetV2 gives of PACS (1,280, with 7
classes): the student's passes over a source and a target batch, the teacher's over the target batch, both losses, SGD
with momentum and the moving average. It is written twice, as plain functions: for one head after the other, and for all
heads at once. Both start from the same weights; the table has by how much those at the end differ.

What the package adds to a step is left out here (views, statistics, meters), so the ratio is the most that stacking
could win. Ways take turns in each round; the median of the rounds counts. One thread, as a trial has.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from results import leave
from torch import Tensor
from torch.func import grad_and_value, vmap

FEATURES, WIDTH, HIDDEN, CLASSES, BATCH = 1280, 256, 1024, 7, 32
RATE, MOMENTUM, DECAY, THRESHOLD = 0.03, 0.9, 0.99, 0.5
STEPS = 40  # of a measurement

Weights = dict[str, Tensor]
Step = Callable[[Weights, Weights, Weights, Tensor, Tensor, Tensor, Tensor], Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--heads", default="1,2,4,8,16", help="numbers of heads, separated by commas")
    parser.add_argument("--precisions", default="float32,bf16", help="of the passes, separated by commas")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = [
        _row(precision, int(heads), asked.rounds)
        for precision in asked.precisions.split(",")
        for heads in asked.heads.split(",")
    ]
    notes = [
        f"a step: 2 x {BATCH} images, {FEATURES} features, widths {WIDTH} and {HIDDEN}, {CLASSES} classes, one thread",
        "ms: of a step of all heads, the median of the rounds; gain: one after the other by together",
        f"difference: the largest of a weight after {STEPS} steps, by the largest weight",
    ]
    print(leave("stacked", "Heads on frozen features, one after the other and together", rows, notes))


def _row(precision: str, heads: int, rounds: int) -> dict[str, Any]:
    ways = {"one by one": _one_by_one, "together": _together}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    ended: dict[str, Weights] = {}
    for head, step in itertools.product(range(heads), range(STEPS)):
        _batch(head, step)
    for _ in range(rounds):
        for way, train in ways.items():
            began = time.perf_counter()
            ended[way] = train(heads, precision == "bf16")
            seconds[way].append((time.perf_counter() - began) / STEPS)
    apart, together = (1000 * statistics.median(seconds[way]) for way in ways)
    # Not the biases: the normalisation after them takes them away, so that they are nothing but rounding.
    pairs = [(ended["one by one"][name], ended["together"][name]) for name in ("bottleneck", "hidden", "last")]
    difference = max(float((one - other).abs().max() / one.abs().max()) for one, other in pairs)
    return {
        "precision": precision,
        "heads": heads,
        "one by one ms": round(apart, 2),
        "together ms": round(together, 2),
        "gain": round(apart / together, 2),
        "difference": f"{difference:.0e}",
    }


def _one_by_one(heads: int, bf16: bool) -> Weights:
    ended = []
    for head in range(heads):
        weights = _first(head)
        teacher, speed = dict(weights), {name: torch.zeros_like(value) for name, value in weights.items()}
        for step in range(STEPS):
            weights, teacher, speed = _step(weights, teacher, speed, *_batch(head, step), bf16=bf16)
        ended.append(weights)
    return {name: torch.stack([weights[name] for weights in ended]) for name in ended[0]}


def _together(heads: int, bf16: bool) -> Weights:
    firsts = [_first(head) for head in range(heads)]
    weights = {name: torch.stack([first[name] for first in firsts]) for name in firsts[0]}
    teacher, speed = dict(weights), {name: torch.zeros_like(value) for name, value in weights.items()}
    stepped = vmap(lambda *values: _step(*values, bf16=bf16))
    for step in range(STEPS):
        batches = zip(*(_batch(head, step) for head in range(heads)), strict=True)
        weights, teacher, speed = stepped(weights, teacher, speed, *map(torch.stack, batches))
    return weights


def _first(head: int) -> Weights:
    generator = torch.Generator().manual_seed(head)
    weights: Weights = {}
    for name, (inputs, outputs) in {
        "bottleneck": (FEATURES, WIDTH),
        "hidden": (WIDTH, HIDDEN),
        "last": (HIDDEN, CLASSES),
    }.items():
        weights[name] = torch.randn(outputs, inputs, generator=generator) / inputs**0.5
        weights[f"{name} bias"] = torch.zeros(outputs)
        if name != "last":
            weights[f"{name} scale"], weights[f"{name} shift"] = torch.ones(outputs), torch.zeros(outputs)
    return weights


def _batch(head: int, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Source features and labels, and weak and strong views of target features. Few are made, and before the clock."""
    return _made(head, step % 4)


@cache
def _made(head: int, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1000 * head + step)
    labels = torch.randint(CLASSES, (BATCH,), generator=generator)
    source, weak, strong = torch.randn(3, BATCH, FEATURES, generator=generator)
    return source + labels[:, None] / CLASSES, labels, weak, strong


def _step(
    weights: Weights,
    teacher: Weights,
    speed: Weights,
    source: Tensor,
    labels: Tensor,
    weak: Tensor,
    strong: Tensor,
    *,
    bf16: bool,
) -> tuple[Weights, Weights, Weights]:
    """One step of one head: its weights, its teacher's, and the momentum."""
    confidence, pseudo = _logits(teacher, weak, bf16).softmax(1).max(1)
    kept = (confidence > THRESHOLD).float()

    def loss(weights: Weights) -> Tensor:
        of_target = F.cross_entropy(_logits(weights, strong, bf16), pseudo, reduction="none")
        return F.cross_entropy(_logits(weights, source, bf16), labels) + (kept * of_target).mean()

    gradients, _ = grad_and_value(loss)(weights)
    speed = {name: MOMENTUM * speed[name] + gradients[name] for name in weights}
    weights = {name: value - RATE * (gradients[name] + MOMENTUM * speed[name]) for name, value in weights.items()}
    teacher = {name: torch.lerp(weights[name], value, DECAY) for name, value in teacher.items()}
    return weights, teacher, speed


def _logits(weights: Weights, features: Tensor, bf16: bool) -> Tensor:
    """A head that normalises by its batch; the last layer is in float32, as the package's is."""
    for name in ("bottleneck", "hidden"):
        weight, bias = weights[name], weights[f"{name} bias"]
        if bf16:
            features, weight, bias = features.bfloat16(), weight.bfloat16(), bias.bfloat16()
        features = F.linear(features, weight, bias).float()
        features = (features - features.mean(0)) * torch.rsqrt(features.var(0, unbiased=False) + 1e-5)
        features = F.relu(features * weights[f"{name} scale"] + weights[f"{name} shift"])
    return F.linear(features, weights["last"], weights["last bias"])


if __name__ == "__main__":
    main()
