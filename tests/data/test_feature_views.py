"""What a step draws of the views that were kept."""

import pytest
import torch
from torch import Tensor

from scale_ray.config import ModelConfig, ViewsConfig
from scale_ray.data.feature_views import VIEWS, evaluation_features, strong_features, views_of, weak_features
from scale_ray.data.views import strong_view
from scale_ray.workers import ALONE, Workers

IMAGES, KEPT, WIDTH = 12, 3, 5
VIEWS_CONFIG = ViewsConfig()


def rows() -> Tensor:
    """Every feature says where it lies: image, then place in the row."""
    image = torch.arange(IMAGES)[:, None, None] * 100
    place = torch.arange(1 + 2 * KEPT)[None, :, None]
    return (image + place).expand(-1, -1, WIDTH).half()


def drawn(view: object, seed: int, workers: Workers = ALONE) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return view(rows()[workers.rows(IMAGES)], VIEWS_CONFIG, size=32, generator=generator, workers=workers)  # type: ignore[operator]


def test_evaluation_takes_the_first_place() -> None:
    assert torch.equal(evaluation_features(rows(), size=32), rows()[:, 0].float())


@pytest.mark.parametrize(
    ("view", "places"), [(weak_features, {1, 2, 3}), (strong_features, {4, 5, 6})], ids=["weak", "strong"]
)
def test_every_image_gets_one_of_its_own_views_and_all_are_drawn(view: object, places: set[int]) -> None:
    seen = set()
    for seed in range(20):
        found = drawn(view, seed)
        assert found.shape == (IMAGES, WIDTH)
        assert found.dtype == torch.float32
        assert torch.equal(found, found[:, :1].expand(-1, WIDTH))
        assert torch.equal(found[:, 0] // 100, torch.arange(IMAGES).float())
        seen |= set((found[:, 0] % 100).int().tolist())
    assert seen == places


def test_images_draw_apart_and_a_seed_draws_the_same() -> None:
    assert len(set((drawn(weak_features, 0)[:, 0] % 100).tolist())) > 1
    assert torch.equal(drawn(weak_features, 0), drawn(weak_features, 0))


def test_workers_see_the_rows_of_the_one_batch() -> None:
    parts = [drawn(strong_features, 4, Workers(rank, 3)) for rank in range(3)]
    assert torch.equal(torch.cat(parts), drawn(strong_features, 4))


def test_the_encoder_decides_what_is_seen() -> None:
    assert views_of(ModelConfig()).strong is strong_view
    assert views_of(ModelConfig(encoder="frozen")) == VIEWS["frozen"]
