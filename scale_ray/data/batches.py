"""The batches of a training step. A source batch has labels; a target batch has no field for labels.

A batch of B images is the same for any number of workers. Each worker gets the views of its own B / workers rows, and
the labels or indices of all B rows, which are cheap to compute on every worker.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import WeightedRandomSampler

from scale_ray.config import TrialConfig
from scale_ray.data.decoded import Domain
from scale_ray.data.feature_views import views_of
from scale_ray.workers import ALONE, Workers

# (stream, step) -> the generator for that stream at that step; it also depends on the trial's seed.
Generators = Callable[[str, int], torch.Generator]


@dataclass(frozen=True)
class Images:
    """A subset of a domain's images. They are read from the memory-mapped array when fetched.

    Attributes:
        images: (M, 3, R, R) uint8, the whole domain; with a frozen encoder, its features (M, 1 + 2V, D).
        indices: (N,) rows of `images` that belong to the subset.
    """

    images: np.ndarray
    indices: np.ndarray


@dataclass(frozen=True)
class LabelledImages(Images):
    """A subset of a domain's images with their labels.

    Attributes:
        labels: (N,) int64, their classes.
    """

    labels: np.ndarray


class Encode(Protocol):
    def __call__(self, images: Tensor, domain: Literal["source", "target"]) -> Tensor: ...


# Images that are encoded together in a survey.
_SURVEYED = 256


@dataclass(frozen=True)
class UnlabelledImages:
    """All that training gets of the target domain.

    Attributes:
        images: (N, 3, R, R) uint8; with a frozen encoder, its features (N, 1 + 2V, D).
    """

    images: np.ndarray


@dataclass(frozen=True)
class SourceBatch:
    """One step's source images.

    Attributes:
        images: (B / workers, 3, S, S) float32, view of this worker's rows; with a frozen encoder, its features
            (B / workers, D).
        labels: (B,) int64, labels of all rows.
    """

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class TargetBatch:
    """One step's target images.

    Attributes:
        weak: (B / workers, 3, S, S) float32, weak view of this worker's rows; with a frozen encoder, its features
            (B / workers, D).
        strong: strong view of the same images, with the shape of `weak`.
        indices: (B,) int64 on the CPU, indices of all rows in the target domain, for the running pseudo-labels.
    """

    weak: Tensor
    strong: Tensor
    indices: Tensor


def hold_out(domain: Domain, share: float, generator: torch.Generator) -> tuple[LabelledImages, LabelledImages]:
    """Split a source domain into training and validation images, stratified by class.

    Every class with at least two images has at least one in each part. A class with one image has it in training.

    Args:
        domain: the source.
        share: share of each class's images to hold out, rounded.
        generator: draws the images.

    Returns:
        Training images and validation images.
    """
    labels = domain.known_labels  # resolve refuses a source without
    held_out = np.zeros(len(labels), dtype=bool)
    for label in range(len(domain.classes)):
        members = np.flatnonzero(labels == label)
        number = min(max(1, round(share * len(members))), len(members) - 1)
        held_out[members[torch.randperm(len(members), generator=generator)[:number].numpy()]] = True
    return _subset(domain, ~held_out), _subset(domain, held_out)


def _subset(domain: Domain, chosen: np.ndarray) -> LabelledImages:
    indices = np.flatnonzero(chosen)
    return LabelledImages(domain.images, indices, domain.known_labels[indices])


class Batches:
    """Makes this worker's part of the source and target batches, each a function of (seed, step).

    With `class_balance=both` the target batch also depends on the pseudo-labels observed so far. These are the only
    state of this object; `state` returns them.

    Args:
        config: the trial.
        source: the source images to train on.
        target: the target images.
        num_classes: K.
        generators: (stream, step) -> generator.
        device: where batches are put.
        workers: the processes that share the batches.
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
    def target_images(self) -> int:
        """Number of images of the target."""
        return len(self._target.images)

    @property
    def steps_per_epoch(self) -> int:
        """Number of source images over the batch size, rounded up."""
        return -(-len(self._source.labels) // self._config.optim.batch_size)

    def source(self, step: int) -> SourceBatch:
        """The source batch of a step, with labels: weak views, or strong ones at odd steps (`views.source`)."""
        indices = self._draw("source", step, len(self._source.labels), self._source_weights)
        images = self._fetch(self._source.images, self._source.indices[indices.numpy()])
        strong = self._config.views.source == "alternating" and step % 2 == 1
        make, stream = (self._views.strong, "source_strong") if strong else (self._views.weak, "source_weak")
        view = self._view(make, images, stream, step)
        labels = torch.from_numpy(self._source.labels[indices.numpy()])
        # A copy from pageable memory would wait for all work queued on the GPU.
        labels = labels.pin_memory() if self._device.type == "cuda" else labels
        return SourceBatch(view, labels.to(self._device, non_blocking=True))

    def target(self, step: int) -> TargetBatch:
        """The target batch of a step: weak and strong views."""
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

    def survey(
        self, encode: Encode, *, with_source: bool, on_life: Callable[[], None] = lambda: None
    ) -> tuple[Tensor | None, Tensor | None, Tensor]:
        """Encode whole domains; every worker encodes some of the images and gets all.

        Args:
            encode: (B, ...) images in the survey view, and their domain -> (B, X).
            with_source: whether the source is read too.
            on_life: called after every batch.

        Returns:
            Source images (N, X) and their labels (N,), or None for both, and target images (M, X).
        """
        source, labels = None, None
        if with_source:
            of_source = partial(encode, domain="source")
            source = self._encoded(self._source.images, self._source.indices, of_source, on_life)
            labels = torch.from_numpy(self._source.labels).to(self._device)
        of_target = partial(encode, domain="target")
        target = self._encoded(self._target.images, np.arange(len(self._target.images)), of_target, on_life)
        return source, labels, target

    def _encoded(
        self,
        images: np.ndarray,
        indices: np.ndarray,
        encode: Callable[[Tensor], Tensor],
        on_life: Callable[[], None],
    ) -> Tensor:
        whole: Tensor | None = None
        mine = np.arange(len(indices))[self._workers.rank :: self._workers.size]
        for start in range(0, len(mine), _SURVEYED):
            rows = mine[start : start + _SURVEYED]
            stored = torch.from_numpy(np.array(images[indices[rows]])).to(self._device)
            found = encode(self._views.survey(stored, size=self._config.data.image_size))
            if whole is None:
                whole = found.new_zeros(len(indices), found.shape[1])
            whole[torch.from_numpy(rows).to(self._device)] = found
            on_life()
        assert whole is not None, "a domain has at least as many images as a training has workers"
        return self._workers.total(whole)

    def observe(self, indices: Tensor, pseudo_labels: Tensor) -> None:
        """Store the pseudo-labels (B,) of the target images `indices` (B,); no effect unless `class_balance=both`."""
        if self._pseudo_labels is not None:
            self._pseudo_labels[indices] = pseudo_labels.cpu()

    def state(self) -> dict[str, Tensor]:
        """The state for a checkpoint."""
        return {} if self._pseudo_labels is None else {"pseudo_labels": self._pseudo_labels}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restore a state. One of a training that read no target has no pseudo-labels: then none are known."""
        if self._pseudo_labels is not None and "pseudo_labels" in state:
            self._pseudo_labels.copy_(state["pseudo_labels"])

    def _fetch(self, images: np.ndarray, indices: np.ndarray) -> Tensor:
        """This worker's part of `images[indices]`, on the device."""
        rows = indices[self._workers.rows(len(indices))]
        if self._device.type != "cuda":
            return torch.from_numpy(images[rows]).to(self._device)
        # A copy from pinned memory is asynchronous. Every batch allocates its own, which torch reuses after the copy is
        # done. `take` with mode="clip" writes into it directly; the default mode would buffer the result.
        dtype = torch.from_numpy(np.empty(0, images.dtype)).dtype  # uint8 for images, float16 for features
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
        """Indices (B,) of a step's images: with replacement by weight, or without replacement within each epoch."""
        batch = self._config.optim.batch_size
        if weights is not None:
            sampler = WeightedRandomSampler(
                weights,  # type: ignore[arg-type]
                batch,
                replacement=True,
                generator=self._generators(f"{stream}_order", step),
            )
            return torch.tensor(list(sampler))
        positions = torch.arange(step * batch, (step + 1) * batch)
        epochs = positions // images
        order = torch.cat([self._epoch_order(stream, int(epoch), images) for epoch in epochs.unique()])
        return order[positions - int(epochs[0]) * images]

    def _epoch_order(self, stream: str, epoch: int, images: int) -> Tensor:
        """The permutation of an epoch; the last one of each stream is kept."""
        if self._epoch_orders.get(stream, (-1,))[0] != epoch:
            order = torch.randperm(images, generator=self._generators(f"{stream}_order", epoch))
            self._epoch_orders[stream] = (epoch, order)
        return self._epoch_orders[stream][1]


def balanced_weights(labels: Tensor, num_classes: int, gamma: float) -> Tensor:
    """Sampling weights of images for class-balanced sampling (docs/method.md, section 5).

    Args:
        labels: (N,) int64; -1 where the label is not known yet.
        num_classes: K.
        gamma: an image has the weight (frequency of its class) ** -gamma.

    Returns:
        (N,) float64. An image with an unknown label has the mean weight of the others, or 1 if no label is known.
    """
    known = labels >= 0
    if not known.any():
        return torch.ones(len(labels), dtype=torch.float64)
    frequency = torch.bincount(labels[known], minlength=num_classes).double() / int(known.sum())
    weights = torch.zeros(len(labels), dtype=torch.float64)
    weights[known] = frequency[labels[known]] ** -gamma
    weights[~known] = weights[known].mean()
    return weights
