"""`shot`: source hypothesis transfer, information maximisation and centroid pseudo-labels under a frozen classifier."""

import torch
import torch.nn.functional as F
from torch import Tensor

from scale_ray.data.batches import TargetBatch
from scale_ray.losses import cross_entropy, information_maximisation
from scale_ray.methods.base import MethodContext, StepOutput
from scale_ray.methods.source_free import SourceFree
from scale_ray.models import Network
from scale_ray.models.centroids import centroid_labels
from scale_ray.models.neighbours import on_device, take_sizes

_PSEUDO_LABEL_WEIGHT = 0.3


class Shot(SourceFree):
    """On the target, the features learn to fit the source's last layer, which is the hypothesis and stays as it is.

    The loss is the entropy of a prediction minus that of the batch's mean prediction, plus 0.3 x cross-entropy with
    pseudo-labels, all on the weak view. The pseudo-labels are the nearest centroids of the whole target
    (models/centroids.py), found at the switch and again after as many steps as give each target image once.

    Cost: a step makes one student pass. Each search for pseudo-labels makes one forward pass over the target, so on the
    target the cost is that of a student pass and a teacher pass.

    Differences from the authors' code (https://github.com/tim-learn/SHOT), besides those of `SourceFree`: the features
    of the centroids have no constant coordinate appended; the constant log K is part of the reported loss `im`.
    """

    paper = (
        "Liang et al., Do We Really Need to Access the Source Data? Source Hypothesis Transfer for Unsupervised Domain "
        "Adaptation, ICML 2020, https://arxiv.org/abs/2002.08546"
    )
    defaults = (
        "weights, label smoothing and learning rate of the authors' code for Office-Home, which trains for 20 epochs "
        "on the source and 15 on the target; here half of the steps each"
    )
    reads = frozenset({"source_share"})
    labels_target = True

    labels: Tensor  # (N,) of all target images; none before the switch

    def __init__(self, student: Network, context: MethodContext):
        super().__init__(student, context)
        self._epoch = max(1, -(-context.target_images // context.config.optim.batch_size))
        self.register_buffer("labels", torch.zeros(0, dtype=torch.long))
        take_sizes(self, "labels")

    def surveys(self, step: int) -> bool:
        return step >= self.switch and (step - self.switch) % self._epoch == 0

    def look(self, hidden: Tensor, probabilities: Tensor) -> None:
        self.labels = centroid_labels(hidden, probabilities)

    def adapt(self, step: int, target: TargetBatch) -> StepOutput:
        logits = self._by_hypothesis(self.on_target(target).hidden)
        labels = self.labels[on_device(target.indices, self.labels.device)]
        losses = {"im": information_maximisation(logits), "centroid": cross_entropy(logits, labels)}
        return StepOutput(losses, labels, weights={"im": 1.0, "centroid": _PSEUDO_LABEL_WEIGHT})

    def _by_hypothesis(self, hidden: Tensor | None) -> Tensor:
        """Logits (B, K) of the hidden layer, by a last layer that gets no gradient and so is not optimised."""
        last = self.student.classifier[-1]
        assert hidden is not None
        assert isinstance(last, torch.nn.Linear)
        return F.linear(hidden, last.weight.detach(), last.bias.detach())
