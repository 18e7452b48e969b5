"""`fixmatch`: `scale` with ce+ssl, threshold 0.95 and the student's own pseudo-labels."""

from dataclasses import replace

from scale_ray.config import TrialConfig
from scale_ray.data.batches import SourceBatch, TargetBatch
from scale_ray.methods.base import MethodContext, Passes, StepOutput, check_ce_alone
from scale_ray.methods.scale import Scale
from scale_ray.models import Network

# The fields of `scale` that make it FixMatch. A teacher with momentum 0 is the student itself.
FIXED = {"losses.terms": "ce+ssl", "losses.threshold": 0.95, "model.teacher_momentum": 0.0}


class FixMatch(Scale):
    """Cross-entropy of the strong view with the labels that the student is sure of on the weak view.

    The fields in FIXED are not read from the config; all others are those of `scale`. Differences from the paper: the
    labelled images are those of another domain, and as many as the unlabelled ones; the views and the optimiser are
    those of all methods.
    """

    paper = "Sohn et al., FixMatch, NeurIPS 2020, https://arxiv.org/abs/2001.07685"
    defaults = "threshold 0.95 and weight 1 from the paper"

    def __init__(self, student: Network, context: MethodContext):
        super().__init__(student, replace(context, config=context.config.replace(FIXED)))

    @classmethod
    def reads_variant(cls, config: TrialConfig, path: str) -> bool:
        return super().reads_variant(config.replace(FIXED), path)

    @classmethod
    def passes(cls, config: TrialConfig) -> Passes:
        return Passes(student=2, teacher=1 + (config.model.batch_norm == "domain"))

    @classmethod
    def check(cls, config: TrialConfig) -> None:
        check_ce_alone(config)

    def step(self, step: int, source: SourceBatch, target: TargetBatch | None) -> StepOutput:
        return replace(super().step(step, source, target), weights={"ssl": 1.0})
