"""Which memory layout and precision make a training step shortest on this machine's CPU.

    python benchmarks/layout.py [--backbones lenet,resnet18] [--sides 64,128] [--threads 2]

Each case is one backbone at one image size. Its contenders are the training loop's step of scale (batches of 32 + 32
noise images, random weights) in both layouts, in float32 and in bf16. They run in one process in alternating rounds; a
time is the median over the rounds, and a ratio is the median of the rounds' ratios.
"""

import argparse
import gc
import os
from dataclasses import replace
from typing import Any

import torch
from results import leave
from steps.case import Case, ours
from steps.clock import measure

from scale_ray.training.setup import configure_torch

FIRST, LAST = "channels first", "channels last"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", default="lenet,resnet18,mobilenet_v2,resnet50,timm:tf_efficientnet_lite0")
    parser.add_argument("--sides", default="64,128", help="pixels")
    parser.add_argument("--rounds", type=int, default=3, help="minimal rounds of a case")
    parser.add_argument("--seconds", type=float, default=10.0, help="the least time of a case")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    configure_torch(options.threads)
    rows = []
    for backbone in options.backbones.split(","):
        for side in map(int, options.sides.split(",")):
            rows.append(_row(backbone, side, options.rounds, options.seconds))
            print(rows[-1], flush=True)
    notes = [f"{options.threads} CPU threads; {_instructions()}", "ratios are to channels first in float32"]
    print(leave("layout", "Layout and precision of a step on a CPU", rows, notes))


def _row(backbone: str, side: int, rounds: int, seconds: float) -> dict[str, Any]:
    case = Case(backbone, side, torch.device("cpu"))
    contenders = []
    for precision in ("float32", "bf16"):
        for layout in (FIRST, LAST):
            variant = replace(case, precision=precision, channels_last=layout == LAST)
            contenders.append(ours(variant, f"{precision}, {layout}", "", variant.config(), case.prepared))
    times = measure(contenders, case.device, rounds, seconds)
    usual = contenders[0].name
    row = {"backbone": backbone, "side": side, "ms": round(times.milliseconds(usual), 1)}
    row |= {contender.name: round(times.ratio(contender.name, usual), 3) for contender in contenders[1:]}
    contenders.clear()
    gc.collect()
    return row


def _instructions() -> str:
    """What the processor has for bf16."""
    known = torch.backends.cpu.get_cpu_capability()
    return f"{known}, {'with' if torch.ops.mkldnn._is_mkldnn_bf16_supported() else 'without'} bf16"


if __name__ == "__main__":
    main()
