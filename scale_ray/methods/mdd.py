"""`mdd`: a second classifier that disagrees with the student on the target; the features leave it no room to."""

import torch
from torch import Tensor

from scale_ray.losses import margin_disparity, reversal_coefficient, reverse_gradient
from scale_ray.methods.base import MethodContext
from scale_ray.methods.baseline import Transfer
from scale_ray.models import Network, Outputs, auxiliary_classifier

# The coefficient's limit in the authors' code and in TLLib: 1, as in dann, would outweigh the margin of 4.
_HIGHEST = 0.1


class Mdd(Transfer):
    """Margin disparity discrepancy between the domains, on the hidden layer, through a gradient reversal.

    The auxiliary classifier learns at the heads' rate and is dropped after training. It has TLLib's two layers, as wide
    as the hidden layer, without dropout: every worker computes it for all images, and must get the same.

    Differences from TLLib: the student's head is that of all methods, one Linear on the hidden layer; the length over
    which the coefficient grows to 0.1 follows the training, `baseline.reversal_gamma` times its share that is done, and
    not 1,000 steps (of 20,000, that is gamma 20: `USUAL` in usual.py).
    """

    paper = (
        "Zhang et al., Bridging Theory and Algorithm for Domain Adaptation, ICML 2019, https://arxiv.org/abs/1904.05801"
    )
    defaults = (
        "weight 1, margin 4, reversal up to 0.1 and the auxiliary classifier's layers from TLLib, "
        "examples/domain_adaptation/image_classification/mdd.py"
    )
    reads = frozenset({"weight", "transfer_from", "reversal_gamma", "margin"})
    term = "disparity"

    def __init__(self, student: Network, context: MethodContext):
        super().__init__(student, context)
        self.auxiliary = auxiliary_classifier(context.config.model.hidden_dim, context.num_classes)

    def transfer(self, step: int, source: Outputs, target: Outputs) -> Tensor:
        assert source.hidden is not None
        assert target.hidden is not None
        coefficient = _HIGHEST * reversal_coefficient(self.progress(step), self.config.baseline.reversal_gamma)
        hidden = reverse_gradient(torch.cat([source.hidden, target.hidden]), coefficient)
        source_scores, target_scores = self.auxiliary(hidden).split([len(source.hidden), len(target.hidden)])
        margin = self.config.baseline.margin
        return margin_disparity(source.logits, source_scores, target.logits, target_scores, margin)
