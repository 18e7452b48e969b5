"""`dann`: adversarial alignment; the student learns features from which a discriminator cannot tell the domain."""

import torch
from torch import Tensor

from scale_ray.losses import discrimination, reversal_coefficient, reverse_gradient
from scale_ray.methods.base import MethodContext
from scale_ray.methods.baseline import Transfer
from scale_ray.models import Network, Outputs, domain_discriminator


class Dann(Transfer):
    """A domain discriminator on the hidden layer, whose gradient reaches the student reversed.

    The discriminator's layers are as wide as the hidden layer: 1,024 on Office-Home, as in TLLib, and 128 on digits,
    where the paper uses 100. It learns at the heads' learning rate. The reversal coefficient scales the student's
    gradient only.
    """

    paper = "Ganin et al., Domain-Adversarial Training of Neural Networks, JMLR 2016, https://arxiv.org/abs/1505.07818"
    defaults = "gamma 10 from the paper, section 5.2.2; weight 1 and the discriminator's layers from TLLib"
    reads = frozenset({"weight", "transfer_from", "reversal_gamma"})
    term = "domain"

    def __init__(self, student: Network, context: MethodContext):
        super().__init__(student, context)
        width = context.config.model.hidden_dim
        self.discriminator = domain_discriminator(self._input_width(width, context.num_classes), width)

    def transfer(self, step: int, source: Outputs, target: Outputs) -> Tensor:
        assert source.hidden is not None
        assert target.hidden is not None
        features = torch.cat([source.hidden, target.hidden])
        probabilities = torch.cat([source.logits, target.logits]).softmax(dim=1).detach()
        coefficient = reversal_coefficient(self.progress(step), self.config.baseline.reversal_gamma)
        inputs = reverse_gradient(self._discriminator_input(features, probabilities), coefficient)
        source_scores, target_scores = self.discriminator(inputs).split([len(source.hidden), len(target.hidden)])
        return discrimination(source_scores, target_scores, self._image_weights(probabilities))

    def _input_width(self, width: int, num_classes: int) -> int:
        """Number of inputs of the discriminator per image."""
        return width

    def _discriminator_input(self, features: Tensor, probabilities: Tensor) -> Tensor:
        """(N, inputs) from the hidden layer (N, width) and the class probabilities (N, K)."""
        return features

    def _image_weights(self, probabilities: Tensor) -> Tensor | None:
        """(N,) weights of the images in the discriminator's loss; None weights all equally."""
        return None
