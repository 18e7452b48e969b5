"""Base class of the methods that read no source image while they adapt to the target."""

from abc import abstractmethod

import torch
from torch import Tensor

from scale_ray.config import ConfigError, TrialConfig
from scale_ray.data.batches import SourceBatch, TargetBatch
from scale_ray.losses import cross_entropy
from scale_ray.methods.base import (
    Method,
    MethodContext,
    Passes,
    StepOutput,
    check_ce_alone,
    check_class_balance,
    check_whole_images,
)
from scale_ray.models import Network, Outputs
from scale_ray.models.student import DomainRole

# Of the labels of the source: SHOT's, which AaD takes over. Classes that lie further apart transfer better.
LABEL_SMOOTHING = 0.1


class SourceFree(Method):
    """Trains on the source with smoothed labels, then on the target alone.

    The first `baseline.source_share` of the steps read the source and no target; from the switch on it is the other way
    round. There `adapt` has no source batch, and surveys have none of its images. The optimiser goes on: its schedule
    covers both parts, and the momentum of the last source step decays in the first ones on the target. The papers train
    the two parts apart, each with a schedule of its own.

    Features are the hidden layer of the classifier head (docs/method.md, section 1), after BatchNorm and ReLU; it
    corresponds to the papers' bottleneck, which has no ReLU. The papers' last layer is weight-normalised.

    Args:
        student: optimised.
        context: config, sizes and workers.

    Attributes:
        switch: the first step on the target.
        labels_target: whether the method makes pseudo-labels.
    """

    labels_target = False

    student: Network

    def __init__(self, student: Network, context: MethodContext):
        super().__init__(student, context)
        self.switch = _switch(context.config)
        self._steps = context.config.optim.steps
        self._width = context.config.model.hidden_dim

    @classmethod
    def check(cls, config: TrialConfig) -> None:
        check_ce_alone(config)
        check_whole_images(config)
        check_class_balance(config, pseudo_labels=cls.labels_target)
        if not 0 < _switch(config) < config.optim.steps:
            raise ConfigError(
                f"baseline.source_share={config.baseline.source_share:g} of optim.steps={config.optim.steps} leaves "
                f"method {config.method!r} no step on one of the domains: choose a share nearer to 0.5, or more steps"
            )

    @classmethod
    def passes(cls, config: TrialConfig) -> Passes:
        return Passes(student=1)

    def needs_source(self, step: int) -> bool:
        return step < self.switch

    def needs_target(self, step: int) -> bool:
        return step >= self.switch

    def surveys(self, step: int) -> bool:
        return step == self.switch

    def encode(self, images: Tensor, domain: DomainRole) -> Tensor:
        """Hidden layer and logits of target images, with running statistics: no image's depend on another's."""
        self.student.eval()
        outputs = self.student.forward_target(images, hidden=True)
        self.student.train()
        assert outputs.hidden is not None
        return torch.cat([outputs.hidden, outputs.logits], dim=1)

    def survey(self, source: Tensor | None, labels: Tensor | None, target: Tensor) -> None:
        hidden, logits = target.tensor_split([self._width], dim=1)
        self.look(hidden, logits.softmax(dim=1))

    @abstractmethod
    def look(self, hidden: Tensor, probabilities: Tensor) -> None:
        """Look at the whole target: hidden layer (N, A) and class probabilities (N, K) of all its images."""

    def step(self, step: int, source: SourceBatch, target: TargetBatch | None) -> StepOutput:
        logits = self.gathered(self.student(source.images)).logits
        return StepOutput({"ce": cross_entropy(logits, source.labels, LABEL_SMOOTHING)})

    def on_target(self, target: TargetBatch) -> Outputs:
        """The student's outputs, with the hidden layer, for the weak views of the global target batch."""
        return self.gathered(self.student.forward_target(target.weak, hidden=True))

    def progress(self, step: int) -> float:
        """Share of the steps on the target that is done, from 0."""
        return (step - self.switch) / (self._steps - self.switch)


def _switch(config: TrialConfig) -> int:
    return round(config.baseline.source_share * config.optim.steps)
