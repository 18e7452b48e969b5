"""`cdan`: adversarial alignment with a discriminator that is conditioned on the predictions."""

import torch
from torch import Tensor

from scale_ray.losses import certainty_weights, multilinear_map, randomised_multilinear_map
from scale_ray.methods.base import MethodContext
from scale_ray.methods.dann import Dann
from scale_ray.models import Network

# The paper's rule: an outer product of more than 4,096 numbers is replaced by 1,024 random projections of it.
_LARGEST_MAP, _RANDOM_MAP = 4096, 1024


class Cdan(Dann):
    """`dann` on the multilinear map of hidden layer and class probabilities; CDAN+E with `entropy_conditioning`.

    If hidden width x classes is at most 4,096 (digits, PACS), the map is exact. Otherwise (Office-Home) it is the
    paper's randomised map with 1,024 outputs; its matrices are drawn once and are part of the state. The probabilities
    and their entropy are detached.
    """

    paper = "Long et al., Conditional Adversarial Domain Adaptation, NeurIPS 2018, https://arxiv.org/abs/1705.10667"
    defaults = "weight 1 and no entropy conditioning from the authors' code and TLLib; gamma 10 as in dann"
    reads = frozenset({"weight", "transfer_from", "reversal_gamma", "entropy_conditioning"})

    of_features: Tensor
    of_probabilities: Tensor

    def __init__(self, student: Network, context: MethodContext):
        super().__init__(student, context)
        width, num_classes = context.config.model.hidden_dim, context.num_classes
        self.exact = width * num_classes <= _LARGEST_MAP
        if not self.exact:
            self.register_buffer("of_features", torch.randn(width, _RANDOM_MAP))
            self.register_buffer("of_probabilities", torch.randn(num_classes, _RANDOM_MAP))

    def _input_width(self, width: int, num_classes: int) -> int:
        products = width * num_classes
        return products if products <= _LARGEST_MAP else _RANDOM_MAP

    def _discriminator_input(self, features: Tensor, probabilities: Tensor) -> Tensor:
        if self.exact:
            return multilinear_map(features, probabilities)
        return randomised_multilinear_map(features, probabilities, self.of_features, self.of_probabilities)

    def _image_weights(self, probabilities: Tensor) -> Tensor | None:
        return certainty_weights(probabilities) if self.config.baseline.entropy_conditioning else None
