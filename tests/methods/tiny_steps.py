"""Batches of noise and methods to give them to: one step takes milliseconds."""

import torch

from scale_ray.config import TrialConfig
from scale_ray.data.batches import SourceBatch, TargetBatch
from scale_ray.methods import Method, StepOutput
from scale_ray.training.setup import build_method

CLASS_NAMES = ("checks", "columns", "rows")
CLASSES, STEPS_PER_EPOCH, BATCH = 3, 5, 6


def source_batch(seed: int = 0) -> SourceBatch:
    generator = torch.Generator().manual_seed(seed)
    return SourceBatch(torch.randn(BATCH, 3, 16, 16, generator=generator), torch.tensor([0, 1, 2, 0, 1, 2]))


def target_batch(seed: int = 1) -> TargetBatch:
    generator = torch.Generator().manual_seed(seed)
    weak, strong = torch.randn(2, BATCH, 3, 16, 16, generator=generator)
    return TargetBatch(weak, strong, torch.arange(BATCH))


def build(config: TrialConfig) -> Method:
    return build_method(config, CLASSES, STEPS_PER_EPOCH, classes=CLASS_NAMES, target_images=BATCH)


@torch.no_grad()
def survey_before(method: Method, step: int) -> None:
    """The last survey up to a step, if there is one, of the images in the batches."""
    if not (surveyed := [each for each in range(step + 1) if method.surveys(each)]):
        return
    target = method.encode(target_batch().weak, "target")
    if method.needs_source(surveyed[-1]):
        source = source_batch()
        method.survey(method.encode(source.images, "source"), source.labels, target)
    else:
        method.survey(None, None, target)


def take_step(method: Method, step: int, seed: int = 0) -> StepOutput:
    """A step of the batches that the method needs in it."""
    source = source_batch(seed) if method.needs_source(step) else None
    return method(step, source, target_batch() if method.needs_target(step) else None)
