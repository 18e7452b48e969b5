"""`aad`: attracting and dispersing, on the target alone."""

from torch import Tensor

from scale_ray.data.batches import TargetBatch
from scale_ray.losses import attraction, dispersion
from scale_ray.methods.base import MethodContext, StepOutput
from scale_ray.methods.source_free import SourceFree
from scale_ray.models import Network
from scale_ray.models.neighbours import TargetBank


class Aad(SourceFree):
    """On the target, an image is predicted as its nearest images are, and otherwise than the rest of its batch.

    The loss is -sum_k p_i . q_k over the 5 nearest images in a bank of the target's features and probabilities, plus
    lambda sum_m p_i . p_m over the other images of the batch, on the weak view. lambda = (1 + 10 p)^-beta, with p from
    0 to 1 and beta = `baseline.dispersion_decay`. The sum has the weight `baseline.weight`. The bank is filled at the
    switch and follows every batch. All layers are trained.

    Cost: a step makes one student pass and compares its batch with the bank. The bank is filled by one forward pass
    over the target; it takes 4 (A + K) bytes an image, A = `model.hidden_dim`.

    Differences from the authors' code (https://github.com/Albert0147/AaD_SFDA), besides those of `SourceFree`: their
    learning rate on the target is a tenth of that on the source (Office-Home), for which the usual `baseline.weight` of
    0.1 stands (data/usual.py); with Adam, whose steps do not depend on it, choose a lower rate. A constant of their
    divergence, the entropy of the neighbours, is left out. Like theirs, the dispersion grows with the batch, which has
    64 images there.
    """

    paper = (
        "Yang et al., Attracting and Dispersing: A Simple Approach for Source-free Domain Adaptation, NeurIPS 2022, "
        "https://arxiv.org/abs/2205.04183"
    )
    defaults = "5 neighbours and beta 5 of the authors' code for VisDA; half of the steps on each domain, as `shot`"
    reads = frozenset({"weight", "source_share", "dispersion_decay"})

    def __init__(self, student: Network, context: MethodContext):
        super().__init__(student, context)
        self.bank = TargetBank(context.target_images, context.config.model.hidden_dim, context.num_classes)
        self._weight = context.config.baseline.weight
        self._decay = context.config.baseline.dispersion_decay

    def look(self, hidden: Tensor, probabilities: Tensor) -> None:
        self.bank.fill(hidden, probabilities)

    def adapt(self, step: int, target: TargetBatch) -> StepOutput:
        outputs = self.on_target(target)
        assert outputs.hidden is not None
        probabilities = outputs.logits.softmax(dim=1)
        self.bank.update(target.indices, outputs.hidden, probabilities)
        near = self.bank.nearest(target.indices, outputs.hidden)
        losses = {"attraction": attraction(probabilities, near), "dispersion": dispersion(probabilities)}
        decay = (1 + 10 * self.progress(step)) ** -self._decay
        return StepOutput(losses, weights={"attraction": self._weight, "dispersion": self._weight * decay})
