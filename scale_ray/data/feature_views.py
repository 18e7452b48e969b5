"""Views where the encoder is frozen: its features of views that were made once, in place of images.

Of every image, V weak and V strong views are kept beside the evaluation view, as one row (1 + 2V, D): the evaluation
view's features first, then the weak ones', then the strong ones'. A step draws for every image which of its views it
sees. The functions stand for those of `views`, with the same arguments, where B images are such rows (B, 1 + 2V, D).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from scale_ray.config import ModelConfig, ViewsConfig
from scale_ray.data.views import evaluation_view, strong_view, weak_view
from scale_ray.workers import ALONE, Workers


class Views(NamedTuple):
    """How what is stored of a batch of images becomes what the student is given."""

    weak: Callable[..., Tensor]
    strong: Callable[..., Tensor]
    evaluation: Callable[..., Tensor]


def evaluation_features(rows: Tensor, *, size: int) -> Tensor:
    """Features (B, D) of the evaluation view, float32; `size` is not read: the views were made at theirs."""
    return rows[:, 0].float()


def weak_features(
    rows: Tensor, views: ViewsConfig, *, size: int, generator: Generator, workers: Workers = ALONE
) -> Tensor:
    """Features (B, D) of one of each image's weak views, float32."""
    return _drawn(rows[:, 1 : 1 + _kept(rows)], generator, workers)


def strong_features(
    rows: Tensor, views: ViewsConfig, *, size: int, generator: Generator, workers: Workers = ALONE
) -> Tensor:
    """Features (B, D) of one of each image's strong views, float32."""
    return _drawn(rows[:, 1 + _kept(rows) :], generator, workers)


def views_of(model: ModelConfig) -> Views:
    """The views that a trial with this model trains on and is measured on."""
    return VIEWS[model.encoder]


VIEWS: dict[str, Views] = {
    "trained": Views(weak_view, strong_view, evaluation_view),
    "frozen": Views(weak_features, strong_features, evaluation_features),
}


def _kept(rows: Tensor) -> int:
    return (rows.shape[1] - 1) // 2


def _drawn(features: Tensor, generator: Generator, workers: Workers) -> Tensor:
    """One of V for each image, (B, V, D) -> (B, D); drawn for the whole batch of all workers."""
    batch = workers.size * len(features)
    drawn = torch.randint(features.shape[1], (batch,), generator=generator)[workers.rows(batch)]
    place = drawn.to(features.device, non_blocking=features.is_cuda)[:, None, None]
    return features.gather(1, place.expand(-1, 1, features.shape[2])).squeeze(1).float()
