"""The evaluator: the only code that reads target labels.

It only counts correct predictions with them, and passes no target labels to the validators. A target may have none.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from scale_ray.data.batches import Images, LabelledImages
from scale_ray.data.views import evaluation_view
from scale_ray.models import Student, Teacher
from scale_ray.models.domain_norm import whole_target_statistics
from scale_ray.models.student import DomainRole
from scale_ray.training.evidence import MIX_SHARE, Common, Evidence, Mixed, Predictions, mixed_pairs, sample_indices
from scale_ray.training.failures import TrainingDiverged
from scale_ray.training.validators import scores
from scale_ray.workers import ALONE, Workers

_BATCH = 256

Confusion = list[list[int]]  # number of images by true class (rows) and predicted class (columns)


@dataclass(frozen=True)
class Accuracies:
    """Accuracies in percent, and the validators' scores of the same predictions.

    Attributes:
        target: target domain -> accuracy of the student on the whole domain; None if its labels are not known.
        teacher: target domain -> likewise of the teacher; None if the method has none.
        source_val: accuracy of the student on the held-out source images.
        confusion: target domain with labels -> confusion matrix of the student on the whole domain.
        validators: target domain -> validator -> score of the student; empty in states written by older versions.
        agreement: target domain -> percent of its images on which student and teacher agree; empty without a teacher.
        predicted: target domain -> number of its images by the class that the student predicts.
    """

    target: dict[str, float | None]
    teacher: dict[str, float | None] | None
    source_val: float
    confusion: dict[str, Confusion]
    validators: dict[str, dict[str, float]] = field(default_factory=dict)
    agreement: dict[str, float] = field(default_factory=dict)
    predicted: dict[str, list[int]] = field(default_factory=dict)


class Evaluator:
    """Evaluates a student and its teacher on images whose labels training has no access to.

    Args:
        targets: target domain -> the whole domain, with labels where there are any. A training that reads no target may
            be evaluated on several targets, one for each cell that it answers.
        source_val: the held-out source images.
        source_train: the source images for training, a sample of which the validators use.
        num_classes: K.
        size: side of the evaluation view in pixels.
        view: the evaluation view, which makes the models' input from a stored batch.
        device: the device of the models.
        common: makes pooled features (B, D) of the encoder with its first weights from a stored batch; None if these
            are random.
        whole_statistics: predict every target with BatchNorm's statistics of all its images, see
            `whole_target_statistics`.
        workers: the processes that evaluate together. Each image is predicted by one of them; all get all predictions.
    """

    def __init__(
        self,
        targets: Mapping[str, Images],
        source_val: LabelledImages,
        source_train: LabelledImages,
        *,
        num_classes: int,
        size: int,
        view: Callable[..., Tensor] = evaluation_view,
        device: torch.device,
        common: Callable[[Tensor], Tensor] | None = None,
        whole_statistics: bool = False,
        workers: Workers = ALONE,
    ):
        self._whole_statistics, self._common_features = whole_statistics, common
        self._targets, self._source_val, self._num_classes = targets, source_val, num_classes
        sample = sample_indices(len(source_train.indices)).numpy()
        self._source_train = LabelledImages(
            source_train.images, source_train.indices[sample], source_train.labels[sample]
        )
        self._view, self._device, self._workers = partial(view, size=size), device, workers

    def measure(
        self,
        student: Student,
        teacher: Teacher | None,
        on_life: Callable[[], None] = lambda: None,
        *,
        last: bool = False,
    ) -> Accuracies:
        """Compute accuracies and scores, with running statistics in BatchNorm. The models' modes are restored.

        Args:
            student: evaluated on source and targets.
            teacher: evaluated on the targets; None if there is none.
            on_life: called after every batch.
            last: whether it is the last point of the curve, which has the scores of LAST_POINT_VALIDATORS too.

        Raises:
            TrainingDiverged: a prediction of the student is not finite.
        """
        source_val = self._predict(student, self._source_val, "source", on_life)
        source_train = self._predict(student, self._source_train, "source", on_life)
        source_val_labels = torch.from_numpy(self._source_val.labels)
        class_weights = student.class_weights()
        if class_weights is not None:
            class_weights = class_weights.detach().double().cpu()
        confusion, validators, predicted, agreement = {}, {}, {}, {}
        of_teacher: dict[str, float | None] = {}
        for domain, images in self._targets.items():
            with self.ready_for(student, domain, on_life):
                predictions = self._predict(student, images, "target", on_life)
                mixed = self._mixed(student, images, predictions, on_life) if last else None
            labels = predictions.logits.argmax(dim=1)
            predicted[domain] = torch.bincount(labels, minlength=self._num_classes).tolist()
            if isinstance(images, LabelledImages):
                confusion[domain] = self._confusion(labels, images.labels)
            if teacher is not None:
                by_teacher = self._logits(teacher.module, domain, on_life).argmax(dim=1)
                agreement[domain] = 100 * int((by_teacher == labels).sum()) / len(labels)
                of_teacher[domain] = self._accuracy_of(by_teacher, images)
            common = self._common(domain, predictions.sample, on_life) if last else None
            evidence = Evidence(source_train, source_val, source_val_labels, predictions, class_weights, mixed, common)
            validators[domain] = scores(evidence, last=last)
        return Accuracies(
            target={domain: _accuracy(confusion[domain]) if domain in confusion else None for domain in self._targets},
            teacher=None if teacher is None else of_teacher,
            source_val=_accuracy(self._confusion(source_val.logits.argmax(dim=1), self._source_val.labels)),
            confusion={domain: counts.tolist() for domain, counts in confusion.items()},
            validators=validators,
            agreement=agreement,
            predicted=predicted,
        )

    def probabilities(self, student: Student, on_life: Callable[[], None] = lambda: None) -> dict[str, Tensor]:
        """Class probabilities (N, K) of every target domain's images in order, float64 on the CPU.

        They come from the logits that `measure` counts, in one more pass over the targets.
        """
        return {domain: self._logits(student, domain, on_life).softmax(dim=1) for domain in self._targets}

    @contextmanager
    def ready_for(self, network: Student, domain: str, on_life: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Within the block, the network predicts this target as it is measured on it: `model.target_statistics`.

        All workers enter it together.
        """
        images = self._targets[domain]
        # In a fixed random order: a folder's images come class by class, and a batch of one class is like no other.
        order = torch.randperm(len(images.indices), generator=torch.Generator().manual_seed(0))
        if not self._whole_statistics or len(order) < 2 * self._workers.size:
            yield
            return
        mine, inputs = order[self._workers.rank :: self._workers.size], self._stored(images)

        def predict(batch: Tensor) -> int:
            network.predict_with_features(inputs(batch), "target")
            on_life()
            return len(batch)

        modes = {module: module.training for module in network.modules()}
        network.eval()
        passes = [partial(predict, batch) for batch in mine.tensor_split(-(-len(mine) // _BATCH))]
        eager = torch.compiler.set_stance("force_eager")  # as in `_outputs`
        with eager, torch.no_grad(), whole_target_statistics(network, passes, self._workers.total):
            _restore(modes)
            with torch.enable_grad():
                yield

    def accuracy_of_labels(self, indices: Tensor, labels: Tensor) -> float | None:
        """Percent of the given pseudo-labels that are correct; None if there are none, or no labels to judge them by.

        Args:
            indices: (N,) indices of images in the only target domain; an index may occur repeatedly.
            labels: (N,) their pseudo-labels.
        """
        if len(indices) == 0:
            return None
        (images,) = self._targets.values()
        if not isinstance(images, LabelledImages):
            return None
        return 100 * float(np.mean(images.labels[indices.cpu().numpy()] == labels.cpu().numpy()))

    def _accuracy_of(self, predicted: Tensor, images: Images) -> float | None:
        """Percent of the predicted classes (N,) that are right; None if the labels are not known."""
        return _accuracy(self._confusion(predicted, images.labels)) if isinstance(images, LabelledImages) else None

    def _logits(self, network: Student, domain: str, on_life: Callable[[], None]) -> Tensor:
        """Logits (N, K) of a target's images in order, float64 on the CPU."""
        images, none = self._targets[domain], torch.empty(0, dtype=torch.long)
        with self.ready_for(network, domain, on_life):
            return self._outputs(network, self._stored(images), len(images.indices), none, "target", on_life)[0]

    def _predict(
        self, network: Student, images: Images, domain: DomainRole, on_life: Callable[[], None]
    ) -> Predictions:
        sample = sample_indices(len(images.indices))
        logits, features = self._outputs(network, self._stored(images), len(images.indices), sample, domain, on_life)
        if not (logits.isfinite().all() and features.isfinite().all()):
            raise TrainingDiverged("a prediction is not finite: lower optim.learning_rate or the loss weights")
        return Predictions(logits, sample, features)

    def _mixed(self, network: Student, images: Images, predictions: Predictions, on_life: Callable[[], None]) -> Mixed:
        """Predictions on mixes of the sampled images' evaluation views; with a frozen encoder, of their features."""
        predicted = predictions.logits[predictions.sample].argmax(dim=1)
        pairs = mixed_pairs(predicted)
        stored = self._stored(images)
        none = torch.empty(0, dtype=torch.long)

        def mixes(batch: Tensor) -> Tensor:
            first, second = (stored(predictions.sample[column]) for column in pairs[batch].T)
            return MIX_SHARE * first + (1 - MIX_SHARE) * second

        logits, _ = self._outputs(network, mixes, len(pairs), none, "target", on_life)
        return Mixed(predicted[pairs], logits)

    def _common(self, domain: str, sample: Tensor, on_life: Callable[[], None]) -> Common | None:
        """The sampled images of source and target in the space of the encoder's first weights."""
        if self._common_features is None:
            return None
        source, target = self._source_train, self._targets[domain]
        rows = (source.indices, target.indices[sample.numpy()])
        found = [self._encoded(each.images, of, on_life) for each, of in zip((source, target), rows, strict=True)]
        return Common(found[0], torch.from_numpy(source.labels), found[1])

    @torch.inference_mode()
    def _encoded(self, images: np.ndarray, rows: np.ndarray, on_life: Callable[[], None]) -> Tensor:
        """Features (n, D) of the encoder's first weights, float64 on the CPU. Each worker makes some of them."""
        assert self._common_features is not None
        mine = np.arange(len(rows))[self._workers.rank :: self._workers.size]
        whole: Tensor | None = None
        for start in range(0, len(mine), _BATCH):
            batch = mine[start : start + _BATCH]
            found = self._common_features(torch.from_numpy(images[rows[batch]]).to(self._device)).double()
            whole = found.new_zeros(len(rows), found.shape[1]) if whole is None else whole
            whole[torch.from_numpy(batch).to(self._device)] = found
            on_life()
        assert whole is not None, "a split has at least as many images as a training has workers"
        return self._workers.total(whole).cpu()

    def _stored(self, images: Images) -> Callable[[Tensor], Tensor]:
        """A function that makes the model's input from places (B,) among these images."""

        def inputs(batch: Tensor) -> Tensor:
            return self._view(torch.from_numpy(images.images[images.indices[batch.numpy()]]).to(self._device))

        return inputs

    @torch.inference_mode()
    def _outputs(
        self,
        network: Student,
        inputs: Callable[[Tensor], Tensor],
        count: int,
        sample: Tensor,
        domain: DomainRole,
        on_life: Callable[[], None],
    ) -> tuple[Tensor, Tensor]:
        """Logits (N, K) of all inputs and features (n, D) of those in `sample`, float64 on the CPU.

        Args:
            network: predicts.
            inputs: gets places (B,) and makes the model's input.
            count: N.
            sample: (n,) places.
            domain: of the images.
            on_life: called after every batch.

        Every worker predicts its own images and leaves the rows of the others zero; the workers' results are summed.
        """
        modes = {module: module.training for module in network.modules()}
        network.eval()
        mine = torch.arange(count)[self._workers.rank :: self._workers.size]
        feature_row = torch.full((count,), -1)
        feature_row[sample] = torch.arange(len(sample))
        logits = torch.zeros(count, self._num_classes, dtype=torch.float64, device=self._device)
        features = torch.zeros(len(sample), network.feature_dim, dtype=torch.float64, device=self._device)
        # Compiled encoders run eagerly here, as every batch size would be compiled separately.
        with torch.compiler.set_stance("force_eager"):
            for start in range(0, len(mine), _BATCH):
                batch = mine[start : start + _BATCH]
                predicted, pooled = network.predict_with_features(inputs(batch), domain)
                logits[batch] = predicted.double()
                sampled = feature_row[batch] >= 0
                features[feature_row[batch][sampled]] = pooled[sampled].double()
                on_life()
        _restore(modes)
        return self._workers.total(logits).cpu(), self._workers.total(features).cpu()

    def _confusion(self, predicted: Tensor, labels: np.ndarray) -> Tensor:
        """(K, K) number of images by true class and predicted class (N,)."""
        pairs = torch.from_numpy(labels) * self._num_classes + predicted
        return torch.bincount(pairs, minlength=self._num_classes**2).reshape(self._num_classes, -1)


def _accuracy(counts: Tensor) -> float:
    return 100 * int(counts.trace()) / int(counts.sum())


def _restore(modes: dict[nn.Module, bool]) -> None:
    """Restore the mode of every module. `train()` is not used, as it also switches a module's children."""
    for module, training in modes.items():
        module.training = training
