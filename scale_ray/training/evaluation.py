"""The evaluator: the only code that reads target labels, and it only counts. What it tells validators has none."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from scale_ray.data.batches import LabelledImages
from scale_ray.data.views import evaluation_view
from scale_ray.errors import UserError
from scale_ray.models import Student, Teacher
from scale_ray.models.student import DomainRole
from scale_ray.training.validators import Evidence, Predictions, sample_places, scores
from scale_ray.workers import ALONE, Workers

_BATCH = 256


Confusion = list[list[int]]  # images by true class (rows) and prediction (columns)


class TrainingDiverged(UserError):
    """A loss or a prediction is no longer a finite number."""


@dataclass(frozen=True)
class Accuracies:
    """Percent of images classified right, and what the validators make of the same predictions."""

    target: dict[str, float]  # target domain -> student, over the whole domain
    teacher: dict[str, float] | None  # target domain -> teacher; None where the method keeps none
    source_val: float  # student, held-out source images
    confusion: dict[str, Confusion]  # target domain -> student, over the whole domain
    # Target domain -> validator -> the student's score; empty in states that older versions left.
    validators: dict[str, dict[str, float]] = field(default_factory=dict)


class Evaluator:
    """Measures a student and its teacher on images that it alone holds.

    Args:
        targets: target domain -> the whole domain with labels. More than one where a training that reads no target
            answers several cells at once.
        source_val: the held-out source images.
        source_train: the source images that are trained on; a sample of them is shown to the validators.
        num_classes: K.
        size: side of the evaluation view in pixels.
        view: what the models are given of a batch of images.
        device: where the models are.
        workers: who measures; each image is one worker's, and all learn all predictions.
    """

    def __init__(
        self,
        targets: Mapping[str, LabelledImages],
        source_val: LabelledImages,
        source_train: LabelledImages,
        *,
        num_classes: int,
        size: int,
        view: Callable[..., Tensor] = evaluation_view,
        device: torch.device,
        workers: Workers = ALONE,
    ):
        self._targets, self._source_val, self._num_classes = targets, source_val, num_classes
        sample = sample_places(len(source_train.places)).numpy()
        self._source_train = LabelledImages(
            source_train.images, source_train.places[sample], source_train.labels[sample]
        )
        self._view, self._device, self._workers = partial(view, size=size), device, workers

    def measure(self, student: Student, teacher: Teacher | None) -> Accuracies:
        """Accuracies and scores with running BatchNorm statistics; the models come back in the mode in which they were.

        Raises:
            TrainingDiverged: a prediction of the student is not finite.
        """
        source_val = self._predict(student, self._source_val, "source")
        source_train = self._predict(student, self._source_train, "source")
        source_val_labels = torch.from_numpy(self._source_val.labels)
        confusion, validators = {}, {}
        for domain, images in self._targets.items():
            predictions = self._predict(student, images, "target")
            confusion[domain] = self._confusion(predictions.logits, images.labels)
            validators[domain] = scores(Evidence(source_train, source_val, source_val_labels, predictions))
        return Accuracies(
            target={domain: _accuracy(counts) for domain, counts in confusion.items()},
            teacher=None if teacher is None else self._on_targets(teacher.module),
            source_val=_accuracy(self._confusion(source_val.logits, self._source_val.labels)),
            confusion={domain: counts.tolist() for domain, counts in confusion.items()},
            validators=validators,
        )

    def accuracy_of_labels(self, places: Tensor, labels: Tensor) -> float | None:
        """Percent right of pseudo-labels that training used; None of none.

        Args:
            places: (N,) images of the only target domain, repeated ones too.
            labels: (N,) what they were taken for.
        """
        if len(places) == 0:
            return None
        (images,) = self._targets.values()
        return 100 * float(np.mean(images.labels[places.cpu().numpy()] == labels.cpu().numpy()))

    def _on_targets(self, network: Student) -> dict[str, float]:
        """Accuracies alone."""
        none = torch.empty(0, dtype=torch.long)
        return {
            domain: _accuracy(self._confusion(self._outputs(network, images, none, "target")[0], images.labels))
            for domain, images in self._targets.items()
        }

    def _predict(self, network: Student, images: LabelledImages, domain: DomainRole) -> Predictions:
        sample = sample_places(len(images.places))
        logits, features = self._outputs(network, images, sample, domain)
        if not (logits.isfinite().all() and features.isfinite().all()):
            raise TrainingDiverged("a prediction is not finite: lower optim.learning_rate or weights")
        return Predictions(logits, sample, features)

    @torch.inference_mode()
    def _outputs(
        self, network: Student, images: LabelledImages, sample: Tensor, domain: DomainRole
    ) -> tuple[Tensor, Tensor]:
        """Logits (N, K) of all images, features (n, D) of those in `sample`: float64 on the CPU.

        Every worker forwards its own images; rows of the others are zero until all are added up.
        """
        modes = {module: module.training for module in network.modules()}
        network.eval()
        places = images.places
        mine = torch.arange(len(places))[self._workers.rank :: self._workers.size]
        row = torch.full((len(places),), -1)
        row[sample] = torch.arange(len(sample))
        logits = torch.zeros(len(places), self._num_classes, dtype=torch.float64, device=self._device)
        features = torch.zeros(len(sample), network.feature_dim, dtype=torch.float64, device=self._device)
        # Compiled encoders run as they were written here: each size of batch would be compiled by itself.
        with torch.compiler.set_stance("force_eager"):
            for start in range(0, len(mine), _BATCH):
                batch = mine[start : start + _BATCH]
                stored = torch.from_numpy(images.images[places[batch.numpy()]]).to(self._device)
                predicted, pooled = network.predict_with_features(self._view(stored), domain)
                logits[batch] = predicted.double()
                sampled = row[batch] >= 0
                features[row[batch][sampled]] = pooled[sampled].double()
        _restore(modes)
        return self._workers.total(logits).cpu(), self._workers.total(features).cpu()

    def _confusion(self, logits: Tensor, labels: np.ndarray) -> Tensor:
        """(K, K) images by true class and prediction."""
        pairs = torch.from_numpy(labels) * self._num_classes + logits.argmax(dim=1)
        return torch.bincount(pairs, minlength=self._num_classes**2).reshape(self._num_classes, -1)


def _accuracy(counts: Tensor) -> float:
    return 100 * int(counts.trace()) / int(counts.sum())


def _restore(modes: dict[nn.Module, bool]) -> None:
    """Put every module back by itself: `train()` would also switch its children."""
    for module, training in modes.items():
        module.training = training
