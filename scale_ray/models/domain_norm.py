"""BatchNorm with running statistics of each domain (model.batch_norm = domain)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class DomainBatchNorm(_BatchNorm):
    """A BatchNorm that keeps the target's running statistics apart from the source's; scale and shift are shared.

    In training it normalises by the batch like any other, so that it trains what `separate` does, bit for bit: it is
    predictions that differ. Until a batch of the target has been seen, its statistics follow the source's, and both
    start from there; a teacher's average of them does too. The idea is that of Chang et al., Domain-Specific Batch
    Normalization, CVPR 2019 (https://arxiv.org/abs/1906.03950), which keeps scale and shift apart too.

    Args:
        like: the BatchNorm whose place it takes, with its parameters and statistics.

    Attributes:
        on_target: whether what comes is of the target; the source until it is told.
    """

    running_mean: Tensor
    running_var: Tensor
    momentum: float
    target_mean: Tensor
    target_var: Tensor
    target_batches: Tensor

    def __init__(self, like: _BatchNorm):
        assert like.momentum is not None, "a cumulative average would need the count on the host"
        super().__init__(like.num_features, like.eps, like.momentum, like.affine)
        self.load_state_dict(like.state_dict())
        self.register_buffer("target_mean", self.running_mean.clone())
        self.register_buffer("target_var", self.running_var.clone())
        self.register_buffer("target_batches", torch.zeros((), dtype=torch.long))
        self.on_target = False

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions, as SyncBatchNorm: it takes the place of both BatchNorm1d and BatchNorm2d."""

    def forward(self, input: Tensor) -> Tensor:
        updates = self.training and self.track_running_stats
        if not self.on_target:
            output = super().forward(input)
            if updates:
                self._follow_the_source()
            return output
        if updates:
            self.target_batches.add_(1)
        batch_alone = self.training and not updates
        mean, var = (None, None) if batch_alone else (self.target_mean, self.target_var)
        return F.batch_norm(input, mean, var, self.weight, self.bias, self.training, self.momentum, self.eps)

    def _follow_the_source(self) -> None:
        """Without asking the device whether a target batch has come."""
        seen = self.target_batches > 0
        self.target_mean.copy_(torch.where(seen, self.target_mean, self.running_mean))
        self.target_var.copy_(torch.where(seen, self.target_var, self.running_var))


def split_by_domain(module: nn.Module) -> None:
    """Put a DomainBatchNorm in place of every BatchNorm below `module`; names in its state dict stay, others come."""
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm):
            setattr(module, name, DomainBatchNorm(child))
        else:
            split_by_domain(child)
