"""Views for a frozen encoder: stored features of views that were made once, instead of images.

The stored row of an image, (1 + 2V, D), contains the features of its evaluation view, then those of V weak views, then
those of V strong views. Each step draws one view per image. The functions replace those of `scale_ray.data.views`: they
have the same arguments, but a batch consists of such rows, (B, 1 + 2V, D), instead of images.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from scale_ray.config import ModelConfig, ViewsConfig
from scale_ray.data.views import evaluation_view, strong_view, weak_view
from scale_ray.workers import ALONE, Workers


class Views(NamedTuple):
    """The functions that turn a stored batch (images or feature rows) into the student's input.

    `survey` is for a method that looks at whole domains: the evaluation view, or with a frozen encoder the mean of the
    features of evaluation view and weak views.
    """

    weak: Callable[..., Tensor]
    strong: Callable[..., Tensor]
    evaluation: Callable[..., Tensor]
    survey: Callable[..., Tensor]


def evaluation_features(rows: Tensor, *, size: int) -> Tensor:
    """Features (B, D) of the evaluation view, float32. `size` is not used: stored views have a fixed size."""
    return rows[:, 0].float()


def mean_features(rows: Tensor, *, size: int) -> Tensor:
    """Mean features (B, D) of the evaluation view and the weak views, float32. `size` is not used."""
    return rows[:, : 1 + _view_count(rows)].float().mean(dim=1)


def weak_features(
    rows: Tensor, views: ViewsConfig, *, size: int, generator: Generator, workers: Workers = ALONE
) -> Tensor:
    """Features (B, D) of one random weak view of each image, float32. `views` and `size` are not used."""
    return _draw_one(rows[:, 1 : 1 + _view_count(rows)], generator, workers)


def strong_features(
    rows: Tensor, views: ViewsConfig, *, size: int, generator: Generator, workers: Workers = ALONE
) -> Tensor:
    """Features (B, D) of one random strong view of each image, float32. `views` and `size` are not used."""
    return _draw_one(rows[:, 1 + _view_count(rows) :], generator, workers)


def views_of(model: ModelConfig) -> Views:
    """The views for training and evaluating a trial with this model."""
    return VIEWS[model.encoder]


VIEWS: dict[str, Views] = {
    "trained": Views(weak_view, strong_view, evaluation_view, evaluation_view),
    "frozen": Views(weak_features, strong_features, evaluation_features, mean_features),
}


def _view_count(rows: Tensor) -> int:
    """V."""
    return (rows.shape[1] - 1) // 2


def _draw_one(features: Tensor, generator: Generator, workers: Workers) -> Tensor:
    """(B, V, D) -> (B, D): one random view per image. Every worker draws for the global batch and uses its rows."""
    batch = workers.size * len(features)
    drawn = torch.randint(features.shape[1], (batch,), generator=generator)[workers.rows(batch)]
    index = drawn.to(features.device, non_blocking=features.is_cuda)[:, None, None]
    return features.gather(1, index.expand(-1, 1, features.shape[2])).squeeze(1).float()
