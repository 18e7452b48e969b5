"""`source_only`: cross-entropy on the source; no target image is read. It is called "None" in SCALE's Table 2."""

from scale_ray.config import TrialConfig
from scale_ray.data.batches import SourceBatch, TargetBatch
from scale_ray.losses import cross_entropy
from scale_ray.methods.base import Method, Passes, StepOutput, check_ce_alone
from scale_ray.methods.scale import Scale
from scale_ray.models.network import per_location


class SourceOnly(Method):
    """Training without adaptation: there is no teacher and there are no class statistics."""

    paper = 'Li et al., SCALE, Table 2: "None"'
    defaults = (
        "no setting of its own; optimiser, schedule and batch size are those of scale (docs/method.md, section 6)"
    )

    @classmethod
    def passes(cls, config: TrialConfig) -> Passes:
        return Passes(student=1)

    @classmethod
    def check(cls, config: TrialConfig) -> None:
        check_ce_alone(config)

    @classmethod
    def reads_target(cls, config: TrialConfig) -> bool:
        return False

    @classmethod
    def warm_up(cls, config: TrialConfig) -> TrialConfig:
        """The warm-up of `scale` with ce alone, which trains the student in exactly the same way."""
        return Scale.warm_up(config)

    def step(self, step: int, source: SourceBatch, target: TargetBatch | None) -> StepOutput:
        logits = self.gathered(self.student(source.images)).logits
        labels = per_location(source.labels, len(logits) // len(source.labels))
        return StepOutput({"ce": cross_entropy(logits, labels)})
