"""The interface that every adaptation method implements for the training loop."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

from scale_ray.config import ConfigError, TrialConfig
from scale_ray.data.batches import SourceBatch, TargetBatch
from scale_ray.models import FeatureNetwork, Network, Outputs, Student, Teacher, build_encoder
from scale_ray.models.backbones import check_backbone, feature_dim
from scale_ray.models.student import DomainRole
from scale_ray.workers import ALONE, Workers


@dataclass(frozen=True)
class StepOutput:
    """What one step of a method returns to the loop.

    Attributes:
        losses: loss term -> scalar of the global batch, before its weight.
        pseudo_labels: (B,) int64, labels of the whole target batch, detached; None if the method makes none.
        kept: (B,) bool, the pseudo-labels whose confidence exceeded the threshold; None if the method has no threshold.
        weights: loss term -> weight, for the losses that `config.losses.terms` does not contain.
    """

    losses: dict[str, Tensor]
    pseudo_labels: Tensor | None = None
    kept: Tensor | None = None
    weights: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Passes:
    """The cost of one step after the warm-up, in passes of an encoder over the batch of one domain.

    Attributes:
        student: passes forward and backward.
        teacher: passes forward only, most of them the teacher's.
    """

    student: int
    teacher: int = 0

    @property
    def cost(self) -> float:
        """Cost relative to source_only, which makes one student pass; a backward pass counts as two forward passes."""
        return self.student + self.teacher / 3


@dataclass(frozen=True)
class MethodContext:
    """What a method is built from.

    Attributes:
        config: the trial.
        num_classes: K.
        steps_per_epoch: steps in which as many source images are drawn as there are.
        workers: the processes that train this trial together.
        classes: names of the K classes, in the order of the labels; read by students that encode class names.
        target_images: number of images of the target.
    """

    config: TrialConfig
    num_classes: int
    steps_per_epoch: int
    workers: Workers = ALONE
    classes: tuple[str, ...] = ()
    target_images: int = 0


class Method(nn.Module, ABC):
    """An adaptation method: one module whose state dict is its whole state (student, teacher, statistics).

    For every step the loop calls `surveys`, `needs_source`, `needs_target`, then `step`, or `adapt` where there is no
    source batch, and, after the optimiser's update, `after_update`.
    The optimiser updates every parameter of the module that requires a gradient. Only the student is evaluated and
    stored.
    A method has no optimiser of its own, and dropout is its only source of randomness.

    With several workers each worker has its own rows of the images and the labels of all rows. A method computes its
    losses, statistics and pseudo-labels on `gathered` outputs: they are then those of the global batch, and the same on
    every worker.

    Args:
        student: the network that is optimised.
        context: config, sizes and workers.

    Attributes:
        paper: the publication, with its URL.
        defaults: where the default values of its settings come from.
        reads: fields of `config.baseline` that the method reads; a config that changes another one is refused.
        learns: whether training changes the student. If not, no step is taken and it is evaluated at step 0.
        teacher: None if the method has none.
    """

    paper: ClassVar[str]
    defaults: ClassVar[str]
    reads: ClassVar[frozenset[str]] = frozenset()
    learns: ClassVar[bool] = True

    student: Student
    teacher: Teacher | None
    workers: Workers

    def __init_subclass__(cls, **options: Any) -> None:
        """What a method says about its own steps is not true of a subclass, which may train otherwise."""
        super().__init_subclass__(**options)
        for name in ("reads_target", "warm_up"):
            if name not in vars(cls):
                setattr(cls, name, classmethod(vars(Method)[name].__func__))

    def __init__(self, student: Student, context: MethodContext):
        super().__init__()
        self.student = student
        self.teacher = None
        self.workers = context.workers

    @classmethod
    @abstractmethod
    def passes(cls, config: TrialConfig) -> Passes:
        """The cost of a step with this config."""

    @classmethod
    def check(cls, config: TrialConfig) -> None:
        """Check, before any computation, that the method supports the config.

        Raises:
            ConfigError: it does not.
        """

    @classmethod
    def check_backbone(cls, config: TrialConfig) -> None:
        """Check, before any computation, that the student can be built on this backbone with these weights.

        Raises:
            ConfigError: it cannot.
        """
        check_backbone(config.model, config.data.image_size)

    @classmethod
    def build_student(cls, context: MethodContext) -> Student:
        """Build the student with its weights. Random weights are drawn from torch's global generator.

        Raises:
            WeightsError: the weights cannot be loaded.
        """
        config, model, size = context.config, context.config.model, context.config.data.image_size
        width = feature_dim(model.backbone, size)
        if model.encoder == "frozen":
            return FeatureNetwork(width, context.num_classes, model, config.optim.precision)
        encoder = build_encoder(model.backbone, model.weights, size)
        return Network(encoder, width, context.num_classes, model, config.optim.precision)

    @classmethod
    def reads_target(cls, config: TrialConfig) -> bool:
        """Whether any step reads target images. If none does, one training gives the results for every target."""
        return True

    @classmethod
    def reads_variant(cls, config: TrialConfig, path: str) -> bool:
        """Whether the training depends on this field, which gives a row of its own (see `config.VARIANTS`)."""
        return path == "views.source" and cls.learns

    @classmethod
    def warm_up(cls, config: TrialConfig) -> TrialConfig | None:
        """A config that describes the first `warmup_steps + 1` steps.

        Two configs that train the same in these steps, bit for bit, have equal warm-ups; cells with equal warm-ups
        share them. None if the method does not share its warm-up.
        """
        return None

    def surveys(self, step: int) -> bool:
        """Whether the method looks at whole domains before this step: the target, and the source if it needs it."""
        return False

    def encode(self, images: Tensor, domain: DomainRole) -> Tensor:
        """What `survey` needs of images (B, ...) of a domain: (B, X). Called without gradients."""
        raise NotImplementedError

    def survey(self, source: Tensor | None, labels: Tensor | None, target: Tensor) -> None:
        """Look at whole domains.

        Args:
            source: encoded source images (N, X); None where `needs_source(step)` is false.
            labels: their labels (N,); None likewise.
            target: encoded target images (M, X), in the order of `TargetBatch.indices`.
        """
        raise NotImplementedError

    def needs_source(self, step: int) -> bool:
        """Whether a step, or the survey before it, reads the source. If not, the loop reads none and calls `adapt`."""
        return True

    def needs_target(self, step: int) -> bool:
        """Whether `step` reads a target batch. If not, the loop makes none."""
        return False

    @abstractmethod
    def step(self, step: int, source: SourceBatch, target: TargetBatch | None) -> StepOutput:
        """Compute the losses of one step, differentiable with respect to the parameters that are optimised.

        Args:
            step: t, from 0.
            source: this worker's rows of the source batch, and all labels.
            target: this worker's rows of the target batch; None where `needs_target(step)` is false.
        """

    def adapt(self, step: int, target: TargetBatch) -> StepOutput:
        """Compute the losses of a step for which `needs_source` is false: there is no source batch to read."""
        raise NotImplementedError

    def forward(self, step: int, source: SourceBatch | None, target: TargetBatch | None) -> StepOutput:
        """`step`, or `adapt` without a source batch; DistributedDataParallel calls a module by `forward`."""
        if source is not None:
            return self.step(step, source, target)
        assert target is not None, "a step reads a batch of the source, of the target, or of both"
        return self.adapt(step, target)

    def gathered(self, outputs: Outputs) -> Outputs:
        """Outputs for the rows of all workers, in the order of the global batch, from the outputs for this worker's."""
        features, hidden = (
            None if part is None else self.workers.gather(part) for part in (outputs.features, outputs.hidden)
        )
        return Outputs(self.workers.gather(outputs.logits), features, hidden)

    def after_update(self) -> None:
        """Called after the optimiser has updated the student."""


def check_ce_alone(config: TrialConfig) -> None:
    """Check that `losses.terms` is ce alone, as only the method `scale` reads other loss terms.

    Raises:
        ConfigError: there are other loss terms.
    """
    if list(config.losses.terms) != ["ce"]:
        raise ConfigError(
            f"method {config.method!r} trains with ce alone, but losses.terms is {config.combination!r}: "
            "set losses.terms to 'ce', or method to 'scale'"
        )


def check_whole_images(config: TrialConfig) -> None:
    """Check that images are not compared location by location.

    Raises:
        ConfigError: they are.
    """
    if config.model.contrast_level != "pooled":
        raise ConfigError(
            f"method {config.method!r} compares whole images: set model.contrast_level to 'pooled', or method to "
            "'scale'"
        )


def check_class_balance(config: TrialConfig, *, pseudo_labels: bool) -> None:
    """Check that target images can be sampled as `data.class_balance` asks.

    Args:
        config: the trial.
        pseudo_labels: whether its method makes pseudo-labels.

    Raises:
        ConfigError: target images are to be sampled by pseudo-labels, and the method makes none.
    """
    if config.data.class_balance == "both" and not pseudo_labels:
        raise ConfigError(
            f"data.class_balance='both' samples the target by pseudo-labels, and method {config.method!r} makes none: "
            "set data.class_balance to 'source'"
        )
