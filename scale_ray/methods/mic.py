"""`mic`: sdat, and the teacher's labels for images of which the student sees few patches."""

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from scale_ray.config import ConfigError, TrialConfig
from scale_ray.data.batches import SourceBatch, TargetBatch
from scale_ray.losses import weighted_self_training
from scale_ray.methods.base import MethodContext, Passes, StepOutput
from scale_ray.methods.sdat import Sdat
from scale_ray.models import Network, Outputs, Teacher


class Mic(Sdat):
    """Masked image consistency on top of `sdat`: cross-entropy of the masked view with the teacher's labels.

    All labels count, weighted by their confidence. The masked view is the strong view `masked` (data/views.py), whose
    patches are a function of (seed, step). The loss is part of the task loss: its minimum is made flat too.

    Differences from the authors' code (https://github.com/lhoyer/MIC, cls/examples/cdan_mcc_sdat_masking.py): the
    weights count in both passes, and not in the first alone; there is no colour jitter before the mask; masked images
    do not enter the running statistics of BatchNorm.

    With `scale`, `views.strong=masked` gives masked image consistency with a threshold in place of the weights.
    """

    paper = (
        "Hoyer et al., MIC: Masked Image Consistency for Context-Enhanced Domain Adaptation, CVPR 2023, "
        "https://arxiv.org/abs/2212.01322"
    )
    defaults = "patches, ratio and weight 1 from the authors' code; the rest from sdat"
    labels_target: ClassVar[bool] = True

    teacher: Teacher

    def __init__(self, student: Network, context: MethodContext):
        super().__init__(student, context)
        self.teacher = Teacher(student, context.config.model.teacher_momentum)

    @classmethod
    def check(cls, config: TrialConfig) -> None:
        super().check(config)
        if config.views.strong != "masked":
            raise ConfigError(
                f"method {config.method!r} learns from masked images, but views.strong is {config.views.strong!r}: set "
                "views.strong to 'masked'"
            )

    @classmethod
    def passes(cls, config: TrialConfig) -> Passes:
        return Passes(student=6, teacher=1)

    def step(self, step: int, source: SourceBatch, target: TargetBatch | None) -> StepOutput:
        if target is None:
            return super().step(step, source, target)
        with torch.no_grad():
            probabilities = self.workers.gather(self.teacher(target.weak).logits).softmax(dim=1)
        confidence, labels = probabilities.max(dim=1)

        def task(outputs: list[Outputs]) -> dict[str, Tensor]:
            masked = weighted_self_training(outputs[2].logits, labels, confidence)
            return self.task(outputs, source) | {"masked": masked}

        output = self.smoothed(step, (source.images, target.weak, target.strong), task)
        return replace(output, pseudo_labels=labels)

    def after_update(self) -> None:
        self.teacher.update_parameters(self.student)
