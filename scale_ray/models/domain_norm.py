"""BatchNorm with separate running statistics for each domain (`model.batch_norm=domain`)."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class DomainBatchNorm(_BatchNorm):
    """A BatchNorm with separate running statistics for source and target; scale and shift are shared.

    In training mode it normalises by the batch, like any BatchNorm, so it trains exactly as `separate` does, bit for
    bit; only predictions differ. Until the first target batch, the target's statistics are copies of the source's; this
    holds for a teacher's averages of them too. The idea is from Chang et al., Domain-Specific Batch Normalization, CVPR
    2019 (https://arxiv.org/abs/1906.03950), who also separate scale and shift.

    Args:
        original: the BatchNorm to replace; its parameters and statistics are taken over.

    Attributes:
        on_target: whether the input belongs to the target; initially false.
    """

    running_mean: Tensor
    running_var: Tensor
    momentum: float
    target_mean: Tensor
    target_var: Tensor
    target_batches: Tensor

    def __init__(self, original: _BatchNorm):
        assert original.momentum is not None, "a cumulative average would need the count on the host"
        super().__init__(original.num_features, original.eps, original.momentum, original.affine)
        # A BatchNorm of timm may end in a dropout and an activation, which are parts of it.
        self.drop, self.act = (getattr(original, name, nn.Identity()) for name in ("drop", "act"))
        self.load_state_dict(original.state_dict())
        self.register_buffer("target_mean", self.running_mean.clone())
        self.register_buffer("target_var", self.running_var.clone())
        self.register_buffer("target_batches", torch.zeros((), dtype=torch.long))
        self.on_target = False

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept any number of dimensions, like SyncBatchNorm: this class replaces BatchNorm1d and BatchNorm2d."""

    def forward(self, input: Tensor) -> Tensor:
        return self.act(self.drop(self._normalise(input)))

    def _normalise(self, input: Tensor) -> Tensor:
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
        """Copy the source's statistics until the first target batch; the host does not wait for the device."""
        seen = self.target_batches > 0
        self.target_mean.copy_(torch.where(seen, self.target_mean, self.running_mean))
        self.target_var.copy_(torch.where(seen, self.target_var, self.running_var))


@contextmanager
def whole_target_statistics(
    network: nn.Module, passes: Iterable[Callable[[], int]], total: Callable[[Tensor], Tensor]
) -> Iterator[None]:
    """Within the block, every DomainBatchNorm has the target's mean and variance over all images of some passes.

    A pass normalises by its own batch, as training does: later layers see what they will see. Li et al., Adaptive Batch
    Normalization (https://arxiv.org/abs/1603.04779); averaged over batches as Wu and Johnson, Rethinking "Batch" in
    BatchNorm (https://arxiv.org/abs/2105.07576), section 3.1.

    Args:
        network: in evaluation mode.
        passes: each predicts a batch of at least two target images, and returns their number.
        total: sums a tensor over all workers.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, DomainBatchNorm)]
    if not layers:
        yield
        return
    kept = [(layer.target_mean.clone(), layer.target_var.clone(), layer.target_batches.clone()) for layer in layers]
    moments = [layer.target_mean.new_zeros(2, layer.num_features, dtype=torch.float64) for layer in layers]
    before = [(layer.momentum, layer.track_running_stats) for layer in layers]
    images = 0
    for layer in layers:
        layer.momentum, layer.track_running_stats = 1.0, True  # the running statistics are those of the last batch
        layer.train()
    for predict in passes:
        count = predict()
        images += count
        for layer, sums in zip(layers, moments, strict=True):
            mean = layer.target_mean.double()
            sums += count * torch.stack([mean, layer.target_var.double() + mean.square()])
    counted = total(torch.tensor(float(images), device=moments[0].device))
    for layer, sums, (momentum, tracks) in zip(layers, moments, before, strict=True):
        layer.eval()
        layer.momentum, layer.track_running_stats = momentum, tracks
        mean, square = total(sums) / counted
        layer.target_mean.copy_(mean)
        layer.target_var.copy_(square - mean.square())
    try:
        yield
    finally:
        for layer, (mean, var, batches) in zip(layers, kept, strict=True):
            layer.target_mean.copy_(mean)
            layer.target_var.copy_(var)
            layer.target_batches.copy_(batches)


def without_target_statistics(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict without what DomainBatchNorm adds to that of a BatchNorm."""
    added = {
        f"{layer}.{name}"
        for layer in (name.removesuffix(".target_batches") for name in state if name.endswith(".target_batches"))
        for name in ("target_mean", "target_var", "target_batches")
    }
    return {name: value for name, value in state.items() if name not in added}


def split_by_domain(module: nn.Module) -> None:
    """Replace every BatchNorm below `module` by a DomainBatchNorm. Names in the state dict stay; others are added."""
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm):
            setattr(module, name, DomainBatchNorm(child))
        else:
            split_by_domain(child)
