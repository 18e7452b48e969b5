"""The timed case: a backbone at an image size, in a precision and a memory layout, on noise images."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from scale_ray.config import Execution, TrialConfig
from scale_ray.data.batches import Batches, LabelledImages, SourceBatch, TargetBatch, UnlabelledImages
from scale_ray.methods import Method
from scale_ray.training.loop import _Meter, _optimiser, _train_step
from scale_ray.training.seeding import generator
from scale_ray.training.setup import build_method, move_to_device

CLASSES, IMAGES, BATCH = 65, 520, 32  # Office-Home's classes; images of a domain; images per domain and step
PREPARED = 4  # batches that every contender cycles through


@dataclass(frozen=True)
class Case:
    backbone: str
    side: int
    device: torch.device
    precision: str = "float32"
    channels_last: bool = True
    compile: bool = False
    dtype: torch.dtype = torch.float32  # of weights and images; float64 to compare two ways beyond rounding

    def config(self, terms: str = "ce+ssl+dist+reg", batch_norm: str = "separate") -> TrialConfig:
        """A config without warm-up, with a threshold that the teacher of a random network passes."""
        return TrialConfig().replace(
            {
                "data.image_size": self.side,
                "data.resize": self.side * 8 // 7,
                "model.backbone": self.backbone,
                "model.weights": "none",
                "model.batch_norm": batch_norm,
                "losses.terms": terms,
                "losses.threshold": 0.018,
                "optim.batch_size": BATCH,
                "optim.warmup_steps": 0,
                "optim.precision": self.precision,
            }
        )

    @property
    def execution(self) -> Execution:
        return Execution(channels_last=self.channels_last, compile=self.compile)

    def method(self, config: TrialConfig) -> Method:
        """The method of a trial, on its device and in its memory layout. Equal configs get equal weights."""
        method = build_method(config, CLASSES, IMAGES // BATCH)
        move_to_device(method, self.device, self.execution)
        return method.to(self.dtype)

    @cached_property
    def batches(self) -> Batches:
        """Batches of the package, from images in memory."""
        numbers = np.random.default_rng(0)
        side = self.side * 8 // 7
        source, target = (numbers.integers(0, 256, (IMAGES, 3, side, side), dtype=np.uint8) for _ in range(2))
        labelled = LabelledImages(source, np.arange(IMAGES), np.arange(IMAGES) % CLASSES)
        return Batches(self.config(), labelled, UnlabelledImages(target), CLASSES, partial(generator, 0), self.device)

    @cached_property
    def prepared(self) -> "Prepared":
        steps = range(PREPARED)
        sources, targets = map(self.batches.source, steps), map(self.batches.target, steps)
        return Prepared(
            [replace(each, images=each.images.to(self.dtype)) for each in sources],
            [replace(each, weak=each.weak.to(self.dtype), strong=each.strong.to(self.dtype)) for each in targets],
        )


@dataclass(frozen=True)
class Prepared:
    """Replaces Batches by prepared batches, so that a step is timed without its input."""

    sources: list[SourceBatch]
    targets: list[TargetBatch]

    def source(self, step: int) -> SourceBatch:
        return self.sources[step % PREPARED]

    def target(self, step: int) -> TargetBatch:
        return self.targets[step % PREPARED]

    def observe(self, indices: Tensor, pseudo_labels: Tensor) -> None:
        """Do nothing: no class is balanced by pseudo-labels."""


@dataclass
class Contender:
    """One way to do a step.

    Attributes:
        step: runs the next step. Work may still be queued on the device when it returns.
        floor: the name of the contender that runs only the passes of this one.
    """

    name: str
    step: Callable[[], object]
    floor: str | None = None


def ours(case: Case, name: str, floor: str, config: TrialConfig, batches: Batches | Prepared) -> Contender:
    """The step of the training loop, including its meter."""
    method = case.method(config)
    optimiser, meter, steps = _optimiser(method, config.optim), _Meter(), itertools.count(1)

    def step() -> dict[str, Tensor]:
        output, seen = _train_step(config, method, method, batches, optimiser, next(steps))  # type: ignore[arg-type]
        meter.add(output, seen)
        return output.losses

    return Contender(name, step, floor)


def views(case: Case) -> Contender:
    """Only the input: both batches with their three views."""
    steps = itertools.count(1)

    def step() -> None:
        number = next(steps)
        case.batches.source(number)
        case.batches.target(number)

    return Contender("input views alone", step)


def endless(case: Case) -> Iterator[tuple[SourceBatch, TargetBatch]]:
    """The batches that `ours` gets, from step 1."""
    for step in itertools.count(1):
        yield case.prepared.source(step), case.prepared.target(step)
