"""`sdat`: cdan and mcc, with the gradient of a flat minimum of the task loss."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from scale_ray.config import TrialConfig
from scale_ray.data.batches import SourceBatch, TargetBatch
from scale_ray.losses import class_confusion, cross_entropy
from scale_ray.methods.base import Passes, StepOutput
from scale_ray.methods.cdan import Cdan
from scale_ray.models import Network, Outputs
from scale_ray.models.network import statistics_kept


class Sdat(Cdan):
    """Smooth domain adversarial training: `cdan` with `mcc`, and sharpness-aware minimisation of the task loss.

    A step takes the gradient of the task loss, ce and class confusion, at the student's weights, goes
    `baseline.sharpness_radius` along it, and takes the gradient of all losses there. The loop applies that gradient to
    the weights themselves. It is twice as many passes as cdan.

    Differences from the authors' code (https://github.com/val-iisc/SDAT, examples/cdan_mcc_sdat.py): the first pass
    leaves the running statistics of BatchNorm alone, which would else count every image twice; `baseline.weight` weighs
    the class confusion in both passes, and not in the second alone.
    """

    paper = (
        "Rangwani et al., A Closer Look at Smoothness in Domain Adversarial Training, ICML 2022, "
        "https://arxiv.org/abs/2206.08213"
    )
    defaults = "rho 0.02, weight 1, temperature 2.5 and no entropy conditioning from the authors' code"
    reads = Cdan.reads | {"mcc_temperature", "sharpness_radius"}

    @classmethod
    def passes(cls, config: TrialConfig) -> Passes:
        return Passes(student=4)

    def step(self, step: int, source: SourceBatch, target: TargetBatch | None) -> StepOutput:
        if target is None:
            return super().step(step, source, target)
        return self.smoothed(step, (source.images, target.weak), lambda outputs: self.task(outputs, source))

    def task(self, outputs: list[Outputs], source: SourceBatch) -> dict[str, Tensor]:
        """ce and the class confusion, from the outputs for the global batch of source and target."""
        of_source, of_target = outputs[:2]
        return {
            "ce": cross_entropy(of_source.logits, source.labels),
            "confusion": class_confusion(of_target.logits, self.config.baseline.mcc_temperature),
        }

    def smoothed(
        self, step: int, images: tuple[Tensor, ...], task: Callable[[list[Outputs]], dict[str, Tensor]]
    ) -> StepOutput:
        """The losses of a step at the weights that lie uphill.

        Args:
            step: t, from 0.
            images: source images, then one or more views of the target images, the weak one first.
            task: the losses whose minimum is to be flat, of the outputs for the global batch of all images.
        """
        weights = {"confusion": self.config.baseline.weight, self.term: self.config.baseline.weight}
        views = _Views(self.student)
        with statistics_kept(self.student):
            losses = task([self.gathered(each) for each in views(*images)])
        total = torch.stack([weights.get(name, 1.0) * loss for name, loss in losses.items()]).sum()
        outputs = functional_call(views, self._uphill(views, total), images)
        outputs = [self.gathered(each) for each in outputs]
        losses = task(outputs)
        weights |= dict.fromkeys(losses.keys() - weights.keys() - {"ce"}, 1.0)
        return StepOutput(losses | {self.term: self.transfer(step, *outputs[:2])}, weights=weights)

    def _uphill(self, views: nn.Module, loss: Tensor) -> dict[str, Tensor]:
        """The weights, moved by the radius along the loss's gradient; a gradient of theirs is one of the weights."""
        trained = {name: value for name, value in views.named_parameters() if value.requires_grad}
        found = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
        gradients = {name: each for name, each in zip(trained, found, strict=True) if each is not None}
        self.workers.average_(gradients.values())
        norms = torch._foreach_norm(list(gradients.values()))
        scale = self.config.baseline.sharpness_radius / (torch.stack(norms).norm() + 1e-12)
        return {name: trained[name] + scale * gradient for name, gradient in gradients.items()}


class _Views(nn.Module):
    """The student's outputs for source images and for each view of target images, as one module's forward pass.

    Views of the target after the first one leave the running statistics alone: they are no images to predict.
    """

    def __init__(self, student: Network):
        super().__init__()
        self.student = student

    def forward(self, source: Tensor, weak: Tensor, *others: Tensor) -> list[Outputs]:
        outputs = [*self.student.forward_domains(source, weak, hidden=True)]
        with statistics_kept(self.student):
            return outputs + [self.student(view) for view in others]
