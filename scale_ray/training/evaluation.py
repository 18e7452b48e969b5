"""The evaluator: the only code that reads target labels, and it only counts."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from scale_ray.data.batches import LabelledImages
from scale_ray.data.views import evaluation_view
from scale_ray.models import Network, Teacher
from scale_ray.workers import ALONE, Workers

_BATCH = 256


@dataclass(frozen=True)
class Accuracies:
    """Percent of images classified right."""

    target: dict[str, float]  # target domain -> student, over the whole domain
    teacher: dict[str, float] | None  # target domain -> teacher; None where the method keeps none
    source_val: float  # student, held-out source images


class Evaluator:
    """Measures a student and its teacher on images that it alone holds.

    Args:
        targets: target domain -> the whole domain with labels. More than one where a training that reads no target
            answers several cells at once.
        source_val: the held-out source images.
        size: side of the evaluation view in pixels.
        device: where the models are.
        workers: who measures; each image is one worker's, and all learn the whole count.
    """

    def __init__(
        self,
        targets: Mapping[str, LabelledImages],
        source_val: LabelledImages,
        *,
        size: int,
        device: torch.device,
        workers: Workers = ALONE,
    ):
        self._targets, self._source_val = targets, source_val
        self._size, self._device, self._workers = size, device, workers

    def measure(self, student: Network, teacher: Teacher | None) -> Accuracies:
        """Accuracies with running BatchNorm statistics; the models come back in the mode in which they were."""
        return Accuracies(
            target=self._on_targets(student),
            teacher=None if teacher is None else self._on_targets(teacher.module),
            source_val=self._accuracy(student, self._source_val),
        )

    def _on_targets(self, network: Network) -> dict[str, float]:
        return {domain: self._accuracy(network, images) for domain, images in self._targets.items()}

    @torch.inference_mode()
    def _accuracy(self, network: Network, images: LabelledImages) -> float:
        modes = {module: module.training for module in network.modules()}
        network.eval()
        mine = slice(self._workers.rank, None, self._workers.size)
        places, labels = images.places[mine], images.labels[mine]
        right = 0
        # Compiled encoders run as they were written here: each size of batch would be compiled by itself.
        with torch.compiler.set_stance("force_eager"):
            for start in range(0, len(places), _BATCH):
                rows = slice(start, start + _BATCH)
                pixels = torch.from_numpy(images.images[places[rows]]).to(self._device)
                predicted = network.predict(evaluation_view(pixels, size=self._size)).argmax(dim=1)
                right += int(np.sum(predicted.cpu().numpy() == labels[rows]))
        _restore(modes)
        return 100 * int(self._workers.total(torch.tensor(right, device=self._device))) / len(images.places)


def _restore(modes: dict[nn.Module, bool]) -> None:
    """Put every module back by itself: `train()` would also switch its children."""
    for module, training in modes.items():
        module.training = training
