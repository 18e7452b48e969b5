"""Base classes of the baselines on images: each trains with ce and one loss of its own, on both domains."""

from abc import abstractmethod
from typing import ClassVar

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


class Baseline(Method):
    """A method that trains with ce and the loss `term`, whose weight is `baseline.weight`, on whole images.

    Args:
        student: optimised, together with what else the method trains.
        context: config, sizes and workers.

    Attributes:
        term: name of the loss that is added to ce.
        labels_target: whether the method makes pseudo-labels.
    """

    term: ClassVar[str]
    labels_target: ClassVar[bool] = False

    student: Network

    def __init__(self, student: Network, context: MethodContext):
        super().__init__(student, context)
        self.config = context.config

    @classmethod
    def check(cls, config: TrialConfig) -> None:
        check_ce_alone(config)
        check_whole_images(config)
        check_class_balance(config, pseudo_labels=cls.labels_target)

    def needs_target(self, step: int) -> bool:
        return True


class Transfer(Baseline):
    """A baseline without a teacher, whose loss is a function of the student's outputs on the weak views.

    The features are the hidden layer of the classifier head (docs/method.md, section 1), after BatchNorm and ReLU; it
    corresponds to the bottleneck that the papers align. `model.batch_norm` decides whether BatchNorm sees the domains
    in one forward pass or in two.

    With `baseline.transfer_from=warm_up` the first `optim.warmup_steps + 1` steps are those of source_only and read no
    target. The reversal of the adversarial methods, whose progress counts from there, so begins with a classifier.
    """

    def __init__(self, student: Network, context: MethodContext):
        super().__init__(student, context)
        self._first = _first_step(context.config)

    @classmethod
    def check(cls, config: TrialConfig) -> None:
        super().check(config)
        if _first_step(config) >= config.optim.steps:
            raise ConfigError(
                f"the transfer loss of method {config.method!r} never acts: with baseline.transfer_from='warm_up' it "
                f"acts where step > optim.warmup_steps={config.optim.warmup_steps}, but the last step is "
                f"{config.optim.steps - 1}: lower optim.warmup_steps"
            )

    @classmethod
    def passes(cls, config: TrialConfig) -> Passes:
        return Passes(student=2)

    def needs_target(self, step: int) -> bool:
        return step >= self._first

    def progress(self, step: int) -> float:
        """Share of the steps with the transfer loss that is done, from 0."""
        return (step - self._first) / (self.config.optim.steps - self._first)

    def step(self, step: int, source: SourceBatch, target: TargetBatch | None) -> StepOutput:
        if target is None:
            of_source = self.gathered(self.student(source.images))
            return StepOutput({"ce": cross_entropy(of_source.logits, source.labels)})
        outputs = self.student.forward_domains(source.images, target.weak, hidden=True)
        of_source, of_target = (self.gathered(of_domain) for of_domain in outputs)
        losses = {
            "ce": cross_entropy(of_source.logits, source.labels),
            self.term: self.transfer(step, of_source, of_target),
        }
        return StepOutput(losses, weights={self.term: self.config.baseline.weight})

    @abstractmethod
    def transfer(self, step: int, source: Outputs, target: Outputs) -> Tensor:
        """The loss that is added to ce, a scalar.

        Args:
            step: t, from 0.
            source: outputs for the source rows of the global batch, with the hidden layer.
            target: outputs for its target rows, likewise.
        """


def _first_step(config: TrialConfig) -> int:
    """The first step with the transfer loss."""
    return config.optim.warmup_steps + 1 if config.baseline.transfer_from == "warm_up" else 0
