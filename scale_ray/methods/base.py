"""The Method protocol: what the training loop asks of every adaptation method."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn

from scale_ray.config import ConfigError, TrialConfig, check_name
from scale_ray.data.batches import SourceBatch, TargetBatch
from scale_ray.models import BACKBONES, FeatureNetwork, Network, Outputs, Student, Teacher, build_encoder
from scale_ray.models.backbones import check_weights
from scale_ray.workers import ALONE, Workers


@dataclass(frozen=True)
class StepOutput:
    """What one step of a method gives back to the loop."""

    losses: dict[str, Tensor]  # loss term -> scalar of the global batch, before its weight
    pseudo_labels: Tensor | None = None  # (B,) of the whole target batch, detached
    kept: Tensor | None = None  # (B,) bool: which of them passed the threshold
    weights: dict[str, float] = field(default_factory=dict)  # of the losses that config.losses.terms does not name


@dataclass(frozen=True)
class Passes:
    """What a step costs, once the warm-up is over: passes of the encoder over one domain's batch.

    Attributes:
        student: forward and backward.
        teacher: forward alone.
    """

    student: int
    teacher: int = 0

    @property
    def cost(self) -> float:
        """Relative to source_only, whose one pass it counts as 1; a backward pass counts as two forward ones."""
        return self.student + self.teacher / 3


@dataclass(frozen=True)
class Setting:
    """What a method may know besides its config."""

    config: TrialConfig
    num_classes: int
    steps_per_epoch: int
    workers: Workers = ALONE
    classes: tuple[str, ...] = ()  # their names, in the order of labels; for a method whose student reads them


class Method(nn.Module, ABC):
    """Student, teacher and statistics as one module: one state dict is the whole state of a method.

    The loop calls `needs_target`, `step` and `after_update` for every step, in this order, and optimises every
    parameter that asks for a gradient in between; the student alone is measured and kept. A method owns no optimiser
    and draws nothing at random but dropout.

    On many workers each has its own rows of the images and all labels; `gathered` outputs make every loss, statistic
    and pseudo-label that of the global batch, the same on every worker.
    """

    paper: ClassVar[str]  # whose method it is, with a URL
    defaults: ClassVar[str]  # where its settings' defaults come from
    reads: ClassVar[frozenset[str]] = frozenset()  # fields of config.baseline that it reads
    learns: ClassVar[bool] = True  # where it does not, no step is taken: it is measured at step 0

    student: Student
    teacher: Teacher | None
    workers: Workers

    @classmethod
    @abstractmethod
    def passes(cls, config: TrialConfig) -> Passes:
        """What a step costs."""

    @classmethod
    def check(cls, config: TrialConfig) -> None:
        """Refuse, before any compute, a config that this method cannot honour (ConfigError)."""

    @classmethod
    def check_backbone(cls, config: TrialConfig) -> None:
        """Refuse, before any compute, a backbone or weights that its student cannot have (ConfigError)."""
        check_name("model.backbone", config.model.backbone, BACKBONES)
        check_weights(config.model.backbone, config.model.weights)

    @classmethod
    def build_student(cls, setting: Setting) -> Student:
        """The student with its weights; random ones are drawn from torch's global generator."""
        config = setting.config
        feature_dim = BACKBONES[config.model.backbone].feature_dim
        if config.model.encoder == "frozen":
            return FeatureNetwork(feature_dim, setting.num_classes, config.model, config.optim.precision)
        encoder = build_encoder(config.model.backbone, config.model.weights)
        return Network(encoder, feature_dim, setting.num_classes, config.model, config.optim.precision)

    @classmethod
    def reads_target(cls, config: TrialConfig) -> bool:
        """Whether any step reads target images; where none does, one training answers for every target."""
        return True

    @classmethod
    def warm_up(cls, config: TrialConfig) -> TrialConfig | None:
        """What the first `warmup_steps + 1` steps train, so written that configs which train the same there are equal.

        None where a method shares no such beginning.
        """
        return None

    def needs_target(self, step: int) -> bool:
        """Whether this step reads a target batch; where it does not, none is made."""
        return False

    @abstractmethod
    def step(self, step: int, source: SourceBatch, target: TargetBatch | None) -> StepOutput:
        """The step's losses, differentiable towards what is optimised. `target` is None where it is not needed."""

    def forward(self, step: int, source: SourceBatch, target: TargetBatch | None) -> StepOutput:
        """`step`, under the name by which DistributedDataParallel calls it."""
        return self.step(step, source, target)

    def gathered(self, outputs: Outputs) -> Outputs:
        """A network's outputs for the rows of all workers, given those for this worker's."""
        features, hidden = (
            None if part is None else self.workers.gather(part) for part in (outputs.features, outputs.hidden)
        )
        return Outputs(self.workers.gather(outputs.logits), features, hidden)

    def after_update(self) -> None:
        """Called when the student has been optimised."""


def check_ce_alone(config: TrialConfig) -> None:
    """Refuse loss terms beside ce, which only `scale` reads."""
    if list(config.losses.terms) != ["ce"]:
        raise ConfigError(
            f"method {config.method!r} trains with ce alone, losses.terms is {config.combination!r}: "
            "write losses.terms='ce', or method='scale'"
        )
