"""How many trainings fit: whole bundles on whole nodes."""

import pytest

from scale_ray.sweep.cluster import fitting


@pytest.mark.parametrize(
    ("nodes", "bundle", "number"),
    [
        ([{"CPU": 2}], {"CPU": 1}, 2),
        ([{"CPU": 3}, {"CPU": 3}], {"CPU": 2}, 2),  # a bundle is not split over nodes
        ([{"CPU": 16, "GPU": 2}], {"CPU": 4, "GPU": 1}, 2),
        ([{"CPU": 4, "GPU": 1}], {"CPU": 1, "GPU": 0.1}, 4),
        ([{"CPU": 16, "GPU": 1}], {"CPU": 1, "GPU": 0.1}, 10),
        ([{"CPU": 16, "GPU": 0.3}], {"CPU": 1, "GPU": 0.1}, 3),  # 0.3 / 0.1 is 2.9999999999999996
        ([{"CPU": 16}], {"CPU": 1, "GPU": 1}, 0),
        ([], {"CPU": 1}, 0),
    ],
)
def test_bundles_that_fit(nodes: list[dict[str, float]], bundle: dict[str, float], number: int) -> None:
    assert fitting(nodes, bundle) == number
