"""The teacher: a slow copy of the student that is never optimised (METHOD 1)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from scale_ray.models.network import Network, batch_norms


class Teacher(AveragedModel):
    """theta' <- a theta' + (1 - a) theta with a = min(1 - 1/(t + 1), alpha), for parameters and BatchNorm buffers.

    Starts as a copy of the student. In its forward passes, BatchNorm uses the batch's own statistics and leaves the
    running ones alone, dropout is off: with running statistics of mixed domains pseudo-labels collapsed. After
    `eval()` it predicts with running statistics like any model. Where the student's BatchNorm is frozen so is the
    teacher's: both normalise alike, always.

    Args:
        student: copied, heads too.
        momentum: alpha.
    """

    module: Network

    def __init__(self, student: Network, momentum: float):
        def average(teacher: Sequence[Tensor], student: Sequence[Tensor], steps: Tensor | int) -> None:
            if teacher[0].is_floating_point():
                keep = min(1 - 1 / (int(steps) + 1), momentum)
                torch._foreach_lerp_(list(teacher), list(student), 1 - keep)
            else:  # BatchNorm's count of batches is not a quantity to average
                torch._foreach_copy_(list(teacher), list(student))

        super().__init__(student, multi_avg_fn=average, use_buffers=True)
        self.requires_grad_(False)
        self.label_mode()

    def label_mode(self) -> None:
        """Ready for pseudo-labelling: BatchNorm on batch statistics, everything else in evaluation mode."""
        self.eval()
        if self.module.frozen:
            return
        for layer in batch_norms(self):
            layer.train()
            # Without tracking, a training forward normalises by the batch and touches no buffer.
            layer.track_running_stats = False
