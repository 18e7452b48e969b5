"""The teacher: a moving average of the student that is never optimised (docs/method.md, section 1)."""

from itertools import chain

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from scale_ray.models.network import Network, batch_norms


class Teacher(AveragedModel):
    """theta' <- a theta' + (1 - a) theta with a = min(1 - 1/(t + 1), alpha), for parameters and BatchNorm buffers.

    It starts as a copy of the student. In its forward passes BatchNorm uses the statistics of the batch and does not
    update the running ones, and dropout is off: with running statistics of mixed domains the pseudo-labels collapsed.
    After `eval()` it predicts with running statistics, like any model. If the student's BatchNorm is frozen, the
    teacher's is too, and both always normalise in the same way.

    Args:
        student: the network to copy, heads included.
        momentum: alpha.
    """

    module: Network

    def __init__(self, student: Network, momentum: float):
        super().__init__(student, use_buffers=True)
        self._momentum = momentum
        # The number in n_averaged, kept on the host: reading that buffer from a GPU would make every step wait.
        self._updates = 0
        self.register_load_state_dict_post_hook(_read_updates)
        self.requires_grad_(False)
        self.label_mode()

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Update from the student `model`, as AveragedModel does with `multi_avg_fn`, without reading n_averaged."""
        averaged: list[tuple[Tensor, Tensor]] = []
        copied: list[tuple[Tensor, Tensor]] = []
        tensors = (chain(each.parameters(), each.buffers()) for each in (self.module, model))
        for mine, theirs in zip(*tensors, strict=True):
            # The first update copies. Integer buffers, BatchNorm's counts of batches, are always copied.
            (averaged if self._updates and mine.is_floating_point() else copied).append((mine, theirs))
        if averaged:
            keep = min(1 - 1 / (self._updates + 1), self._momentum)
            torch._foreach_lerp_([mine for mine, _ in averaged], [theirs for _, theirs in averaged], 1 - keep)
        if copied:
            torch._foreach_copy_([mine for mine, _ in copied], [theirs for _, theirs in copied])
        self.n_averaged += 1
        self._updates += 1

    def label_mode(self) -> None:
        """Switch to the mode for pseudo-labels: BatchNorm uses batch statistics, all else is in evaluation mode."""
        self.eval()
        if self.module.frozen:
            return
        for layer in batch_norms(self):
            layer.train()
            # Without tracking, a forward pass in training mode normalises by the batch and changes no buffer.
            layer.track_running_stats = False


def _read_updates(teacher: nn.Module, keys: object) -> None:
    assert isinstance(teacher, Teacher)
    teacher._updates = int(teacher.n_averaged)
