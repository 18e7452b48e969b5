"""`mean_teacher`: consistency of the student's predictions on the strong view with the teacher's on the weak view."""

import math

import torch

from scale_ray.config import TrialConfig
from scale_ray.data.batches import SourceBatch, TargetBatch
from scale_ray.losses import consistency, cross_entropy
from scale_ray.methods.base import MethodContext, Passes, StepOutput
from scale_ray.methods.baseline import Baseline
from scale_ray.models import Network, Teacher


class MeanTeacher(Baseline):
    """Squared difference of the class probabilities, summed over the classes and averaged over all target images.

    The weight is ramped up as in Tarvainen and Valpola, by exp(-5 (1 - p)^2) with p from 0 to 1 over
    `optim.warmup_steps`. French et al. (https://arxiv.org/abs/1706.05208) replace the ramp by a threshold on the
    teacher's confidence: that is the method `scale` with losses.terms='ce+ssl' and losses.consistency='mse'. Their
    class balance loss is not implemented.
    """

    paper = (
        "Tarvainen and Valpola, Mean teachers are better role models, NeurIPS 2017, https://arxiv.org/abs/1703.01780"
    )
    defaults = (
        "weight 1 on the sum over K classes, between French et al.'s 3 / K and Tarvainen and Valpola's 100 / K (0.3 "
        "and 10 for K = 10); the teacher's momentum is that of scale"
    )
    reads = frozenset({"weight"})
    term = "consistency"
    labels_target = True

    teacher: Teacher

    def __init__(self, student: Network, context: MethodContext):
        super().__init__(student, context)
        self.teacher = Teacher(student, context.config.model.teacher_momentum)

    @classmethod
    def passes(cls, config: TrialConfig) -> Passes:
        return Passes(student=2, teacher=1 + (config.model.batch_norm == "domain"))

    def step(self, step: int, source: SourceBatch, target: TargetBatch | None) -> StepOutput:
        assert target is not None
        outputs = self.student.forward_domains(source.images, target.strong, like_predicted=target.weak)
        of_source, of_target = (self.gathered(of_domain) for of_domain in outputs)
        with torch.no_grad():
            probabilities = self.workers.gather(self.teacher(target.weak).logits).softmax(dim=1)
        confidence, labels = probabilities.max(dim=1)
        losses = {
            "ce": cross_entropy(of_source.logits, source.labels),
            self.term: consistency(of_target.logits, probabilities, confidence, threshold=0),
        }
        return StepOutput(losses, labels, weights={self.term: self.config.baseline.weight * self._ramp(step)})

    def after_update(self) -> None:
        self.teacher.update_parameters(self.student)

    def _ramp(self, step: int) -> float:
        """Share of the weight at this step: exp(-5) at step 0, 1 from `optim.warmup_steps` on."""
        length = self.config.optim.warmup_steps
        return math.exp(-5 * (1 - step / length) ** 2) if step < length else 1.0
