"""What a training step is given. A source batch has labels; a target batch has no field that could hold any.

A batch is the same for any number of workers. B of its images are drawn; every worker gets the views of its own rows
(B / workers) and, since small numbers cost nothing to draw everywhere, the labels or places of all B.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import WeightedRandomSampler

from scale_ray.config import TrialConfig
from scale_ray.data.decoded import Domain
from scale_ray.data.feature_views import views_of
from scale_ray.workers import ALONE, Workers

# (stream, step) -> the generator of that step's randomness in that stream; the trial's seed is already in it.
Generators = Callable[[str, int], torch.Generator]


@dataclass(frozen=True)
class LabelledImages:
    """Some images of a domain with their labels; read from the memory-mapped array only when fetched."""

    images: np.ndarray  # (M, 3, R, R) uint8, the whole domain; features (M, 1 + 2V, D) where the encoder is frozen
    places: np.ndarray  # (N,) rows of `images` that belong here
    labels: np.ndarray  # (N,) int64


@dataclass(frozen=True)
class UnlabelledImages:
    """Decoded images (N, 3, R, R) uint8, or features (N, 1 + 2V, D): all that training gets of the target domain."""

    images: np.ndarray


@dataclass(frozen=True)
class SourceBatch:
    images: Tensor  # (B / workers, 3, S, S) float32, weak view; its features (B / workers, D) of a frozen encoder
    labels: Tensor  # (B,) int64, of all workers' images


@dataclass(frozen=True)
class TargetBatch:
    weak: Tensor  # (B / workers, 3, S, S) float32, or features (B / workers, D)
    strong: Tensor  # as weak, of the same images
    indices: Tensor  # (B,) int64 on the CPU: places of all in the target domain, for the running pseudo-labels


def hold_out(domain: Domain, share: float, generator: torch.Generator) -> tuple[LabelledImages, LabelledImages]:
    """Split a source domain into training and validation images, class by class.

    Every class with two images or more gives at least one to each side; a class with one image keeps it for training.
    """
    held_out = np.zeros(len(domain.labels), dtype=bool)
    for label in range(len(domain.classes)):
        places = np.flatnonzero(domain.labels == label)
        number = min(max(1, round(share * len(places))), len(places) - 1)
        held_out[places[torch.randperm(len(places), generator=generator)[:number].numpy()]] = True
    return _subset(domain, ~held_out), _subset(domain, held_out)


def _subset(domain: Domain, chosen: np.ndarray) -> LabelledImages:
    places = np.flatnonzero(chosen)
    return LabelledImages(domain.images, places, domain.labels[places])


class Batches:
    """This worker's part of source and target batches, each a function of (seed, step).

    With `class_balance = both` the target's also depends on the pseudo-labels observed so far; they are this object's
    only state, and `state` saves them.
    """

    def __init__(
        self,
        config: TrialConfig,
        source: LabelledImages,
        target: UnlabelledImages,
        num_classes: int,
        generators: Generators,
        device: torch.device,
        workers: Workers = ALONE,
    ):
        self._config = config
        self._workers = workers
        self._source, self._target = source, target
        self._views = views_of(config.model)
        self._generators = generators
        self._device = device
        self._num_classes = num_classes
        self._epoch_orders: dict[str, tuple[int, Tensor]] = {}
        balance = config.data.class_balance
        self._source_weights = (
            balanced_weights(torch.from_numpy(source.labels), num_classes, config.data.gamma)
            if balance != "off"
            else None
        )
        self._pseudo_labels = torch.full((len(target.images),), -1) if balance == "both" else None

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which as many source images are drawn as there are, rounded up."""
        return -(-len(self._source.labels) // self._config.optim.batch_size)

    def source(self, step: int) -> SourceBatch:
        """Step's source images, weak view, with labels."""
        indices = self._draw("source", step, len(self._source.labels), self._source_weights)
        images = self._fetch(self._source.images, self._source.places[indices.numpy()])
        view = self._view(self._views.weak, images, "source_weak", step)
        labels = torch.from_numpy(self._source.labels[indices.numpy()])
        # Out of pageable memory the copy would wait for all work queued on the GPU.
        labels = labels.pin_memory() if self._device.type == "cuda" else labels
        return SourceBatch(view, labels.to(self._device, non_blocking=True))

    def target(self, step: int) -> TargetBatch:
        """Step's target images, weak and strong view."""
        weights = None
        if self._pseudo_labels is not None:
            weights = balanced_weights(self._pseudo_labels, self._num_classes, self._config.data.gamma)
        indices = self._draw("target", step, len(self._target.images), weights)
        images = self._fetch(self._target.images, indices.numpy())
        return TargetBatch(
            weak=self._view(self._views.weak, images, "target_weak", step),
            strong=self._view(self._views.strong, images, "target_strong", step),
            indices=indices,
        )

    def observe(self, indices: Tensor, pseudo_labels: Tensor) -> None:
        """Remember the teacher's labels of a target batch; free unless `class_balance = both`."""
        if self._pseudo_labels is not None:
            self._pseudo_labels[indices] = pseudo_labels.cpu()

    def state(self) -> dict[str, Tensor]:
        return {} if self._pseudo_labels is None else {"pseudo_labels": self._pseudo_labels}

    def load_state(self, state: dict[str, Tensor]) -> None:
        # A training that goes on from one that read no target starts with none of its labels known.
        if self._pseudo_labels is not None and "pseudo_labels" in state:
            self._pseudo_labels.copy_(state["pseudo_labels"])

    def _fetch(self, images: np.ndarray, places: np.ndarray) -> Tensor:
        """This worker's images of those at `places`."""
        rows = places[self._workers.rows(len(places))]
        if self._device.type != "cuda":
            return torch.from_numpy(images[rows]).to(self._device)
        # Nobody waits for a copy out of pinned memory; each batch has its own, which torch uses again only once the
        # copy is done. Read straight into it: `take` with its default mode would copy once more.
        dtype = torch.from_numpy(np.empty(0, images.dtype)).dtype  # bytes of images, or halves of features
        pinned = torch.empty((len(rows), *images.shape[1:]), dtype=dtype, pin_memory=True)
        np.take(images, rows, axis=0, out=pinned.numpy(), mode="clip")
        return pinned.to(self._device, non_blocking=True)

    def _view(self, view: Callable[..., Tensor], images: Tensor, stream: str, step: int) -> Tensor:
        return view(
            images,
            self._config.views,
            size=self._config.data.image_size,
            generator=self._generators(stream, step),
            workers=self._workers,
        )

    def _draw(self, stream: str, step: int, images: int, weights: Tensor | None) -> Tensor:
        """Indices (B,) of step's images: by weight with replacement, else epoch by epoch without."""
        batch = self._config.optim.batch_size
        if weights is not None:
            sampler = WeightedRandomSampler(
                weights,  # type: ignore[arg-type]
                batch,
                replacement=True,
                generator=self._generators(f"{stream}_order", step),
            )
            return torch.tensor(list(sampler))
        places = torch.arange(step * batch, (step + 1) * batch)
        epochs = places // images
        order = torch.cat([self._epoch_order(stream, int(epoch), images) for epoch in epochs.unique()])
        return order[places - int(epochs[0]) * images]

    def _epoch_order(self, stream: str, epoch: int, images: int) -> Tensor:
        """The epoch's permutation, kept until another is asked for."""
        if self._epoch_orders.get(stream, (-1,))[0] != epoch:
            order = torch.randperm(images, generator=self._generators(f"{stream}_order", epoch))
            self._epoch_orders[stream] = (epoch, order)
        return self._epoch_orders[stream][1]


def balanced_weights(labels: Tensor, num_classes: int, gamma: float) -> Tensor:
    """Sampling weights (N,): (class frequency) ** -gamma (METHOD 5).

    An image whose label is not known yet (-1) gets the mean weight of the others, 1 where none is known.
    """
    known = labels >= 0
    if not known.any():
        return torch.ones(len(labels), dtype=torch.float64)
    frequency = torch.bincount(labels[known], minlength=num_classes).double() / int(known.sum())
    weights = torch.zeros(len(labels), dtype=torch.float64)
    weights[known] = frequency[labels[known]] ** -gamma
    weights[~known] = weights[known].mean()
    return weights
